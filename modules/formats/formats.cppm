// qorus.formats: model files beyond reading: block formats written, files quantised, Qorus' own format, archives of arrays.
export module qorus.formats;
export import qorus.io;
export import :recode;
export import :importance;
export import :scheme;
export import :quantize;
export import :native;
export import :npz;
export import :safetensors_writer;
