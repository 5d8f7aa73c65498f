// qorus.tune: language models trained here, and written as files that others read.
export module qorus.tune;
export import qorus.llm;
export import qorus.train;
export import :corpus;
export import :text_folder;
export import :pretrain;
export import :write;
export import :dialogue;
export import :tuner;
export import :adapter_file;
export import :merge;
