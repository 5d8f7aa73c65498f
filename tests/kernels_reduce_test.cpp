// Reductions along the last axis, across rows and in between.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/kernels_common.h"

namespace {
using namespace qorus_test;
using qorus::kernels::Reduce;
using qorus::kernels::Table;

struct Form {
  std::size_t outer, reduced, inner;
};
std::vector<Form> forms() {
  std::vector<Form> all;
  for (std::size_t n : sizes()) all.push_back({2, n, 1}), all.push_back({1, 5, n}), all.push_back({2, n, 3});
  all.insert(all.end(), {{1, 10000, 1}, {1, 4096, 1}, {1, 4097, 1}, {3, 100, 40}, {0, 3, 3}});
  return all;
}

struct Folded {
  double value, size;  // the result, and the sum of the absolute terms
};
Folded by_definition(Reduce op, const std::vector<double>& x) {
  const double starts[] = {0, 0, 0, -k_inf, k_inf, 1};
  Folded f{starts[int(op)], 0};
  for (double v : x) {
    f.size += op == Reduce::sum_square ? v * v : std::fabs(v);
    switch (op) {
      case Reduce::sum: f.value += v; break;
      case Reduce::sum_abs: f.value += std::fabs(v); break;
      case Reduce::sum_square: f.value += v * v; break;
      case Reduce::max: f.value = std::isnan(v) || std::isnan(f.value) ? k_nan : std::fmax(f.value, v); break;
      case Reduce::min: f.value = std::isnan(v) || std::isnan(f.value) ? k_nan : std::fmin(f.value, v); break;
      case Reduce::prod: f.value *= v; break;
      default: break;
    }
  }
  return f;
}

std::vector<double> column(Guarded<float>& x, const Form& f, std::size_t o, std::size_t i) {
  std::vector<double> values;
  values.reserve(f.reduced);
  for (std::size_t r = 0; r < f.reduced; ++r) values.push_back(x[(o * f.reduced + r) * f.inner + i]);
  return values;
}

TEST(KernelsReduce, EveryOperationAndForm) {
  for (const Table* table : tables())
    for (const Form& f : forms())
      for (int op = 0; op < int(Reduce::count_); ++op) {
        Guarded<float> x(f.outer * f.reduced * f.inner, 1), y(f.outer * f.inner, 1);
        fill(x, -1, 2, unsigned(f.reduced));
        if (Reduce(op) == Reduce::prod) fill(x, 0.9f, 1.1f, 1);
        table->reduce(Reduce(op), x.data(), y.data(), f.outer, f.reduced, f.inner);
        for (std::size_t o = 0; o < f.outer; ++o)
          for (std::size_t i = 0; i < f.inner; ++i) {
            const Folded want = by_definition(Reduce(op), column(x, f, o, i));
            const float got = y[o * f.inner + i];
            const std::string place = where(table, "reduce " + std::to_string(op), f.reduced, i);
            if (Reduce(op) == Reduce::max || Reduce(op) == Reduce::min)
              ASSERT_EQ(got, want.value) << place;
            else if (Reduce(op) == Reduce::prod)
              ASSERT_NEAR(got, want.value, prod_error(f.reduced) * std::fabs(want.value)) << place;
            else
              ASSERT_NEAR(got, want.value, sum_error(f.reduced) * want.size) << place;
          }
      }
}

// Ten million ones, and ten million tenths: a single f32 accumulator would stop at 2^24 or drift.
TEST(KernelsReduce, LongSumsKeepTheirDigits) {
  const std::size_t n = 10'000'000;
  const std::vector<float> x(n, 0.1f);
  for (const Table* table : tables()) {
    float along = 0;
    table->reduce(Reduce::sum, x.data(), &along, 1, n, 1);
    EXPECT_NEAR(along, double(0.1f) * double(n), k_long_sum * 1e6) << table->isa;
    std::vector<float> across(10);
    table->reduce(Reduce::sum, x.data(), across.data(), 1, n / 10, 10);
    for (float v : across) EXPECT_NEAR(v, double(0.1f) * double(n) / 10, k_long_sum_across * 1e5) << table->isa;
  }
}

TEST(KernelsReduce, NaNWins) {
  for (const Table* table : tables())
    for (std::size_t n : {1, 7, 16, 33, 70})
      for (std::size_t at = 0; at < n; ++at)
        for (Reduce op : {Reduce::max, Reduce::min}) {
          std::vector<float> x(n, 1);
          x[at] = k_nan;
          float y = 0;
          table->reduce(op, x.data(), &y, 1, n, 1);
          ASSERT_TRUE(std::isnan(y)) << where(table, "max/min", n, at);
          std::vector<float> columns(3 * n, 2), result(3);
          columns[3 * at + 1] = k_nan;
          table->reduce(op, columns.data(), result.data(), 1, n, 3);
          ASSERT_EQ(result[0], 2);
          ASSERT_TRUE(std::isnan(result[1])) << where(table, "max/min across", n, at);
          ASSERT_EQ(result[2], 2);
        }
}

TEST(KernelsReduce, ArgReduceTakesTheFirst) {
  for (const Table* table : tables())
    for (const Form& f : forms()) {
      if (f.reduced == 0) continue;
      for (bool largest : {true, false})
        for (int kind = 0; kind < 3; ++kind) {  // all different; few values, so many ties; with NaNs
          Guarded<float> x(f.outer * f.reduced * f.inner, 1);
          Guarded<std::int32_t> y(f.outer * f.inner, 1);
          fill(x, -1, 1, unsigned(f.reduced));
          for (std::size_t i = 0; i < x.size(); ++i) {
            if (kind > 0) x[i] = std::round(2 * x[i]);
            if (kind == 2 && i * 7 % 13 == 5) x[i] = k_nan;
          }
          table->arg_reduce(largest, x.data(), y.data(), f.outer, f.reduced, f.inner);
          for (std::size_t o = 0; o < f.outer; ++o)
            for (std::size_t i = 0; i < f.inner; ++i) {
              const std::vector<double> values = column(x, f, o, i);
              std::size_t want = 0;
              for (std::size_t r = 1; r < f.reduced && !std::isnan(values[want]); ++r)
                if (std::isnan(values[r]) || (largest ? values[r] > values[want] : values[r] < values[want])) want = r;
              ASSERT_EQ(std::size_t(y[o * f.inner + i]), want)
                  << where(table, "arg_reduce", f.reduced, i) << " kind " << kind;
            }
        }
    }
  for (const Table* table : tables())
    for (float v : {k_inf, -k_inf}) {
      const std::vector<float> x(40, v);
      std::int32_t y = 7;
      table->arg_reduce(true, x.data(), &y, 1, 40, 1);
      EXPECT_EQ(y, 0);
      table->arg_reduce(false, x.data(), &y, 1, 40, 1);
      EXPECT_EQ(y, 0);
    }
}

}  // namespace
