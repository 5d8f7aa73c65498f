// Every one-argument function, forward and backward, of every table of this CPU.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <numbers>
#include <vector>

#include "tests/kernels_common.h"

namespace {
using namespace qorus_test;
using qorus::kernels::Table;
using qorus::kernels::Unary;

constexpr double k_pi = std::numbers::pi;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
double tanh_gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / k_pi) * (x + 0.044715 * x * x * x))); }
double sign(double x) { return x > 0 ? 1 : x < 0 ? -1 : 0; }

struct Case {
  Unary op;
  const char* name;
  std::function<double(double)> f, slope;
  double ulp;                // allowed for f
  float low = -6, high = 6;  // where it is tried
  float a = 0;
};

double no_slope(double) { return 0; }
double numeric_slope(const std::function<double(double)>& f, double x) { return (f(x + 1e-6) - f(x - 1e-6)) / 2e-6; }

const std::vector<Case>& cases() {
  using std::exp;
  const auto one = [](double) { return 1.0; };
  const auto minus_one = [](double) { return -1.0; };
  static const std::vector<Case> all = {
      {Unary::neg, "neg", [](double x) { return -x; }, minus_one, k_rounded},
      {Unary::abs, "abs", [](double x) { return std::fabs(x); }, sign, k_rounded},
      {Unary::sign, "sign", sign, no_slope, k_rounded},
      {Unary::sqrt, "sqrt", [](double x) { return std::sqrt(x); }, [](double x) { return 0.5 / std::sqrt(x); },
       k_rounded, 0.1f, 9},
      {Unary::square, "square", [](double x) { return x * x; }, [](double x) { return 2 * x; }, k_rounded},
      {Unary::reciprocal, "reciprocal", [](double x) { return 1 / x; }, [](double x) { return -1 / (x * x); },
       k_rounded, 0.2f, 9},
      {Unary::exp, "exp", [](double x) { return exp(x); }, [](double x) { return exp(x); }, k_exp_ulp},
      {Unary::log, "log", [](double x) { return std::log(x); }, [](double x) { return 1 / x; }, k_log_ulp, 0.01f, 9},
      {Unary::sin, "sin", [](double x) { return std::sin(x); }, [](double x) { return std::cos(x); }, k_by_f64_ulp},
      {Unary::cos, "cos", [](double x) { return std::cos(x); }, [](double x) { return -std::sin(x); }, k_by_f64_ulp},
      {Unary::erf, "erf", [](double x) { return std::erf(x); },
       [](double x) { return 2 / std::sqrt(k_pi) * exp(-x * x); }, k_erf_ulp},
      {Unary::floor, "floor", [](double x) { return std::floor(x); }, no_slope, k_rounded},
      {Unary::ceil, "ceil", [](double x) { return std::ceil(x); }, no_slope, k_rounded},
      {Unary::round, "round", [](double x) { return std::nearbyint(x); }, no_slope, k_rounded},
      {Unary::relu, "relu", [](double x) { return x < 0 ? 0 : x; }, [](double x) { return double(x > 0); }, k_rounded},
      {Unary::leaky_relu, "leaky_relu", [](double x) { return x > 0 ? x : x * 0.125; },
       [](double x) { return x > 0 ? 1 : 0.125; }, k_rounded, -6, 6, 0.125f},
      {Unary::elu, "elu", [](double x) { return x > 0 ? x : 1.5 * std::expm1(x); },
       [](double x) { return x > 0 ? 1 : 1.5 * exp(x); }, k_elu_ulp, -6, 6, 1.5f},
      {Unary::gelu, "gelu", [](double x) { return x < -100 ? 0 : x * cdf(x); },
       [](double x) { return cdf(x) + x * exp(-x * x / 2) / std::sqrt(2 * k_pi); }, k_gelu_ulp},
      {Unary::gelu_tanh, "gelu_tanh", tanh_gelu, [](double x) { return numeric_slope(tanh_gelu, x); }, k_gelu_tanh_ulp,
       -2, 6},
      {Unary::silu, "silu", [](double x) { return x < -1e4 ? 0 : x * sigmoid(x); },
       [](double x) { return sigmoid(x) * (1 + x * sigmoid(-x)); }, k_silu_ulp},
      {Unary::sigmoid, "sigmoid", sigmoid, [](double x) { return sigmoid(x) * sigmoid(-x); }, k_sigmoid_ulp},
      {Unary::tanh, "tanh", [](double x) { return std::tanh(x); },
       [](double x) { return 1 / std::cosh(x) / std::cosh(x); }, k_tanh_ulp},
      {Unary::softplus, "softplus", [](double x) { return (x > 0 ? x : 0) + std::log1p(exp(-std::fabs(x))); }, sigmoid,
       k_softplus_ulp},
      {Unary::pow, "pow", [](double x) { return std::pow(x, 2.5); }, [](double x) { return 2.5 * std::pow(x, 1.5); },
       k_by_f64_ulp, 0.01f, 9, 2.5f},
      {Unary::pow, "pow 2", [](double x) { return x * x; }, [](double x) { return 2 * x; }, k_by_f64_ulp, -6, 6, 2},
      {Unary::pow, "pow -3", [](double x) { return 1 / (x * x * x); }, [](double x) { return -3 * std::pow(x, -4.0); },
       k_by_f64_ulp, -6, 6, -3},
      {Unary::pow, "pow 0", one, no_slope, k_rounded, -6, 6, 0},
      {Unary::add, "add", [](double x) { return x + 0.75; }, one, k_rounded, -6, 6, 0.75f},
      {Unary::mul, "mul", [](double x) { return x * -0.75; }, [](double) { return -0.75; }, k_rounded, -6, 6, -0.75f},
      {Unary::rsub, "rsub", [](double x) { return 0.75 - x; }, minus_one, k_rounded, -6, 6, 0.75f},
      {Unary::rdiv, "rdiv", [](double x) { return 0.75 / x; }, [](double x) { return -0.75 / (x * x); }, k_rounded,
       0.2f, 9, 0.75f},
      {Unary::rpow, "rpow", [](double x) { return std::pow(1.25, x); },
       [](double x) { return std::pow(1.25, x) * std::log(1.25); }, k_by_f64_ulp, -6, 6, 1.25f},
      {Unary::max, "max", [](double x) { return x > 0.75 ? x : 0.75; }, [](double x) { return double(x > 0.75); },
       k_rounded, -6, 6, 0.75f},
      {Unary::min, "min", [](double x) { return x < 0.75 ? x : 0.75; }, [](double x) { return double(x < 0.75); },
       k_rounded, -6, 6, 0.75f},
  };
  return all;
}

