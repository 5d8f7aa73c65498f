// Random numbers and the optimizers' steps; and the choice of a table.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "tests/kernels_common.h"

namespace {
using namespace qorus_test;
using namespace qorus::kernels;

// The published known answers for Philox 4x32-10 that a 64-bit counter reaches: counter and key all zero. (kat_vectors
// of Random123 1.09.)
TEST(KernelsRandom, KnownAnswers) {
  const std::uint32_t zero[] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  for (const Table* table : tables()) {
    std::uint32_t bits[4];
    table->random_bits(bits, 4, 0, 0);
    EXPECT_TRUE(same_bits(bits, zero, sizeof bits)) << table->isa;
  }
}

// The generator as its paper states it, with all four counter words, checked against the other two known answers; then
// used as the reference for long runs.
void philox(std::uint32_t (&c)[4], std::uint32_t k0, std::uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = 0xD2511F53ull * c[0], p1 = 0xCD9E8D57ull * c[2];
    const std::uint32_t next[4] = {std::uint32_t(p1 >> 32) ^ c[1] ^ k0, std::uint32_t(p1),
                                   std::uint32_t(p0 >> 32) ^ c[3] ^ k1, std::uint32_t(p0)};
    std::memcpy(c, next, sizeof next);
    k0 += 0x9E3779B9, k1 += 0xBB67AE85;
  }
}
TEST(KernelsRandom, ReferenceHasTheOtherKnownAnswers) {
  std::uint32_t ones[] = {~0u, ~0u, ~0u, ~0u}, pi[] = {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344};
  philox(ones, ~0u, ~0u);
  philox(pi, 0xa4093822, 0x299f31d0);
  const std::uint32_t want_ones[] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
  const std::uint32_t want_pi[] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
  EXPECT_TRUE(same_bits(ones, want_ones, sizeof ones));
  EXPECT_TRUE(same_bits(pi, want_pi, sizeof pi));
}

TEST(KernelsRandom, SameNumbersHoweverCut) {
  const std::uint64_t key = 0x123456789abcdef0;
  for (const Table* table : tables())
    for (std::uint64_t first :
         {std::uint64_t(0), std::uint64_t(1), std::uint64_t(6), std::uint64_t(4) * 0xfffffff0u + 3})
      for (std::size_t n : sizes()) {
        Guarded<std::uint32_t> bits(n, 1);
        Guarded<float> uniform(n, 1);
        table->random_bits(bits.data(), n, key, first);
        table->random_uniform(uniform.data(), n, key, first);
        for (std::size_t i = 0; i < n; ++i) {
          const std::uint64_t counter = (first + i) / 4;
          std::uint32_t c[4] = {std::uint32_t(counter), std::uint32_t(counter >> 32), 0, 0};
          philox(c, std::uint32_t(key), std::uint32_t(key >> 32));
          const std::uint32_t want = c[(first + i) % 4];
          ASSERT_EQ(bits[i], want) << where(table, "random_bits", n, i);
          ASSERT_EQ(uniform[i], float(want >> 8) / 16777216) << where(table, "random_uniform", n, i);
        }
      }
}

TEST(KernelsRandom, Dropout) {
  for (const Table* table : tables())
    for (std::size_t n : sizes())
      for (float p : {0.0f, 0.1f, 0.75f})
        for (bool accumulate : {false, true}) {
          Guarded<float> x(n, 1), y(n, 1), uniform(n);
          fill(x, -1, 1, 1);
          for (float& v : y) v = 0.5f;
          table->random_uniform(uniform.data(), n, 9, 5);
          table->dropout(x.data(), y.data(), n, p, 9, 5, accumulate);
          for (std::size_t i = 0; i < n; ++i) {
            const float kept = uniform[i] >= p ? x[i] * (1 / (1 - p)) : 0;
            ASSERT_EQ(y[i], accumulate ? 0.5f + kept : kept) << where(table, "dropout", n, i);
          }
        }
  for (const Table* table : tables()) {  // the share that stays: 0.7, within four deviations of a binomial
    const std::vector<float> x(100000, 1);
    std::vector<float> y(x.size());
    table->dropout(x.data(), y.data(), x.size(), 0.3f, 1, 0, false);
    double kept = 0;
    for (float v : y) kept += v != 0;
    EXPECT_NEAR(kept / double(x.size()), 0.7, 4 * std::sqrt(0.21 / double(x.size()))) << table->isa;
  }
}

