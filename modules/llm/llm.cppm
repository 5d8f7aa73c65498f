// qorus.llm: language models from their files: open, generate.
export module qorus.llm;
export import qorus.io;
export import qorus.text;
export import :weights;
export import :model;
export import :sampler;
export import :session;
