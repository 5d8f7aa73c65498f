// qorus.tensor: element types, shapes, the immutable tensor value, and what an operation records on a tape.
export module qorus.tensor;
export import qorus.memory;
export import :dtype;
export import :shape;
export import :context;
export import :value;
export import :owned;
