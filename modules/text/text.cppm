// qorus.text: text to tokens and back.
export module qorus.text;
export import qorus.memory;
export import :tokenizer;
export import :load;
export import :gguf;
export import :json;
export import :chat;
export import :vocabulary;