double prepared(double g, double p, double scale, double limit, double l2, double l1) {
  const double limited = std::fmin(std::fmax(g * scale, -limit), limit);
  return limited + l2 * p + l1 * (p > 0 ? 1 : p < 0 ? -1 : 0);
}

TEST(KernelsOptim, AdamAgainstPlainLoop) {
  const AdamStep steps[] = {
      {1e-3f, 0.9f, 0.999f, 1e-8f, 0.1f, 0.001f, 0, 0, 0, 1, k_inf},          // Adam's first step
      {1e-2f, 0.9f, 0.99f, 1e-6f, 0.7f, 0.2f, 0.1f, 0, 0, 0.5f, k_inf},       // AdamW, gradients halved
      {1e-2f, 0.8f, 0.95f, 1e-8f, 0.9f, 0.5f, 0.01f, 0.1f, 0.05f, 1, 0.25f},  // both penalties, clipped
  };
  for (const Table* table : tables())
    for (const AdamStep& s : steps)
      for (std::size_t n : sizes()) {
        Guarded<float> p(n, 1), g(n, 1), m(n), v(n, 1), p0(n), m0(n), v0(n);
        fill(p, -1, 1, 1), fill(p0, -1, 1, 1);
        fill(m, -1, 1, 2), fill(m0, -1, 1, 2);
        fill(v, 0, 1, 3), fill(v0, 0, 1, 3);
        fill(g, -1, 1, 4);
        training(*table).adam(p.data(), g.data(), m.data(), v.data(), n, s);
        for (std::size_t i = 0; i < n; ++i) {
          const double gradient = prepared(g[i], p0[i], s.grad_scale, s.grad_limit, s.l2, s.l1);
          const double m_new = s.beta1 * double(m0[i]) + (1 - double(s.beta1)) * gradient;
          const double v_new = s.beta2 * double(v0[i]) + (1 - double(s.beta2)) * gradient * gradient;
          const double update = s.lr * (m_new / s.correction1) / (std::sqrt(v_new / s.correction2) + s.eps);
          const double want = p0[i] * (1 - double(s.lr) * s.weight_decay) - update;
          ASSERT_NEAR(m[i], m_new, k_state) << where(table, "adam m", n, i);
          ASSERT_NEAR(v[i], v_new, k_state) << where(table, "adam v", n, i);
          ASSERT_NEAR(p[i], want, k_state * (1 + std::fabs(update / (m_new + 1e-9)))) << where(table, "adam p", n, i);
        }
      }
}

TEST(KernelsOptim, SgdAgainstPlainLoop) {
  const SgdStep steps[] = {{0.1f, 0, 0, false, false, 0, 0, 1, k_inf},
                           {0.1f, 0.9f, 0, false, true, 0, 0, 1, k_inf},
                           {0.1f, 0.9f, 0.1f, false, false, 0.01f, 0, 0.5f, k_inf},
                           {0.1f, 0.9f, 0, true, false, 0, 0.02f, 1, 0.3f}};
  for (const Table* table : tables())
    for (const SgdStep& s : steps)
      for (std::size_t n : sizes()) {
        Guarded<float> p(n, 1), g(n, 1), b(n), p0(n), b0(n);
        fill(p, -1, 1, 1), fill(p0, -1, 1, 1);
        fill(b, -1, 1, 2), fill(b0, -1, 1, 2);
        fill(g, -1, 1, 4);
        training(*table).sgd(p.data(), g.data(), s.momentum == 0 ? nullptr : b.data(), n, s);
        for (std::size_t i = 0; i < n; ++i) {
          const double gradient = prepared(g[i], p0[i], s.grad_scale, s.grad_limit, s.l2, s.l1);
          const double b_new = s.first ? gradient : s.momentum * double(b0[i]) + (1 - double(s.dampening)) * gradient;
          const double direction = s.momentum == 0 ? gradient : s.nesterov ? gradient + s.momentum * b_new : b_new;
          if (s.momentum != 0) ASSERT_NEAR(b[i], b_new, k_state) << where(table, "sgd momentum", n, i);
          ASSERT_NEAR(p[i], p0[i] - s.lr * direction, k_state) << where(table, "sgd p", n, i);
        }
      }
}