TEST(KernelsUnary, EveryOperationHasACase) {
  for (int op = 0; op < int(Unary::count_); ++op) {
    bool found = false;
    for (const Case& c : cases()) found = found || int(c.op) == op;
    EXPECT_TRUE(found) << "operation " << op;
  }
}

TEST(KernelsUnary, ForwardAtEverySizeAndPlace) {
  for (const Table* table : tables())
    for (const Case& c : cases())
      for (std::size_t n : sizes())
        for (std::size_t offset : {0, 1}) {
          Guarded<float> x(n, offset), y(n, offset);
          fill(x, c.low, c.high, unsigned(n));
          table->unary(c.op, x.data(), y.data(), n, c.a);
          for (std::size_t i = 0; i < n; ++i)
            ASSERT_LE(ulp_error(y[i], c.f(x[i])), c.ulp)
                << where(table, c.name, n, i) << ", x " << x[i] << ", got " << y[i];
          table->unary(c.op, x.data(), x.data(), n, c.a);  // in place
          ASSERT_TRUE(same_bits(x.data(), y.data(), n * sizeof(float))) << where(table, c.name, n, 0) << ", in place";
        }
}

// An element's result is the same bits wherever it stands.
TEST(KernelsUnary, ResultDoesNotDependOnThePlace) {
  for (const Table* table : tables())
    for (const Case& c : cases())
      for (float v : {0.3f, 1.7f, 3.9f}) {
        Guarded<float> x(37, 1), y(37, 1);
        for (float& e : x) e = v;
        table->unary(c.op, x.data(), y.data(), 37, c.a);
        for (std::size_t i = 1; i < 37; ++i) ASSERT_EQ(y[i], y[0]) << where(table, c.name, 37, i);
      }
}

// (The step at a kink is not tried: no sample falls on one.)
TEST(KernelsUnary, SlopesAreThoseOfTheFunctions) {
  for (const Case& c : cases())
    for (int i = 0; i < 200; ++i) {
      const double x = c.low + (c.high - c.low) * (i + 0.37) / 200;
      const double numeric = numeric_slope(c.f, x);
      ASSERT_NEAR(c.slope(x), numeric, k_central_difference * (1 + std::fabs(numeric))) << c.name << " at " << x;
    }
}

