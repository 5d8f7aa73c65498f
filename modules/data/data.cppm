// qorus.data: data sets in memory, where they come from, and the pipelines that make batches of them.
export module qorus.data;
export import qorus.tensor;
export import :augment;
export import :dataset;
export import :batch;
export import :idx;
export import :digits;
export import :transform;
export import :picture;
export import :characters;
export import :csv;
