// qorus.ops: pure functions on tensors, each with its backward; workspaces, tapes and gradients.
export module qorus.ops;
export import qorus.tensor;
export import :workspace;
export import :tape;
export import :operand;
export import :view;
export import :elementwise;
export import :reduce;
export import :matmul;
export import :softmax;
export import :join;
export import :index;
export import :cast;
export import :random;
export import :scan;
export import :loss;
