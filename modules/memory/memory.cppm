// qorus.memory: results and errors, checked sizes, blocks and arenas, files, the host. Everything else stands on it.
export module qorus.memory;
export import :error;
export import :size;
export import :list;
export import :block;
export import :arena;
export import :file;
export import :host;