TEST(KernelsUnary, BackwardAtEverySizeAndPlace) {
  for (const Table* table : tables())
    for (const Case& c : cases())
      for (std::size_t n : sizes())
        for (bool accumulate : {false, true}) {
          const std::size_t offset = accumulate ? 1 : 0;
          Guarded<float> x(n, offset), y(n, offset), dy(n, offset), dx(n, offset), before(n, offset);
          fill(x, c.low, c.high, unsigned(n));
          fill(dy, -2, 2, unsigned(n) + 1);
          fill(dx, -2, 2, unsigned(n) + 2);
          fill(before, -2, 2, unsigned(n) + 2);
          for (std::size_t i = 0; i < n; ++i) y[i] = float(c.f(x[i]));
          training(*table).unary_bwd(c.op, x.data(), y.data(), dy.data(), dx.data(), n, c.a, accumulate);
          for (std::size_t i = 0; i < n; ++i) {
            const double step = dy[i] * c.slope(x[i]), want = accumulate ? before[i] + step : step;
            const double scale = std::max({std::fabs(step), std::fabs(double(dy[i])), std::fabs(want)});
            ASSERT_NEAR(dx[i], want, k_slope * scale) << where(table, c.name, n, i) << ", x " << x[i];
          }
          if (accumulate) continue;
          training(*table).unary_bwd(c.op, x.data(), y.data(), dy.data(), dy.data(), n, c.a, false);  // in place of dy
          ASSERT_TRUE(same_bits(dx.data(), dy.data(), n * sizeof(float))) << where(table, c.name, n, 0);
        }
}

// What an operation does not read may be null.
TEST(KernelsUnary, BackwardReadsOnlyWhatItSays) {
  for (const Table* table : tables()) {
    float dy[3] = {1, 2, 3}, dx[3], some[3] = {0.5f, 1, 2};
    for (Unary op : {Unary::exp, Unary::sqrt, Unary::reciprocal, Unary::sigmoid, Unary::tanh})
      training(*table).unary_bwd(op, nullptr, some, dy, dx, 3, 0, false);
    for (Unary op :
         {Unary::neg, Unary::add, Unary::mul, Unary::rsub, Unary::sign, Unary::floor, Unary::ceil, Unary::round})
      training(*table).unary_bwd(op, nullptr, nullptr, dy, dx, 3, 2, false);
    for (float v : dx) EXPECT_EQ(v, 0);
    for (Unary op : {Unary::relu, Unary::gelu, Unary::log, Unary::pow})
      training(*table).unary_bwd(op, some, nullptr, dy, dx, 3, 2, false);
  }
}

struct Kink {
  Unary op;
  float x, a, slope;
};
TEST(KernelsUnary, SlopesAtKinks) {
  const Kink kinks[] = {{Unary::relu, 0, 0, 0},         {Unary::relu, -0.0f, 0, 0},
                        {Unary::abs, 0, 0, 0},          {Unary::leaky_relu, 0, 0.25f, 0.25f},
                        {Unary::max, 2, 2, 0.5f},       {Unary::min, 2, 2, 0.5f},
                        {Unary::elu, 0, 1.5f, 1.5f},    {Unary::pow, 0, 2, 0},
                        {Unary::pow, 0, 1, 1},          {Unary::gelu, -k_inf, 0, 0},
                        {Unary::gelu, k_inf, 0, 1},     {Unary::silu, -k_inf, 0, 0},
                        {Unary::silu, k_inf, 0, 1},     {Unary::gelu_tanh, -1e30f, 0, 0},
                        {Unary::gelu_tanh, 1e30f, 0, 1}};
  for (const Table* table : tables())
    for (const Kink& k : kinks) {
      const float dy = 3;
      float dx = 0;
      training(*table).unary_bwd(k.op, &k.x, nullptr, &dy, &dx, 1, k.a, false);
      EXPECT_EQ(dx, 3 * k.slope) << table->isa << " operation " << int(k.op) << " at " << k.x;
    }
}

