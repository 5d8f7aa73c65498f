// qorus.llm: language models from their files: open, generate.
export module qorus.llm;
export import qorus.io;
export import qorus.formats;
export import qorus.text;
export import :config;
export import :weights;
export import :network;
export import :frozen;
export import :adapter;
export import :packing;
export import :model;
export import :cache;
export import :sampler;
export import :session;
export import :chat;
export import :convert;