TEST(KernelsOptim, NaNGradientsShow) {
  for (const Table* table : tables()) {
    float p = 1, m = 0, v = 0;
    AdamStep s{1e-3f, 0.9f, 0.999f, 1e-8f, 0.1f, 0.001f, 0, 0, 0, 1, 0.5f};
    training(*table).adam(&p, &k_nan, &m, &v, 1, s);
    EXPECT_TRUE(std::isnan(p)) << table->isa;
  }
}

// Cells: every table against the scalar definition, at odd widths, with and without a state before.
TEST(KernelsCell, LstmAndGruStepsAndTheirSlopes) {
  const std::size_t rows = 3;
  const Table& definition = *table("scalar");
  for (const Table* each : tables())
    for (std::size_t n : sizes())
      for (bool started : {false, true}) {
        Guarded<float> h0(rows * n, 1), c0(rows * n), dh(rows * n, 1), dc(rows * n);
        fill(h0, -1, 1, 1);
        fill(c0, -2, 2, 2);
        const auto run = [&](const Table& t, bool lstm) {
          std::vector<float> all;
          const std::size_t width = rows * n * (lstm ? 4 : 3);
          Guarded<float> x(width, 1), s(width), h(rows * n, 1), c(rows * n);
          fill(x, -4, 4, 3);
          fill(s, -4, 4, 4);
          fill(dh, -1, 1, 5);
          fill(dc, -1, 1, 6);
          const auto keep = [&](Guarded<float>& values, std::size_t count) {
            all.insert(all.end(), values.data(), values.data() + count);
          };
          const float *before_h = started ? h0.data() : nullptr, *before_c = started ? c0.data() : nullptr;
          if (lstm) {
            t.lstm_cell(x.data(), before_c, c.data(), h.data(), rows, n);
            keep(h, rows * n);
            keep(c, rows * n);
            training(t).lstm_cell_bwd(x.data(), before_c, c.data(), dh.data(), dc.data(), rows, n);
            keep(dc, rows * n);
          } else {
            t.gru_cell(x.data(), s.data(), before_h, h.data(), rows, n);
            keep(h, rows * n);
            training(t).gru_cell_bwd(x.data(), s.data(), before_h, dh.data(), rows, n);
            keep(s, width);
            keep(dh, rows * n);
          }
          keep(x, width);
          return all;
        };
        for (bool lstm : {true, false}) {
          const auto got = run(*each, lstm), want = run(definition, lstm);
          for (std::size_t i = 0; i < want.size(); ++i)
            ASSERT_NEAR(got[i], want[i], k_state) << where(each, lstm ? "lstm_cell" : "gru_cell", n, i);
        }
      }
}

TEST(KernelsDispatch, NamesAndLimits) {
  EXPECT_EQ(table("mmx"), nullptr);
  ASSERT_NE(table("scalar"), nullptr);
  EXPECT_STREQ(table("scalar")->isa, "scalar");
  const auto all = tables();
  const char* limit = std::getenv("QORUS_ISA");
  if (!limit) EXPECT_STREQ(active().isa, all.back()->isa);
  if (limit && table(limit)) EXPECT_STREQ(active().isa, limit);
  for (const Table* each : all) {  // no entry is missing
    const auto* entries = reinterpret_cast<void* const*>(&each->unary);
    const std::size_t count = (sizeof(Table) - offsetof(Table, unary)) / sizeof(void*);
    for (std::size_t i = 0; i < count; ++i) EXPECT_NE(entries[i], nullptr) << each->isa << " entry " << i;
  }
}

}  // namespace
