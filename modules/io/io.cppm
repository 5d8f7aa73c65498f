// qorus.io: tensors to and from files. What is read may be anything: each function gives a valid result or an error.
export module qorus.io;
export import qorus.tensor;
export import :safetensors;
export import :npy;
