// The matrix product of every instruction set this CPU has: against a double-precision plain loop, in bounds, and bit
// for bit the same however it is cut, packed or laid out.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/parts.h"
#include "tests/tolerances.h"

namespace {

using namespace qorus::kernels;

struct Isa {
  const char* name;
  const GemmPart* part;
};
std::vector<Isa> isas() {
  std::vector<Isa> all = {{"scalar", &gemm_scalar}};
  if (cpu_features().avx2) all.push_back({"avx2", &gemm_avx2});
  if (cpu_features().avx512) all.push_back({"avx512", &gemm_avx512});
  return all;
}

enum class Residual { none, other, c };
struct Case {
  std::size_t m, n, k;
  bool a_transposed = false, b_transposed = false, packed = false;
  std::size_t step = 1;  // of the inner index of a and b: 1 is contiguous
  std::size_t gap = 0;   // floats between the rows of every array
  bool accumulate = false, bias = false, pre = false;
  Act act = Act::none;
  Residual residual = Residual::none;
  bool vector = false;
};
std::string describe(const Isa& isa, const Case& x) {
  const auto flag = [](bool on, const char* text) { return std::string(on ? text : ""); };
  return std::string(isa.name) + " " + std::to_string(x.m) + "x" + std::to_string(x.n) + "x" + std::to_string(x.k) +
         " " + (x.a_transposed ? "T" : "N") + (x.b_transposed ? "T" : "N") + flag(x.packed, " packed") + " step " +
         std::to_string(x.step) + " gap " + std::to_string(x.gap) + flag(x.accumulate, " accumulate") +
         flag(x.bias, " bias") + flag(x.pre, " pre") + flag(x.vector, " vector") + " act " +
         std::to_string(int(x.act)) + " residual " + std::to_string(int(x.residual));
}

constexpr float k_guard = -12345.0f;

// A matrix one float past an aligned address, with nothing readable outside [first, last element] as far as a sanitizer
// can tell, and its gaps filled with guards.
struct Matrix {
  std::size_t rows, cols;
  std::ptrdiff_t row, col;
  std::vector<float> all;
  Matrix(std::size_t r, std::size_t c, bool transposed, std::size_t step, std::size_t gap, std::uint32_t seed)
      : rows(r), cols(c), row(1), col(1) {
    const std::size_t inner = transposed ? r : c, outer = transposed ? c : r;
    const std::size_t lead = inner * step + gap;
    (transposed ? row : col) = std::ptrdiff_t(step);
    (transposed ? col : row) = std::ptrdiff_t(lead);
    all.assign(inner == 0 || outer == 0 ? 1 : 2 + (outer - 1) * lead + (inner - 1) * step, k_guard);
    std::uint32_t state = seed * 2654435761u + 1;
    for (std::size_t i = 0; i < r; ++i)
      for (std::size_t j = 0; j < c; ++j) {
        state = state * 1664525u + 1013904223u;
        at(i, j) = float(state >> 8) / 8388608.0f - 1.0f;
      }
  }
  float* data() { return all.data() + 1; }
  float& at(std::size_t i, std::size_t j) { return all[1 + i * std::size_t(row) + j * std::size_t(col)]; }
};

double activate(Act act, double x) {
  switch (act) {
    case Act::relu: return x < 0 ? 0 : x;
    case Act::gelu: return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Act::gelu_tanh: return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Act::silu: return x / (1 + std::exp(-x));
    case Act::sigmoid: return 1 / (1 + std::exp(-x));
    case Act::tanh: return std::tanh(x);
    default: return x;
  }
}

// Runs the plan with poisoned scratch, every phase's tasks from the last to the first or the other way round.
void run(const GemmPart& part, const Gemm& g, bool backwards = false) {
  const GemmPlan plan = part.plan(g);
  constexpr std::size_t guard = 64;
  const auto scratch = [&](std::size_t bytes, std::vector<char>& holder) {
    holder.assign(bytes + guard + 64, char(0xff));
    void* p = holder.data();
    std::size_t room = holder.size();
    return std::align(64, bytes, p, room);
  };
  std::vector<char> shared_bytes, worker_bytes;
  auto* shared = static_cast<char*>(scratch(plan.shared_bytes, shared_bytes));
  auto* worker = static_cast<char*>(scratch(plan.worker_bytes, worker_bytes));
  for (std::uint32_t phase = 0; phase < plan.phases; ++phase)
    for (std::uint32_t t = 0; t < plan.tasks[phase]; ++t) {
      std::memset(worker, 0xff, plan.worker_bytes);
      part.task(g, plan, phase, backwards ? plan.tasks[phase] - 1 - t : t, plan.shared_bytes ? shared : nullptr,
                plan.worker_bytes ? worker : nullptr);
    }
  for (std::size_t i = 0; i < 32; ++i) {
    ASSERT_EQ(shared[plan.shared_bytes + i], char(0xff)) << "written past the shared scratch";
    ASSERT_EQ(worker[plan.worker_bytes + i], char(0xff)) << "written past the worker's scratch";
  }
}

struct Product {  // the arrays of one case
  Matrix a, b, c, pre, residual, bias;
  std::vector<float> packed;
  Gemm g;
  Product(const GemmPart& part, const Case& x)
      : a(x.m, x.k, x.a_transposed, x.step, x.gap, 1),
        b(x.k, x.n, x.b_transposed, x.step, x.gap, 2),
        c(x.m, x.n, false, 1, x.gap, 3),
        pre(x.m, x.n, false, 1, x.gap, 4),
        residual(x.m, x.n, false, 1, x.gap, 5),
        bias(1, x.n, false, 1, 0, 6) {
    g = {.m = x.m,
         .n = x.n,
         .k = x.k,
         .a = a.data(),
         .a_row = a.row,
         .a_col = a.col,
         .b = b.data(),
         .b_row = b.row,
         .b_col = b.col,
         .c = c.data(),
         .c_row = c.row,
         .accumulate = x.accumulate,
         .vector = x.vector,
         .bias = x.bias ? bias.data() : nullptr,
         .act = x.act,
         .pre = x.pre ? pre.data() : nullptr,
         .pre_row = pre.row,
         .residual_row = residual.row};
    if (x.residual == Residual::other) g.residual = residual.data();
    if (x.residual == Residual::c) g.residual = c.data();
    if (!x.packed) return;
    packed.assign(part.packed_size(x.n, x.k) + 1, k_guard);
    part.pack(g, packed.data());
    EXPECT_EQ(packed.back(), k_guard) << "written past the packed weights";
    packed.resize(packed.size() - 1);
    packed.shrink_to_fit();
    if (packed.empty()) packed.resize(1);
    g.b_packed = packed.data();
    g.b = nullptr;
  }
};

// The whole contract of Gemm for one case.
void check(const Isa& isa, const Case& x) {
  SCOPED_TRACE(describe(isa, x));
  Product p(*isa.part, x);
  Product before = p;
  run(*isa.part, p.g);
  for (std::size_t i = 0; i < x.m; ++i)
    for (std::size_t j = 0; j < x.n; ++j) {
      double sum = 0, size = 0;
      for (std::size_t k = 0; k < x.k; ++k) {
        const double term = double(p.a.at(i, k)) * double(p.b.at(k, j));
        sum += term;
        size += std::abs(term);
      }
      const double old = before.c.at(i, j);
      if (x.accumulate) sum += old, size += std::abs(old);
      if (x.bias) sum += p.bias.at(0, j), size += std::abs(p.bias.at(0, j));
      const double error = qorus_test::gemm_error(x.k, size);
      if (x.pre) {
        ASSERT_NEAR(p.pre.at(i, j), sum, error) << "pre " << i << "," << j;
      }
      double y = activate(x.act, sum);
      if (x.residual == Residual::other) y += p.residual.at(i, j);
      if (x.residual == Residual::c) y += old;
      ASSERT_NEAR(p.c.at(i, j), y, qorus_test::gemm_act_error(error, y)) << i << "," << j;
      before.c.at(i, j) = p.c.at(i, j);
      before.pre.at(i, j) = p.pre.at(i, j);
    }
  ASSERT_EQ(before.c.all, p.c.all) << "written between or past the rows of c";
  if (x.pre) {
    ASSERT_EQ(before.pre.all, p.pre.all) << "written between or past the rows of pre";
  }
}

void check_forms(const Isa& isa, Case x) {
  for (int form = 0; form < 6; ++form) {
    x.a_transposed = form & 1, x.b_transposed = form & 2, x.packed = form & 4;
    check(isa, x);
    if (testing::Test::HasFatalFailure()) return;
  }
}

std::vector<float> bits_of(const Isa& isa, const Case& x, bool backwards = false) {
  Product p(*isa.part, x);
  run(*isa.part, p.g, backwards);
  std::vector<float> c;
  for (std::size_t i = 0; i < x.m; ++i)
    for (std::size_t j = 0; j < x.n; ++j) c.push_back(p.c.at(i, j));
  return c;
}

using Sizes = std::vector<std::tuple<std::size_t, std::size_t, std::size_t>>;  // m, n, k

class GemmTest : public testing::TestWithParam<Isa> {};

TEST_P(GemmTest, SmallSizesInEveryForm) {
  for (std::size_t m : {0, 1, 2, 7, 15, 17, 35})
    for (std::size_t n : {0, 1, 3, 8, 16, 31, 33, 67})
      for (std::size_t k : {0, 1, 2, 7, 16, 33}) {
        check_forms(GetParam(), {.m = m, .n = n, .k = k});
        ASSERT_FALSE(HasFatalFailure());
      }
}

// Sizes around every edge of the blocking: rows of a tile (6, 14), columns (16, 32), depth (384, 512, 1024), tasks, stack
// scratch.
TEST_P(GemmTest, SizesAroundTheBlockingEdges) {
  for (const auto& [m, n, k] :
       Sizes{{1, 67, 385},   {1, 1031, 771},  {4, 97, 1029},   {5, 131, 2051},  {8, 259, 1027},  {9, 67, 1025},
             {13, 33, 383},  {14, 64, 384},   {15, 515, 385},  {29, 35, 769},   {31, 519, 131},  {57, 131, 127},
             {65, 67, 129},  {131, 259, 389}, {197, 37, 391},  {389, 35, 67},   {211, 643, 17},  {97, 1, 513},
             {16, 385, 192}, {24, 95, 1025},  {128, 39, 513},  {3, 2, 5000},    {16, 95, 1025},  {48, 67, 771},
             {32, 43, 1024}, {2, 530, 1029},  {14, 530, 1029}, {45, 530, 1029}, {31, 530, 1024}, {70, 130, 1024}}) {
    check_forms(GetParam(), {.m = m, .n = n, .k = k});
    ASSERT_FALSE(HasFatalFailure());
  }
}

TEST_P(GemmTest, RowsFurtherApartAndStridesInBothDirections) {
  for (std::size_t step : {1, 3})
    for (std::size_t gap : {0, 5})
      for (std::size_t m : {1, 6, 33, 150}) {
        check_forms(GetParam(), {.m = m, .n = 77, .k = 401, .step = step, .gap = gap});
        ASSERT_FALSE(HasFatalFailure());
      }
}

// A copy of A's rows as they are, made by the task: rows pages apart.
TEST_P(GemmTest, SmallProductsOfRowsPagesApart) { check_forms(GetParam(), {.m = 8, .n = 520, .k = 60, .gap = 964}); }

// A is a sliding window: contiguous both ways, and larger than the second-level cache.
TEST_P(GemmTest, WindowsOverOneVector) {
  const Case x{.m = 1030, .n = 520, .k = 777};
  Product p(*GetParam().part, x);
  for (std::size_t i = 0; i < x.m; ++i)
    for (std::size_t k = 0; k < x.k; ++k) p.a.at(i, k) = p.b.at((i + k) % x.k, (i + k) / x.k);
  run(*GetParam().part, p.g);
  Product windows(*GetParam().part, x);
  std::vector<float> all(x.m + x.k);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = p.b.at(i % x.k, i / x.k);
  windows.g.a = all.data();
  windows.g.a_row = windows.g.a_col = 1;
  run(*GetParam().part, windows.g);
  ASSERT_EQ(p.c.all, windows.c.all);
}

TEST_P(GemmTest, EverythingAfterTheSum) {
  for (int act = 0; act < int(Act::count_); ++act)
    for (int flags = 0; flags < 8; ++flags)
      for (Residual residual : {Residual::none, Residual::other, Residual::c})
        for (std::size_t k : {0, 19, 400}) {
          Case x{.m = 17, .n = 45, .k = k, .b_transposed = true, .packed = act % 2 == 1, .gap = 3};
          x.accumulate = flags & 1, x.bias = flags & 2, x.pre = flags & 4;
          x.act = Act(act), x.residual = residual;
          check(GetParam(), x);
          ASSERT_FALSE(HasFatalFailure());
        }
}

TEST_P(GemmTest, EverythingAfterTheSumInLargeProducts) {
  for (Residual residual : {Residual::none, Residual::other, Residual::c})
    for (std::size_t m : {1, 8, 200}) {
      Case x{.m = m, .n = 323, .k = 801, .b_transposed = true, .accumulate = true, .bias = true, .pre = true};
      x.act = Act::silu, x.residual = residual;
      check(GetParam(), x);
      x.accumulate = false, x.pre = false, x.act = Act::none, x.packed = true, x.n = 320;
      check(GetParam(), x);
      ASSERT_FALSE(HasFatalFailure());
    }
}

// A vector times a matrix, and a matrix times a vector: dot products, the same bits wherever a task begins.
TEST_P(GemmTest, Vectors) {
  for (const std::size_t count : {1, 3, 8, 13, 70})
    for (const std::size_t k : {0, 1, 15, 16, 17, 100, 3000}) {
      Case x{.m = 1, .n = count, .k = k, .gap = 3, .vector = true};
      check_forms(GetParam(), x);
      x.accumulate = x.bias = x.pre = true, x.act = Act::gelu, x.residual = Residual::c;
      check_forms(GetParam(), x);
      std::swap(x.m, x.n);
      check_forms(GetParam(), x);
    }
  const Case wide = {.m = 1, .n = 700, .k = 1000, .b_transposed = true, .vector = true};
  ASSERT_EQ(bits_of(GetParam(), wide), bits_of(GetParam(), wide, true));
}

// A sequence alone or in a batch: row i of c is the same bits for every m, in every form and however the tasks are
// ordered.
TEST_P(GemmTest, RowsDoNotDependOnTheNumberOfRows) {
  constexpr std::size_t most = 130;
  for (const auto& [n, k] : std::vector<std::pair<std::size_t, std::size_t>>{{67, 41}, {96, 800}, {129, 1100}})
    for (int form = 0; form < 6; ++form) {
      Case x{.m = most, .n = n, .k = k, .b_transposed = bool(form & 1), .packed = bool(form & 2), .bias = true};
      x.a_transposed = form & 4, x.act = Act::gelu;
      // Row i of A must hold the same numbers whatever m: fill from one large A.
      Product all(*GetParam().part, x);
      run(*GetParam().part, all.g);
      for (std::size_t m = 1; m <= most; m = m == 40 ? 65 : m == 65 ? most : m + 1) {
        Product p(*GetParam().part, x);
        p.g.m = m;
        run(*GetParam().part, p.g, true);
        for (std::size_t i = 0; i < m; ++i)
          ASSERT_EQ(std::memcmp(&p.c.at(i, 0), &all.c.at(i, 0), n * sizeof(float)), 0)
              << describe(GetParam(), x) << ": row " << i << " of " << m;
        if (m == most) break;
      }
    }
}

// An element is one chain of fused multiply-adds in the order of k: the layout and the packing of the operands, the
// order of the tasks and the width of the vectors cannot be seen.
TEST_P(GemmTest, BitsDependOnTheNumbersAlone) {
  if (std::string(GetParam().name) == "scalar") GTEST_SKIP() << "rounds products and sums one by one";
  const Isa other = isas()[1];
  for (const auto& [m, n, k] : Sizes{{3, 5, 777},
                                     {3, 67, 777},
                                     {3, 260, 777},
                                     {50, 5, 777},
                                     {50, 67, 777},
                                     {50, 260, 777},
                                     {250, 5, 777},
                                     {250, 67, 777},
                                     {250, 260, 777},
                                     {32, 530, 1029},
                                     {203, 510, 1029},
                                     {1030, 520, 777}}) {  // copies that the second-level cache cannot keep
    const Case plain{.m = m, .n = n, .k = k, .accumulate = true, .bias = true};
    const std::vector<float> expected = bits_of(GetParam(), plain);
    for (int form = 0; form < 6; ++form) {
      Case x = plain;
      x.a_transposed = form & 1, x.b_transposed = form & 2, x.packed = form & 4;
      ASSERT_EQ(bits_of(GetParam(), x, true), expected) << describe(GetParam(), x);
    }
    ASSERT_EQ(bits_of(other, plain), expected) << describe(other, plain);
  }
}

TEST_P(GemmTest, NotANumberStays) {
  const Isa& isa = GetParam();
  for (Act act : {Act::none, Act::relu}) {
    Case x{.m = 20, .n = 40, .k = 9, .act = act};
    Product p(*isa.part, x);
    p.a.at(4, 2) = NAN;
    p.b.at(3, 7) = INFINITY;
    run(*isa.part, p.g);
    for (std::size_t i = 0; i < x.m; ++i)
      for (std::size_t j = 0; j < x.n; ++j) ASSERT_EQ(std::isnan(p.c.at(i, j)), i == 4) << i << "," << j;
  }
}

TEST_P(GemmTest, PlansDependOnSizesAlone) {
  const Case x{.m = 300, .n = 400, .k = 500};
  const Product p(*GetParam().part, x), q(*GetParam().part, x);
  const GemmPlan one = GetParam().part->plan(p.g), two = GetParam().part->plan(q.g);
  EXPECT_EQ(one.phases, two.phases);
  EXPECT_EQ(one.worker_bytes, two.worker_bytes);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(one.detail[i], two.detail[i]);
  const Product tiny(*GetParam().part, Case{.m = 20, .n = 30, .k = 40, .a_transposed = true, .b_transposed = true});
  const GemmPlan small = GetParam().part->plan(tiny.g);
  EXPECT_EQ(small.phases, 1u);
  EXPECT_EQ(small.shared_bytes + small.worker_bytes, 0u);
}

INSTANTIATE_TEST_SUITE_P(Isas, GemmTest, testing::ValuesIn(isas()),
                         [](const testing::TestParamInfo<Isa>& x) { return std::string(x.param.name); });

}  // namespace