struct Special {
  Unary op;
  float x, a, y;
};
TEST(KernelsUnary, SpecialValues) {
  const float tiny = from_bits(1);
  const Special specials[] = {{Unary::exp, 0, 0, 1},
                              {Unary::exp, -0.0f, 0, 1},
                              {Unary::exp, k_inf, 0, k_inf},
                              {Unary::exp, -k_inf, 0, 0},
                              {Unary::exp, 88.8f, 0, k_inf},
                              {Unary::exp, -104, 0, 0},
                              {Unary::exp, k_nan, 0, k_nan},
                              {Unary::exp, tiny, 0, 1},
                              {Unary::log, 0, 0, -k_inf},
                              {Unary::log, -0.0f, 0, -k_inf},
                              {Unary::log, 1, 0, 0},
                              {Unary::log, -1, 0, k_nan},
                              {Unary::log, k_inf, 0, k_inf},
                              {Unary::log, -k_inf, 0, k_nan},
                              {Unary::log, k_nan, 0, k_nan},
                              {Unary::tanh, 0, 0, 0},
                              {Unary::tanh, -0.0f, 0, -0.0f},
                              {Unary::tanh, k_inf, 0, 1},
                              {Unary::tanh, -k_inf, 0, -1},
                              {Unary::tanh, tiny, 0, tiny},
                              {Unary::tanh, k_nan, 0, k_nan},
                              {Unary::sigmoid, 0, 0, 0.5f},
                              {Unary::sigmoid, k_inf, 0, 1},
                              {Unary::sigmoid, -k_inf, 0, 0},
                              {Unary::sigmoid, k_nan, 0, k_nan},
                              {Unary::erf, 0, 0, 0},
                              {Unary::erf, -0.0f, 0, -0.0f},
                              {Unary::erf, k_inf, 0, 1},
                              {Unary::erf, -k_inf, 0, -1},
                              {Unary::erf, k_nan, 0, k_nan},
                              {Unary::gelu, 0, 0, 0},
                              {Unary::gelu, k_inf, 0, k_inf},
                              {Unary::gelu, -k_inf, 0, 0},
                              {Unary::gelu, k_nan, 0, k_nan},
                              {Unary::gelu_tanh, k_inf, 0, k_inf},
                              {Unary::gelu_tanh, -k_inf, 0, 0},
                              {Unary::gelu_tanh, k_nan, 0, k_nan},
                              {Unary::silu, k_inf, 0, k_inf},
                              {Unary::silu, -k_inf, 0, 0},
                              {Unary::silu, k_nan, 0, k_nan},
                              {Unary::silu, 0, 0, 0},
                              {Unary::softplus, k_inf, 0, k_inf},
                              {Unary::softplus, -k_inf, 0, 0},
                              {Unary::softplus, k_nan, 0, k_nan},
                              {Unary::relu, k_nan, 0, k_nan},
                              {Unary::relu, k_inf, 0, k_inf},
                              {Unary::relu, -k_inf, 0, 0},
                              {Unary::elu, -k_inf, 2, -2},
                              {Unary::elu, k_inf, 2, k_inf},
                              {Unary::elu, k_nan, 2, k_nan},
                              {Unary::elu, -0.0f, 2, -0.0f},
                              {Unary::sqrt, -1, 0, k_nan},
                              {Unary::sqrt, -0.0f, 0, -0.0f},
                              {Unary::sin, k_inf, 0, k_nan},
                              {Unary::cos, -k_inf, 0, k_nan},
                              {Unary::sin, -0.0f, 0, -0.0f},
                              {Unary::sin, k_nan, 0, k_nan},
                              {Unary::max, k_nan, 1, k_nan},
                              {Unary::min, k_nan, 1, k_nan},
                              {Unary::max, 1, k_nan, k_nan},
                              {Unary::min, 1, k_nan, k_nan},
                              {Unary::round, 2.5f, 0, 2},
                              {Unary::round, 3.5f, 0, 4},
                              {Unary::round, -0.5f, 0, -0.0f},
                              {Unary::floor, -0.5f, 0, -1},
                              {Unary::ceil, -0.5f, 0, -0.0f},
                              {Unary::sign, k_nan, 0, 0},
                              {Unary::sign, -0.0f, 0, 0},
                              {Unary::abs, -0.0f, 0, 0},
                              {Unary::neg, 0, 0, -0.0f},
                              {Unary::reciprocal, -0.0f, 0, -k_inf}};
  for (const Table* table : tables())
    for (const Special& s : specials) {
      float y = 7;
      table->unary(s.op, &s.x, &y, 1, s.a);
      if (std::isnan(s.y))
        EXPECT_TRUE(std::isnan(y)) << table->isa << " operation " << int(s.op) << " of " << s.x << " gave " << y;
      else
        EXPECT_EQ(y, s.y) << table->isa << " operation " << int(s.op) << " of " << s.x;
      if (s.y == 0 && s.x == 0)
        EXPECT_EQ(std::signbit(y), std::signbit(s.y)) << table->isa << " operation " << int(s.op);
    }
}

