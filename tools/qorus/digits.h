// What train and predict share: the network and the data. Included after <cstdint> and before nothing: it imports.
#pragma once
#include <cstdint>

#include "options.h"

import qorus;

// A classifier of images with one hidden layer; parameters "1.weight", "1.bias", "3.weight", "3.bias".
inline auto digits_network(std::int64_t hidden) {
  return qorus::nn::flatten() | qorus::nn::linear(hidden) | qorus::nn::relu() | qorus::nn::linear(10);
}

inline qorus::Result<qorus::data::Split> digits_data(const Options& options) {
  if (options.set == "digits") return qorus::data::digits(options.seed);
  if (options.data.empty()) return qorus::fail(qorus::Errc::invalid_argument, "train", "mnist needs --data DIR");
  return qorus::data::mnist(options.data);
}

inline int threads_of(const Options& options) { return options.threads > 0 ? options.threads : qorus::cpu_count(); }
