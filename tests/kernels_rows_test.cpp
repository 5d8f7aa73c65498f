// Softmax, cross-entropy, layer norm and RMS norm: forward against plain loops in f64, backward against central
// differences of those loops.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "tests/kernels_common.h"

namespace {
using namespace qorus_test;
using qorus::kernels::Table;
using Row = std::vector<double>;

std::vector<std::size_t> widths() {
  std::vector<std::size_t> all = sizes();
  all.erase(all.begin());  // cols > 0
  all.push_back(2500);     // more than one run of the sum of exponentials
  return all;
}

double log_sum_exp(const Row& x) {
  double top = -k_inf, sum = 0;
  for (double v : x) top = std::max(top, v);
  for (double v : x) sum += std::exp(v - top);
  return top + std::log(sum);
}
Row softmax(const Row& x) {
  const double total = log_sum_exp(x);
  Row y;
  for (double v : x) y.push_back(std::exp(v - total));
  return y;
}
Row log_softmax(const Row& x) {
  const double total = log_sum_exp(x);
  Row y;
  for (double v : x) y.push_back(v - total);
  return y;
}
double mean(const Row& x) {
  double sum = 0;
  for (double v : x) sum += v;
  return sum / double(x.size());
}
double variance(const Row& x) {
  const double center = mean(x);
  double sum = 0;
  for (double v : x) sum += (v - center) * (v - center);
  return sum / double(x.size());
}
Row layer_norm(const Row& x, const Row& w, const Row& b, double eps) {
  const double center = mean(x), scale = 1 / std::sqrt(variance(x) + eps);
  Row y;
  for (std::size_t i = 0; i < x.size(); ++i) y.push_back((x[i] - center) * scale * w[i] + b[i]);
  return y;
}
Row rms_norm(const Row& x, const Row& w, double eps) {
  double squares = 0;
  for (double v : x) squares += v * v;
  Row y;
  for (std::size_t i = 0; i < x.size(); ++i) y.push_back(x[i] / std::sqrt(squares / double(x.size()) + eps) * w[i]);
  return y;
}
double cross_entropy(const Row& x, std::size_t target, double smoothing) {
  const Row log_p = log_softmax(x);
  return -(1 - smoothing) * log_p[target] - smoothing * mean(log_p);
}

Row row_of(Guarded<float>& x, std::size_t r, std::size_t cols) {
  return {x.data() + r * cols, x.data() + (r + 1) * cols};
}
// d/dx[i] of sum(dy f(x)), by central differences; of a few i where there are many.
double numeric(const std::function<Row(const Row&)>& f, Row x, const Row& dy, std::size_t i) {
  const double h = 1e-5, at = x[i];
  double difference = 0;
  x[i] = at + h;
  const Row up = f(x);
  x[i] = at - h;
  const Row down = f(x);
  for (std::size_t k = 0; k < up.size(); ++k) difference += dy[k] * (up[k] - down[k]);
  return difference / (2 * h);
}
bool tried(std::size_t i, std::size_t cols) { return cols <= 40 || i % (cols / 16) == 3; }

TEST(KernelsRows, SoftmaxForwardAndBackward) {
  const std::size_t rows = 3;
  for (const Table* table : tables())
    for (std::size_t cols : widths())
      for (bool log : {false, true}) {
        Guarded<float> x(rows * cols, 1), y(rows * cols, 1), dy(rows * cols), dx(rows * cols, 1), sum(rows * cols, 1);
        fill(x, -6, 6, 1);
        fill(dy, -1, 1, 2);
        for (float& v : sum) v = 0.5f;
        const float scale = log ? 1 : 0.7f;
        const auto forward = [&](const float* from, float* to) {
          log ? table->log_softmax(from, to, rows, cols) : table->softmax(from, to, rows, cols, scale);
        };
        const auto bwd = [&](const float* of, const float* slopes, float* to, bool add) {
          log ? training(*table).log_softmax_bwd(of, slopes, to, rows, cols, add)
              : training(*table).softmax_bwd(of, slopes, to, rows, cols, scale, add);
        };
        forward(x.data(), y.data());
        bwd(y.data(), dy.data(), dx.data(), false);
        bwd(y.data(), dy.data(), sum.data(), true);
        const auto f = [&](Row row) {
          for (double& v : row) v *= scale;
          return log ? log_softmax(row) : softmax(row);
        };
        for (std::size_t r = 0; r < rows; ++r) {
          const Row row = row_of(x, r, cols), want = f(row), slope = row_of(dy, r, cols);
          for (std::size_t c = 0; c < cols; ++c) {
            ASSERT_NEAR(y[r * cols + c], want[c], k_softmax * (log ? 12 : want[c])) << where(table, "softmax", cols, c);
            ASSERT_NEAR(sum[r * cols + c], 0.5f + dx[r * cols + c], k_softmax_slope)
                << where(table, "softmax_bwd +", cols, c);
            if (tried(c, cols))
              ASSERT_NEAR(dx[r * cols + c], numeric(f, row, slope, c),
                          log ? k_log_softmax_slope(cols) : k_softmax_slope)
                  << where(table, "softmax_bwd", cols, c);
          }
        }
        forward(x.data(), x.data());
        ASSERT_TRUE(same_bits(x.data(), y.data(), rows * cols * 4)) << where(table, "softmax in place", cols, 0);
        bwd(y.data(), dy.data(), dy.data(), false);
        ASSERT_TRUE(same_bits(dx.data(), dy.data(), rows * cols * 4)) << where(table, "softmax_bwd in place", cols, 0);
      }
}

TEST(KernelsRows, SoftmaxOfExtremes) {
  for (const Table* table : tables()) {
    std::vector<float> x(40, -k_inf), y(40), z(40);
    x[5] = 1e38f;
    x[6] = -1e38f;
    table->softmax(x.data(), y.data(), 1, 40, 1);
    table->log_softmax(x.data(), z.data(), 1, 40);
    for (std::size_t i = 0; i < 40; ++i) {
      EXPECT_EQ(y[i], i == 5 ? 1 : 0) << table->isa << " " << i;
      EXPECT_TRUE(i == 5 ? z[i] == 0 : z[i] < -1e38f) << table->isa << " " << i;
    }
    for (std::size_t n : {1, 5, 40, 5000}) {  // nothing but -infinity, or a NaN somewhere: NaN throughout
      std::vector<float> bad(n, -k_inf), out(n);
      for (int kind = 0; kind < 2; ++kind) {
        table->softmax(bad.data(), out.data(), 1, n, 1);
        for (float v : out) ASSERT_TRUE(std::isnan(v)) << where(table, "softmax of -inf", n, 0);
        table->log_softmax(bad.data(), out.data(), 1, n);
        for (float v : out) ASSERT_TRUE(std::isnan(v)) << where(table, "log_softmax of -inf", n, 0);
        bad[n / 2] = k_nan;
        bad[n - 1] = n > 1 ? 1 : k_nan;
      }
    }
    std::vector<float> late(5000, -k_inf), out(5000);  // the first run holds nothing finite
    late[4999] = 3;
    table->log_softmax(late.data(), out.data(), 1, 5000);
    EXPECT_EQ(out[4999], 0) << table->isa;
  }
}

TEST(KernelsRows, CrossEntropyForwardAndBackward) {
  const std::size_t rows = 4;
  for (const Table* table : tables())
    for (std::size_t cols : widths())
      for (float smoothing : {0.0f, 0.1f})
        for (std::size_t step : {0, 1}) {
          Guarded<float> x(rows * cols, 1), dx(rows * cols, 1), sum(rows * cols, 1), loss(rows), log_sum(rows),
              dloss(rows);
          fill(x, -6, 6, unsigned(cols));
          fill(dloss, 0.5f, 1.5f, 1);
          for (float& v : sum) v = 0.5f;
          const std::int32_t target[] = {0, -100, std::int32_t(cols - 1), std::int32_t(cols / 2)};
          table->cross_entropy(x.data(), target, loss.data(), log_sum.data(), rows, cols, smoothing, -100);
          for (bool add : {false, true})
            training(*table).cross_entropy_bwd(x.data(), target, log_sum.data(), dloss.data(), step,
                                               (add ? sum : dx).data(), rows, cols, smoothing, -100, add);
          for (std::size_t r = 0; r < rows; ++r) {
            const Row row = row_of(x, r, cols);
            const bool ignored = target[r] == -100;
            const auto f = [&](const Row& v) { return Row{cross_entropy(v, std::size_t(target[r]), smoothing)}; };
            ASSERT_NEAR(log_sum[r], log_sum_exp(row), k_softmax * 16) << where(table, "log_sum", cols, r);
            ASSERT_NEAR(loss[r], ignored ? 0 : f(row)[0], k_softmax * 16) << where(table, "loss", cols, r);
            for (std::size_t c = 0; c < cols; ++c) {
              ASSERT_NEAR(sum[r * cols + c], 0.5f + dx[r * cols + c], k_softmax_slope)
                  << where(table, "ce_bwd +", cols, c);
              if (!tried(c, cols)) continue;
              const double want = ignored ? 0 : numeric(f, row, {dloss[r * step]}, c);
              ASSERT_NEAR(dx[r * cols + c], want, k_softmax_slope) << where(table, "cross_entropy_bwd", cols, c);
            }
          }
          training(*table).cross_entropy_bwd(x.data(), target, log_sum.data(), dloss.data(), step, x.data(), rows, cols,
                                             smoothing, -100, false);
          ASSERT_TRUE(same_bits(x.data(), dx.data(), rows * cols * 4)) << where(table, "ce_bwd in place", cols, 0);
        }
}

// A forbidden class (logit -infinity) costs nothing as long as it is not the target.
TEST(KernelsRows, CrossEntropyWithForbiddenClasses) {
  for (const Table* table : tables()) {
    const float x[] = {1, -k_inf, 2};
    const std::int32_t target = 2;
    float loss = 0, log_sum = 0, dx[3];
    const float one = 1;
    table->cross_entropy(x, &target, &loss, &log_sum, 1, 3, 0, -1);
    training(*table).cross_entropy_bwd(x, &target, &log_sum, &one, 0, dx, 1, 3, 0, -1, false);
    EXPECT_NEAR(loss, std::log(1 + std::exp(-1.0)), k_softmax * 2) << table->isa;
    EXPECT_EQ(dx[1], 0) << table->isa;
  }
}

struct NormCase {
  bool centered, with_w, with_b;
};
class KernelsNorm : public testing::TestWithParam<NormCase> {};

TEST_P(KernelsNorm, ForwardAndBackward) {
  const NormCase kind = GetParam();
  const std::size_t rows = 3;
  const float eps = 1e-5f;
  for (const Table* table : tables())
    for (std::size_t cols : widths()) {
      Guarded<float> x(rows * cols, 1), y(rows * cols, 1), dy(rows * cols), dx(rows * cols, 1), sum(rows * cols, 1);
      Guarded<float> w(cols, 1), b(cols, 2), dw(cols, 1), db(cols, 1), center(rows), scale(rows);
      fill(x, -1, 3, unsigned(cols));
      fill(dy, -1, 1, 2);
      fill(w, 0.5f, 1.5f, 3);
      fill(b, -1, 1, 4);
      for (float& v : sum) v = 0.5f;
      for (float& v : dw) v = 0.25f;
      for (float& v : db) v = 0.25f;
      float* weight = kind.with_w ? w.data() : nullptr;
      float* bias = kind.with_b ? b.data() : nullptr;
      const auto forward = [&](float* from, float* to) {
        if (kind.centered)
          return table->layer_norm(from, weight, bias, to, center.data(), scale.data(), rows, cols, eps);
        table->rms_norm(from, weight, to, scale.data(), rows, cols, eps);
      };
      const auto backward = [&](const float* up, float* out, float* d_w, float* d_b, bool add) {
        if (kind.centered)
          return training(*table).layer_norm_bwd(x.data(), weight, center.data(), scale.data(), up, out, d_w, d_b, rows,
                                                 cols, rows * cols, add);
        training(*table).rms_norm_bwd(x.data(), weight, scale.data(), up, out, d_w, rows, cols, rows * cols, add);
      };
      forward(x.data(), y.data());
      backward(dy.data(), dx.data(), dw.data(), db.data(), false);
      backward(dy.data(), sum.data(), nullptr, nullptr, true);

      const Row w64 = kind.with_w ? row_of(w, 0, cols) : Row(cols, 1),
                b64 = kind.with_b ? row_of(b, 0, cols) : Row(cols, 0);
      const auto f = [&](const Row& v) { return kind.centered ? layer_norm(v, w64, b64, eps) : rms_norm(v, w64, eps); };
      const auto plain = [&](const Row& v) {
        return kind.centered ? layer_norm(v, Row(cols, 1), Row(cols, 0), eps) : rms_norm(v, Row(cols, 1), eps);
      };
      Row want_dw(cols, 0.25), want_db(cols, 0.25);
      for (std::size_t r = 0; r < rows; ++r) {
        const Row row = row_of(x, r, cols), want = f(row), z = plain(row), up = row_of(dy, r, cols);
        for (std::size_t c = 0; c < cols; ++c) {
          const std::size_t at = r * cols + c;
          want_dw[c] += up[c] * z[c];
          want_db[c] += up[c];
          ASSERT_NEAR(y[at], want[c], k_norm * (1 + std::fabs(want[c])) * (cols == 1 ? 100 : 1))
              << where(table, "norm", cols, c);
          ASSERT_NEAR(sum[at], 0.5f + dx[at], k_norm * (1 + std::fabs(dx[at]))) << where(table, "norm_bwd +", cols, c);
          if (tried(c, cols) && cols > 2)  // of one or two columns little more than eps is left
            ASSERT_NEAR(dx[at], numeric(f, row, up, c), k_norm_slope) << where(table, "norm_bwd", cols, c);
        }
      }
      for (std::size_t c = 0; c < cols; ++c) {
        ASSERT_NEAR(dw[c], want_dw[c], k_norm_slope) << where(table, "dw", cols, c);
        ASSERT_NEAR(db[c], kind.centered ? want_db[c] : 0.25, k_norm_slope) << where(table, "db", cols, c);
      }
      backward(dy.data(), dy.data(), nullptr, nullptr, false);
      ASSERT_TRUE(same_bits(dx.data(), dy.data(), rows * cols * 4)) << where(table, "norm_bwd in place", cols, 0);
      forward(x.data(), x.data());
      ASSERT_TRUE(same_bits(x.data(), y.data(), rows * cols * 4)) << where(table, "norm in place", cols, 0);
    }
}
INSTANTIATE_TEST_SUITE_P(Forms, KernelsNorm,
                         testing::Values(NormCase{true, true, true}, NormCase{true, true, false},
                                         NormCase{true, false, true}, NormCase{true, false, false},
                                         NormCase{false, true, false}, NormCase{false, false, false}));

// What a long call writes past the caches is what short calls write through them, to the bit; at any alignment.
TEST(KernelsRows, LongCallsAgreeWithShortOnes) {
  using qorus::kernels::Binary;
  using qorus::kernels::Unary;
  const std::size_t cols = 1031, rows = 2040, n = rows * cols;  // above 2^21
  Guarded<float> x(n, 1), g(n, 2), whole(n, 3), pieces(n, 3), w(cols, 1), center(rows), scale(rows), all(rows);
  const std::vector<std::int32_t> target(rows, 5);
  fill(x, -6, 6, 1);
  fill(g, -1, 1, 2);
  fill(w, 0.5f, 1.5f, 3);
  for (const Table* t : tables()) {
    const auto compare = [&](const char* what, auto call) {  // call(first row, rows, output)
      call(0, rows, whole.data());
      for (std::size_t r = 0; r < rows; r += 40) call(r, 40, pieces.data() + r * cols);
      EXPECT_TRUE(same_bits(whole.data(), pieces.data(), n * sizeof(float))) << t->isa << " " << what;
    };
    const auto at = [&](Guarded<float>& a, std::size_t r) { return a.data() + r * cols; };
    compare("silu", [&](std::size_t r, std::size_t k, float* y) { t->unary(Unary::silu, at(x, r), y, k * cols, 0); });
    compare("silu_bwd", [&](std::size_t r, std::size_t k, float* y) {
      training(*t).unary_bwd(Unary::silu, at(x, r), nullptr, at(g, r), y, k * cols, 0, false);
    });
    compare("add", [&](std::size_t r, std::size_t k, float* y) {
      t->binary(Binary::add, at(x, r), 1, at(g, r), 1, y, k * cols);
    });
    compare("log_softmax", [&](std::size_t r, std::size_t k, float* y) { t->log_softmax(at(x, r), y, k, cols); });
    compare("softmax", [&](std::size_t r, std::size_t k, float* y) { t->softmax(at(x, r), y, k, cols, 1); });
    compare("softmax_bwd", [&](std::size_t r, std::size_t k, float* y) {
      training(*t).softmax_bwd(at(x, r), at(g, r), y, k, cols, 1, false);
    });
    compare("layer_norm", [&](std::size_t r, std::size_t k, float* y) {
      t->layer_norm(at(x, r), w.data(), w.data(), y, center.data() + r, scale.data() + r, k, cols, 1e-5f);
    });
    compare("layer_norm_bwd", [&](std::size_t r, std::size_t k, float* y) {
      training(*t).layer_norm_bwd(at(x, r), w.data(), center.data() + r, scale.data() + r, at(g, r), y, nullptr,
                                  nullptr, k, cols, k * cols, false);
    });
    compare("rms_norm", [&](std::size_t r, std::size_t k, float* y) {
      t->rms_norm(at(x, r), w.data(), y, nullptr, k, cols, 1e-5f);
    });
    t->cross_entropy(x.data(), target.data(), all.data(), center.data(), rows, cols, 0.1f, -1);
    compare("cross_entropy_bwd", [&](std::size_t r, std::size_t k, float* y) {
      training(*t).cross_entropy_bwd(at(x, r), target.data(), center.data() + r, w.data(), 0, y, k, cols, 0.1f, -1,
                                     false);
    });
  }
}

// A row far from 0 keeps its digits: the variance is that of the distances from the mean.
TEST(KernelsRows, LayerNormFarFromZero) {
  for (const Table* table : tables()) {
    std::vector<float> x(100), y(100);
    for (std::size_t i = 0; i < 100; ++i) x[i] = 10000 + float(i % 2);
    table->layer_norm(x.data(), nullptr, nullptr, y.data(), nullptr, nullptr, 1, 100, 0);
    for (std::size_t i = 0; i < 100; ++i) EXPECT_NEAR(y[i], i % 2 ? 1 : -1, k_norm) << table->isa;
  }
}

}  // namespace