// pow is that of C, for every pair of remarkable numbers.
TEST(KernelsUnary, PowIsThatOfC) {
  const float numbers[] = {0.0f,         -0.0f, 1,      -1,    2,      -2,     0.5f,        -0.5f,       3,
                           -3,           2.5f,  -2.5f,  1e30f, -1e30f, 1e-30f, 16777216.0f, 16777215.0f, -16777215.0f,
                           from_bits(1), k_inf, -k_inf, k_nan};
  for (const Table* table : tables())
    for (float x : numbers)
      for (float a : numbers) {
        const double want = std::pow(double(x), double(a));
        float y = 7, z = 7;
        table->unary(Unary::pow, &x, &y, 1, a);
        table->unary(Unary::rpow, &a, &z, 1, x);
        EXPECT_LE(ulp_error(y, want), k_by_f64_ulp) << table->isa << " pow(" << x << ", " << a << ") gave " << y;
        EXPECT_LE(ulp_error(z, want), k_by_f64_ulp) << table->isa << " rpow(" << x << ", " << a << ") gave " << z;
        if (want == 0) EXPECT_EQ(std::signbit(y), std::signbit(want)) << table->isa << " pow(" << x << ", " << a << ")";
      }
}

struct Sweep {
  const char* name;
  Unary op;
  double ulp;
  float low = -k_inf, high = k_inf;
};

// The worst error over all exponents and both signs, some 400,000 numbers each, as a table.
TEST(KernelsUnary, WorstErrorOverAllExponents) {
  const Sweep sweeps[] = {{"exp", Unary::exp, k_exp_ulp},
                          {"log", Unary::log, k_log_ulp},
                          {"tanh", Unary::tanh, k_tanh_ulp},
                          {"sigmoid", Unary::sigmoid, k_sigmoid_ulp},
                          {"erf", Unary::erf, k_erf_ulp},
                          {"gelu", Unary::gelu, k_gelu_ulp},
                          {"gelu_tanh", Unary::gelu_tanh, k_gelu_tanh_ulp, -2},
                          {"silu", Unary::silu, k_silu_ulp, -87},  // below, exp(x) is denormal and has fewer digits
                          {"softplus", Unary::softplus, k_softplus_ulp},
                          {"elu", Unary::elu, k_elu_ulp},
                          {"sin", Unary::sin, k_by_f64_ulp},
                          {"cos", Unary::cos, k_by_f64_ulp}};
  std::printf("%-10s %8s", "function", "allowed");
  for (const Table* table : tables()) std::printf("  %-18s", table->isa);
  std::printf("worst error in ULP, and where\n");
  for (const Sweep& s : sweeps) {
    const Case* found = nullptr;
    for (const Case& c : cases())
      if (c.op == s.op) found = &c;
    std::vector<float> x;
    for (std::uint64_t bits = 0; bits <= 0xffffffffu; bits += 10007) {
      const float v = from_bits(std::uint32_t(bits));
      if (v >= s.low && v <= s.high) x.push_back(v);
    }
    std::vector<double> want;
    want.reserve(x.size());
    for (float v : x) want.push_back(found->f(v));
    std::vector<float> y(x.size());
    std::printf("%-10s %8.2f", s.name, s.ulp);
    for (const Table* table : tables()) {
      table->unary(s.op, x.data(), y.data(), x.size(), found->a);
      double worst = 0;
      float at = 0;
      for (std::size_t i = 0; i < x.size(); ++i)
        if (const double error = ulp_error(y[i], want[i]); error > worst) worst = error, at = x[i];
      std::printf("  %5.3f %-12.6g", worst, double(at));
      EXPECT_LE(worst, s.ulp) << table->isa << " " << s.name << " at " << at;
    }
    std::printf("\n");
  }
}

}  // namespace
