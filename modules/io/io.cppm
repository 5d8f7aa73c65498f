// qorus.io: tensors and models to and from files. What is read may be anything: each function gives a valid result or an error.
export module qorus.io;
export import qorus.nn;
export import :safetensors;
export import :gguf;
export import :gguf_writer;
export import :npy;
export import :model;
export import :sealed;
export import :json;
