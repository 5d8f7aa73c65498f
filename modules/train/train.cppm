// qorus.train: the loop that people do not want to write again: fit, evaluate, predict, with callbacks and a report.
export module qorus.train;
export import qorus.data;
export import qorus.nn;
export import qorus.optim;
export import :callback;
export import :fit;
export import :logger;
export import :metric;
export import :progress;
export import :report;
