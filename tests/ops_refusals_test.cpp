// What operations refuse beside operands (op_refusals.cpp has those): options that make no sense, sizes beyond all bounds, no room.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing.h"

import qorus.ops;
import qorus.test.ops;

using namespace qorus;
using namespace qorus_test;

namespace {

constexpr std::int64_t k_far = std::int64_t{1} << 31, k_huge = std::int64_t{1} << 62;

// So many elements that only a view can have them.
Result<Tensor> vast(Context& c, const Shape& shape) { return ops::broadcast_to(make(c, {}), shape); }
// Padding before and after each axis.
Pads pads(const PerAxis& before, const PerAxis& after) { return {before, after}; }
// An error of its own: what it says comes out.
Result<Tensor> broken() { return fail(Errc::diverged, "operand", "broken"); }

struct Entry {
  const char* what;
  Errc code;
  Result<Tensor> (*run)(Context& c);
  bool of_values = false;  // not seen while planning
};

void refuse(std::span<const Entry> all) {
  Workspace plan = planning_workspace(1);
  for (const Entry& e : all) {
    SCOPED_TRACE(e.what);
    auto frame = workspace(1).frame(), planned = plan.frame();
    EXPECT_FAILS(e.run(frame.context()), e.code);
    if (e.of_values) {
      EXPECT_OK(e.run(planned.context()));
    } else {
      EXPECT_FAILS(e.run(planned.context()), e.code);
    }
  }
}

using C = Context&;
using R = Result<Tensor>;

TEST(Refusals, Attention) {
  static constexpr auto with = [](C c, const ops::AttentionOptions& o, const Shape& q = {2, 4, 3, 2},
                                  const Shape& kv = {2, 2, 5, 2}) {
    return ops::attention(make(c, q), make(c, kv), make(c, kv), o);
  };
  static constexpr Entry all[] = {
      {"no head_dim", Errc::invalid_size, [](C c) -> R { return with(c, {}, {1, 1, 2, 0}, {1, 1, 2, 0}); }},
      {"no key heads", Errc::invalid_size, [](C c) -> R { return with(c, {}, {1, 2, 2, 3}, {1, 0, 2, 3}); }},
      {"no keys", Errc::invalid_size, [](C c) -> R { return with(c, {}, {1, 2, 2, 3}, {1, 1, 0, 3}); }},
      {"window below 0", Errc::invalid_argument, [](C c) -> R { return with(c, {.causal = true, .window = -1}); }},
      {"softcap below 0", Errc::invalid_argument, [](C c) -> R { return with(c, {.softcap = -1}); }},
      {"softcap no number", Errc::invalid_argument, [](C c) -> R { return with(c, {.softcap = NAN}); }},
      {"mask", Errc::diverged, [](C c) -> R { return with(c, {.mask = broken()}); }},
      {"slopes", Errc::diverged, [](C c) -> R { return with(c, {.slopes = broken()}); }},
      {"lengths", Errc::diverged, [](C c) -> R { return with(c, {.lengths = broken()}); }},
      {"a length below 0", Errc::invalid_argument, [](C c) -> R { return with(c, {.lengths = whole(c, {2}, -1)}); },
       true},
      {"a length of too many", Errc::invalid_argument, [](C c) -> R { return with(c, {.lengths = whole(c, {2}, 6)}); },
       true},
      {"rope of a vector", Errc::invalid_size,
       [](C c) -> R { return ops::rope(make(c, {4}), make(c, {1, 2}), make(c, {1, 2})); }},
      {"base of 0", Errc::invalid_argument,
       [](C c) -> R { return ops::rope_tables(c, 3, 2, 0).transform([](const auto& t) { return t.sine; }); }},
      {"fewer than no angles", Errc::invalid_argument,
       [](C c) -> R { return ops::rope_tables(c, 3, -1).transform([](const auto& t) { return t.sine; }); }},
      {"fewer than no positions", Errc::invalid_size,
       [](C c) -> R { return ops::rope_tables(c, -3, 1).transform([](const auto& t) { return t.sine; }); }},
      {"sinusoids", Errc::invalid_size, [](C c) -> R { return ops::sinusoids(c, -1, 2); }},
      {"slopes of no count", Errc::invalid_size, [](C c) -> R { return ops::alibi_slopes(c, -1); }},
      {"counting down", Errc::invalid_size, [](C c) -> R { return ops::counting(c, -1); }},
  };
  refuse(all);
}

TEST(Refusals, WindowsOfConvolutions) {
  static constexpr auto conv = [](C c, const ops::ConvOptions& o) {
    return ops::conv(make(c, {1, 2, 5, 5}), make(c, {4, 2, 3, 3}), o);
  };
  static constexpr auto back = [](C c, const ops::ConvTransposeOptions& o) {
    return ops::conv_transpose(make(c, {1, 4, 5, 5}), make(c, {4, 2, 3, 3}), o);
  };
  static constexpr Entry all[] = {
      {"matrices", Errc::invalid_size, [](C c) -> R { return ops::conv(make(c, {2, 3}), make(c, {4, 3})); }},
      {"six axes", Errc::invalid_size,
       [](C c) -> R { return ops::conv(make(c, {1, 1, 1, 1, 1, 1}), make(c, {1, 1, 1, 1, 1, 1})); }},
      {"no groups", Errc::invalid_size, [](C c) -> R { return conv(c, {.groups = 0}); }},
      {"three strides", Errc::invalid_argument, [](C c) -> R { return conv(c, {.stride = {1, 1, 1}}); }},
      {"three dilations", Errc::invalid_argument, [](C c) -> R { return conv(c, {.dilation = {1, 1, 1}}); }},
      {"three paddings before", Errc::invalid_argument,
       [](C c) -> R { return conv(c, {.padding = pads({0, 0, 0}, 0)}); }},
      {"three paddings after", Errc::invalid_argument,
       [](C c) -> R { return conv(c, {.padding = pads(0, {0, 0, 0})}); }},
      {"packed weights of another type", Errc::invalid_dtype,
       [](C c) -> R { return conv(c, {.packed = whole(c, {8}, 0).value()}); }},
      {"packed weights of another size", Errc::invalid_size,
       [](C c) -> R { return conv(c, {.packed = make(c, {8}).value()}); }},
      {"stride 0", Errc::invalid_argument, [](C c) -> R { return conv(c, {.stride = 0}); }},
      {"stride without bounds", Errc::invalid_argument, [](C c) -> R { return conv(c, {.stride = k_far}); }},
      {"dilation 0", Errc::invalid_argument, [](C c) -> R { return conv(c, {.dilation = 0}); }},
      {"dilation without bounds", Errc::invalid_argument, [](C c) -> R { return conv(c, {.dilation = k_far}); }},
      {"padding before below 0", Errc::invalid_argument, [](C c) -> R { return conv(c, {.padding = pads(-1, 0)}); }},
      {"padding after below 0", Errc::invalid_argument, [](C c) -> R { return conv(c, {.padding = pads(0, -1)}); }},
      {"padding after without bounds", Errc::invalid_argument,
       [](C c) -> R { return conv(c, {.padding = pads(0, k_far)}); }},
      {"a kernel of no taps", Errc::invalid_argument,
       [](C c) -> R { return ops::conv(make(c, {1, 2, 5}), make(c, {4, 2, 0})); }},
      {"more places than there are numbers", Errc::invalid_size,
       [](C c) -> R { return conv(c, {.padding = k_far - 1}); }},
      {"transposed matrices", Errc::invalid_size,
       [](C c) -> R { return ops::conv_transpose(make(c, {2, 4}), make(c, {4, 3})); }},
      {"transposed, six axes", Errc::invalid_size,
       [](C c) -> R { return ops::conv_transpose(make(c, {1, 1, 1, 1, 1, 1}), make(c, {1, 1, 1, 1, 1, 1})); }},
      {"transposed, no groups", Errc::invalid_size, [](C c) -> R { return back(c, {.groups = 0}); }},
      {"transposed, three groups of four channels", Errc::invalid_size,
       [](C c) -> R { return back(c, {.groups = 3}); }},
      {"three output paddings", Errc::invalid_argument,
       [](C c) -> R { return back(c, {.output_padding = {0, 0, 0}}); }},
      {"transposed, three strides", Errc::invalid_argument, [](C c) -> R { return back(c, {.stride = {1, 1, 1}}); }},
      {"output padding below 0", Errc::invalid_argument, [](C c) -> R { return back(c, {.output_padding = -1}); }},
      {"output padding as the stride", Errc::invalid_argument,
       [](C c) -> R { return back(c, {.stride = 2, .output_padding = 2}); }},
      {"transposed, padding before below 0", Errc::invalid_argument,
       [](C c) -> R { return back(c, {.padding = pads(-1, 0)}); }},
      {"transposed, padding after below 0", Errc::invalid_argument,
       [](C c) -> R { return back(c, {.padding = pads(0, -1)}); }},
      {"transposed, padding before without bounds", Errc::invalid_argument,
       [](C c) -> R { return back(c, {.padding = pads(1 << 30, 0)}); }},
      {"transposed, padding after without bounds", Errc::invalid_argument,
       [](C c) -> R { return back(c, {.padding = pads(0, 1 << 30)}); }},
      {"transposed, all places cut off", Errc::invalid_size, [](C c) -> R { return back(c, {.padding = 4}); }},
      {"transposed, more places than there are numbers", Errc::invalid_size,
       [](C c) -> R { return back(c, {.stride = k_far - 1}); }},
  };
  refuse(all);
}

TEST(Refusals, PoolsAndSizes) {
  static constexpr Entry all[] = {
      {"an axis too long for a pool", Errc::invalid_size,
       [](C c) -> R { return ops::avg_pool(vast(c, {1, 1, k_far}), 1); }},
      {"a last window of padding", Errc::invalid_argument,
       [](C c) -> R { return ops::max_pool(make(c, {1, 1, 3}), 2, {.stride = 1, .padding = pads(0, 3)}); }},
      {"a first window of padding", Errc::invalid_argument,
       [](C c) -> R { return ops::max_pool(make(c, {1, 1, 3}), 2, {.stride = 1, .padding = pads(3, 0)}); }},
      {"nothing to find a largest in", Errc::invalid_argument,
       [](C c) -> R { return ops::max_pool(make(c, {1, 1, 0}), 2, {.stride = 1, .padding = 1}); }},
      {"two kernels for one axis", Errc::invalid_argument,
       [](C c) -> R { return ops::max_pool(make(c, {1, 1, 3}), {1, 1}); }},
      {"a pool of a matrix", Errc::invalid_size, [](C c) -> R { return ops::avg_pool(make(c, {3, 3}), 1); }},
      {"adaptive, for two axes", Errc::invalid_argument,
       [](C c) -> R { return ops::adaptive_avg_pool(make(c, {1, 1, 3}), {1, 1}); }},
      {"adaptive, of nothing", Errc::invalid_size,
       [](C c) -> R { return ops::adaptive_max_pool(make(c, {1, 1, 0}), 1); }},
      {"adaptive, no places", Errc::invalid_size,
       [](C c) -> R { return ops::adaptive_max_pool(make(c, {1, 1, 3}), 0); }},
      {"adaptive, too many places", Errc::invalid_size,
       [](C c) -> R { return ops::adaptive_avg_pool(make(c, {1, 1, 3}), k_far); }},
      {"adaptive, of too many places", Errc::invalid_size,
       [](C c) -> R { return ops::adaptive_avg_pool(vast(c, {1, 1, k_far}), 1); }},
      {"resize of a matrix", Errc::invalid_size, [](C c) -> R { return ops::resize(make(c, {1, 1}), 1); }},
      {"resize for two axes", Errc::invalid_argument, [](C c) -> R { return ops::resize(make(c, {1, 1, 3}), {1, 1}); }},
      {"resize of nothing", Errc::invalid_size, [](C c) -> R { return ops::resize(make(c, {1, 1, 0}), 1); }},
      {"resize to nothing", Errc::invalid_size, [](C c) -> R { return ops::resize(make(c, {1, 1, 3}), 0); }},
      {"resize of too much", Errc::invalid_size, [](C c) -> R { return ops::resize(vast(c, {1, 1, 1 << 30}), 1); }},
      {"resize to too much", Errc::invalid_size, [](C c) -> R { return ops::resize(make(c, {1, 1, 3}), 1 << 30); }},
      {"resize to more than there are numbers", Errc::invalid_size,
       [](C c) -> R { return ops::resize(make(c, {1, 1, 1, 1, 1}), (1 << 30) - 1); }},
      {"pad to more than there are numbers", Errc::invalid_size,
       [](C c) -> R { return ops::pad(vast(c, {1 << 20, 1 << 20}), {{0, std::int64_t{1} << 46, 0}}); }},
      {"tile, overflow", Errc::invalid_size, [](C c) -> R { return ops::tile(make(c, {2, 3}), {k_huge, 1}); }},
      {"repeat, overflow", Errc::invalid_size, [](C c) -> R { return ops::repeat(make(c, {2, 3}), k_huge, 0); }},
      {"repeat to more than there are numbers", Errc::invalid_size,
       [](C c) -> R { return ops::repeat(make(c, {2, 3}), k_huge / 4, 0); }},
  };
  refuse(all);
}

TEST(Refusals, NormsLossesAndExperts) {
  static constexpr auto batch = [](C c, const ops::BatchNormOptions& o) {
    return ops::batch_norm(make(c, {2, 4}), make(c, {4}), make(c, {4}), make(c, {4}), make(c, {4}), o);
  };
  static constexpr auto group = [](C c, const ops::GroupNormOptions& o) {
    return ops::group_norm(make(c, {2, 4}), make(c, {4}), make(c, {4}), o);
  };
  static constexpr auto route = [](const Operand& x, const ops::RoutingOptions& o = {}) -> R {
    return ops::route(x, o).transform([](const ops::Routing& r) { return r.choice; });
  };
  static constexpr Entry all[] = {
      {"batch_norm, eps 0", Errc::invalid_argument, [](C c) -> R { return batch(c, {.eps = 0}); }},
      {"group_norm, eps 0", Errc::invalid_argument, [](C c) -> R { return group(c, {.eps = 0}); }},
      {"no groups", Errc::invalid_argument, [](C c) -> R { return group(c, {.groups = 0}); }},
      {"three groups of four channels", Errc::invalid_argument, [](C c) -> R { return group(c, {.groups = 3}); }},
      {"layer_norm, eps 0", Errc::invalid_argument,
       [](C c) -> R { return ops::layer_norm(make(c, {2, 4}), make(c, {4}), 0.0f); }},
      {"rms_norm, eps no number", Errc::invalid_argument,
       [](C c) -> R { return ops::rms_norm(make(c, {2, 4}), make(c, {4}), NAN); }},
      {"smoothing below 0", Errc::invalid_argument,
       [](C c) -> R { return ops::cross_entropy(make(c, {2, 3}), whole(c, {2}, 0), {.label_smoothing = -0.5f}); }},
      {"weights that are whole numbers", Errc::invalid_dtype,
       [](C c) -> R { return ops::nll(make(c, {2, 3}), whole(c, {2}, 0), whole(c, {3}, 1)); }},
      {"route a vector", Errc::invalid_size, [](C c) -> R { return route(make(c, {3})); }},
      {"no choices", Errc::invalid_argument, [](C c) -> R { return route(make(c, {2, 3}), {.top_k = 0}); }},
      {"more choices than experts", Errc::invalid_argument,
       [](C c) -> R { return route(make(c, {2, 3}), {.top_k = 4}); }},
      {"capacity below 0", Errc::invalid_argument, [](C c) -> R { return route(make(c, {2, 3}), {.capacity = -1}); }},
      {"ends with gaps", Errc::invalid_size,
       [](C c) -> R {
         return ops::expert_linear(make(c, {4, 3}), make(c, {6, 3}), ops::slice(whole(c, {3}, 4), 0, 0, 3, 2));
       }},
      {"ends broken", Errc::diverged,
       [](C c) -> R { return ops::expert_linear(make(c, {4, 3}), make(c, {6, 3}), broken()); }},
      {"ends beyond the rows", Errc::invalid_argument,
       [](C c) -> R { return ops::expert_linear(make(c, {4, 3}), make(c, {6, 3}), whole(c, {2}, 5)); }, true},
      {"ends below 0", Errc::invalid_argument,
       [](C c) -> R { return ops::expert_linear(make(c, {4, 3}), make(c, {6, 3}), whole(c, {2}, -1)); }, true},
      {"a penalty of two elements", Errc::invalid_size,
       [](C c) -> R { return ops::with_penalty(make(c, {4}), make(c, {2})); }},
      {"an index far below 0", Errc::invalid_argument,
       [](C c) -> R { return ops::take(make(c, {2, 3}), whole(c, {1}, -3)); }, true},
      {"one_hot before no axis", Errc::invalid_argument,
       [](C c) -> R { return ops::one_hot(whole(c, {2}, 0), 3, 1, 0, 5); }},
      {"split what is broken", Errc::diverged,
       [](C) -> R { return ops::split<2>(broken(), 0).transform([](const auto& parts) { return parts[0]; }); }},
      {"split by less than nothing", Errc::invalid_size,
       [](C c) -> R {
         return ops::split(make(c, {2, 3}), 1, {-1, 4}).transform([](const auto& parts) { return parts[0]; });
       }},
      {"layer_norm of what is broken", Errc::diverged,
       [](C c) -> R { return ops::layer_norm(broken(), make(c, {4})); }},
      {"transpose what is broken", Errc::diverged, [](C) -> R { return ops::transpose(broken()); }},
      {"transpose from no axis", Errc::invalid_argument,
       [](C c) -> R { return ops::transpose(make(c, {2, 3}), 5, 0); }},
      {"transpose to no axis", Errc::invalid_argument, [](C c) -> R { return ops::transpose(make(c, {2, 3}), 0, 5); }},
      {"detach what is broken", Errc::diverged, [](C) -> R { return ops::detach(broken()); }},
      {"flatten what is broken", Errc::diverged, [](C) -> R { return ops::flatten(broken()); }},
  };
  refuse(all);
}

TEST(Refusals, RecurrentCells) {
  static constexpr auto run = [](C c, ops::CellWeights w, const ops::CellOptions& o) -> R {
    w.input = make(c, {8, 3});
    w.state = make(c, {8, 2});
    return ops::recurrent(ops::Cell::lstm, make(c, {5, 2, 3}), w, o).transform([](const auto& s) { return s.h; });
  };
  static constexpr Entry all[] = {
      {"a bias", Errc::diverged,
       [](C c) -> R { return run(c, {.input = {}, .state = {}, .state_bias = broken()}, {}); }},
      {"a state", Errc::diverged, [](C c) -> R { return run(c, {}, {.h = broken()}); }},
      {"lengths", Errc::diverged, [](C c) -> R { return run(c, {}, {.lengths = broken()}); }},
      {"a length below 0", Errc::invalid_argument, [](C c) -> R { return run(c, {}, {.lengths = whole(c, {2}, -1)}); },
       true},
      {"a length of too many", Errc::invalid_argument,
       [](C c) -> R { return run(c, {}, {.lengths = whole(c, {2}, 6)}); }, true},
      {"packed input of another type", Errc::invalid_dtype,
       [](C c) -> R { return run(c, {.input = {}, .state = {}, .packed_input = whole(c, {8}, 0).value()}, {}); }},
      {"packed state of another size", Errc::invalid_size,
       [](C c) -> R { return run(c, {.input = {}, .state = {}, .packed_state = make(c, {1}).value()}, {}); }},
  };
  refuse(all);
}

TEST(Refusals, PackedWeights) {
  static constexpr auto linear = [](C c, const Tensor& packed, const Result<Tensor>& weight,
                                    const Operand* bias = nullptr) {
    return ops::linear(make(c, {2, 32}), weight, {.bias = bias, .packed = &packed});
  };
  static constexpr Entry all[] = {
      {"an operand", Errc::diverged, [](C c) -> R { return linear(c, *make(c, {1}), broken()); }},
      {"another type", Errc::invalid_dtype, [](C c) -> R { return linear(c, *whole(c, {1}, 0), make(c, {16, 32})); }},
      {"another type, narrow", Errc::invalid_dtype,
       [](C c) -> R { return linear(c, *make(c, {1}), make(c, {16, 32}, DType::f16)); }},
      {"another size", Errc::invalid_size, [](C c) -> R { return linear(c, *make(c, {1}), make(c, {16, 32})); }},
      {"shapes", Errc::invalid_size, [](C c) -> R { return linear(c, *make(c, {1}), make(c, {16, 31})); }},
      {"a bias of another size", Errc::invalid_size,
       [](C c) -> R {
         const auto bias = make(c, {15});
         const Operand b = bias;
         return linear(c, *make(c, {static_cast<std::int64_t>(ops::packed_size({16, 32}))}), make(c, {16, 32}), &b);
       }},
  };
  refuse(all);
  auto frame = workspace(1).frame();
  C c = frame.context();
  EXPECT_EQ(ops::packed_size({16}), 0u);
  EXPECT_EQ(ops::packed_bytes(DType::f32, {16, 32}), 0u);
  EXPECT_EQ(ops::packed_bytes(DType::f16, {16}), 0u);
  EXPECT_EQ(ops::packed_bytes(DType::q8_0, {16, 31}), 0u);
  std::vector<float> floats(ops::packed_size({16, 32}) + 1);
  std::vector<std::byte> bytes(ops::packed_bytes(DType::f16, {16, 32}) + 1);
  EXPECT_FAILS(ops::pack_weight(*whole(c, {16, 32}, 0), std::span<float>(floats)), Errc::invalid_dtype);
  EXPECT_FAILS(ops::pack_weight(*make(c, {16}), std::span<float>()), Errc::invalid_size);
  EXPECT_FAILS(ops::pack_weight(*make(c, {16, 32}), std::span<float>(floats)), Errc::invalid_size);
  EXPECT_FAILS(ops::pack_weight(*make(c, {16, 16, 3, 3}), std::span<float>(floats).first(1)), Errc::invalid_size);
  const auto across = ops::transpose(make(c, {8, 16, 3, 3}));
  std::vector<float> taps(ops::packed_size({8, 16, 3, 3}));
  EXPECT_FAILS(ops::pack_weight(*across, std::span<float>(taps)), Errc::invalid_size);
  EXPECT_EQ(ops::packed_size({8, 16, 3}), 0u);
  EXPECT_EQ(ops::packed_size({8, 16, 5, 3}), 0u);
  EXPECT_EQ(ops::packed_size({8, 0, 3, 3}), 0u);
  EXPECT_FAILS(ops::pack_weight(Tensor(), std::span<std::byte>(bytes)), Errc::invalid_size);
  EXPECT_FAILS(ops::pack_weight(*make(c, {16, 32}), std::span<std::byte>(bytes)), Errc::invalid_size);
  EXPECT_FAILS(ops::pack_weight(*make(c, {16, 32}, DType::f16), std::span<std::byte>(bytes)), Errc::invalid_size);
  const auto turned = ops::transpose(make(c, {32, 16}, DType::f16));
  EXPECT_FAILS(ops::pack_weight(*turned, std::span<std::byte>(bytes).first(bytes.size() - 1)), Errc::invalid_size);
}

// Whose workspace could not be made.
TEST(Refusals, AWorkspaceThatIsNone) {
  Workspace none{{.scratch = 1_MiB, .threads = 0}};
  const Owned x = random_owned({3});
  EXPECT_FAILS(ops::exp(x.tensor().in(none.context())), Errc::invalid_argument);
  Workspace moved{{.scratch = 1_MiB, .threads = 1, .seed = 3}};
  const Workspace taken = std::move(moved);
  moved.set_draws(1, 2);  // NOLINT(bugprone-use-after-move): it has nothing to set
  EXPECT_EQ(moved.draws(), 0u);
  EXPECT_EQ(moved.threads(), 0);
  EXPECT_EQ(moved.counters().high_water, 0u);
  EXPECT_EQ(taken.draws(), 0u);
}

// What takes memory.
struct Step {
  const char* what;
  R (*run)(C c);
};
constexpr auto q8 = [](C c) { return ops::cast(make(c, {16, 32}), DType::q8_0); };
constexpr auto packed = [](C c, const R& weight, bool with_bias, Activation a) -> R {
  if (!weight) return weight;
  const bool narrow = weight->dtype() != DType::f32;
  const std::size_t size =
      narrow ? ops::packed_bytes(weight->dtype(), weight->shape()) : ops::packed_size(weight->shape());
  auto place = Fresh::make(c, {static_cast<std::int64_t>(size)}, narrow ? DType::u8 : DType::f32);
  if (!place) return fail(place.error());
  if (!c.planning) {
    EXPECT_OK(narrow ? ops::pack_weight(*weight, std::span(place->data(), size))
                     : ops::pack_weight(*weight, std::span(place->f32(), size)));
  }
  const auto bias = ops::slice(make(c, {32}), 0, 0, 32, 2);
  const Operand b = bias;
  const Tensor packed = std::move(*place).freeze();
  return ops::linear(ops::transpose(make(c, {32, 3})), weight,
                     {.bias = with_bias ? &b : nullptr, .packed = &packed, .activation = a});
};
constexpr Step k_steps[] = {
    {"cast", [](C c) -> R { return ops::cast(ops::cast(ops::transpose(make(c, {3, 40})), DType::bf16), DType::i8); }},
    {"cast by way of floats", [](C c) -> R { return ops::cast(ops::cast(make(c, {3, 40}), DType::f16), DType::bf16); }},
    {"uniform", [](C c) -> R { return ops::uniform(c, {30}); }},
    {"normal", [](C c) -> R { return ops::normal(c, {30}); }},
    {"counting", [](C c) -> R { return ops::counting(c, 30); }},
    {"slopes", [](C c) -> R { return ops::alibi_slopes(c, 12); }},
    {"sinusoids", [](C c) -> R { return ops::sinusoids(c, 5, 6); }},
    {"rope",
     [](C c) -> R {
       auto tables = ops::rope_tables(c, 5, 2);
       return tables ? ops::rope(make(c, {5, 4}), tables->cosine, tables->sine) : R(fail(tables.error()));
     }},
    {"route",
     [](C c) -> R {
       return ops::route(ops::transpose(make(c, {3, 40}))).transform([](const auto& r) { return r.load; });
     }},
    {"experts", [](C c) -> R { return ops::expert_linear(make(c, {40, 30}), make(c, {60, 30}), whole(c, {2}, 20)); }},
    {"penalty", [](C c) -> R { return ops::with_penalty(ops::transpose(make(c, {3, 40})), make(c, {})); }},
    {"indices", [](C c) -> R { return ops::max_pool_indices(make(c, {3, 4, 8}), 2); }},
    {"class weights",
     [](C c) -> R { return ops::nll(make(c, {4, 20}), whole(c, {4}, 1), ops::slice(make(c, {40}), 0, 0, 40, 2)); }},
    {"many products", [](C c) -> R { return ops::matmul(make(c, {3, 140, 130}), make(c, {3, 130, 150})); }},
    {"small products", [](C c) -> R { return ops::matmul(make(c, {30, 14, 13}), make(c, {30, 13, 15})); }},
    {"products of nothing", [](C c) -> R { return ops::matmul(make(c, {3, 4, 0}), make(c, {3, 0, 5})); }},
    {"a narrow weight", [](C c) -> R { return ops::linear(make(c, {3, 32}), q8(c)); }},
    {"a narrow weight and a bias", [](C c) -> R { return ops::linear(make(c, {3, 32}), q8(c), make(c, {16})); }},
    {"packed", [](C c) -> R { return packed(c, make(c, {16, 32}), true, Activation::silu); }},
    {"packed, no bias", [](C c) -> R { return packed(c, make(c, {16, 32}), false, Activation::none); }},
    {"packed q8_0", [](C c) -> R { return packed(c, q8(c), true, Activation::relu); }},
    {"packed q8_0, no bias", [](C c) -> R { return packed(c, q8(c), false, Activation::none); }},
    {"packed f16",
     [](C c) -> R { return packed(c, ops::cast(make(c, {16, 32}), DType::f16), true, Activation::gelu); }},
    {"packed bf16",
     [](C c) -> R { return packed(c, ops::cast(make(c, {16, 32}), DType::bf16), true, Activation::none); }},
    {"packed, no rows of weights", [](C c) -> R { return ops::linear(make(c, {3, 32}), make(c, {0, 32})); }},
    {"a large linear", [](C c) -> R { return ops::linear(make(c, {70, 300}), make(c, {80, 300}), make(c, {80})); }},
    {"many products of some size",
     [](C c) -> R { return ops::matmul(make(c, {3, 100, 100}), make(c, {3, 100, 100})); }},
    {"large experts",
     [](C c) -> R { return ops::expert_linear(make(c, {200, 64}), make(c, {256, 64}), whole(c, {2}, 200)); }},
    {"a large lstm",
     [](C c) -> R {
       return ops::recurrent(ops::Cell::lstm, make(c, {3, 70, 8}),
                             {.input = make(c, {512, 8}), .state = make(c, {512, 128})})
           .transform([](const auto& states) { return states.y; });
     }},
    {"a large sum", [](C c) -> R { return ops::sum(make(c, {3000, 50})); }},
    {"lstm",
     [](C c) -> R {
       return ops::recurrent(ops::Cell::lstm, make(c, {5, 2, 3}),
                             {.input = make(c, {80, 3}), .state = make(c, {80, 20})},
                             {.lengths = ops::slice(whole(c, {4}, 3), 0, 0, 4, 2)})
           .transform([](const auto& s) { return s.y; });
     }},
    {"frame of its own",
     [](C c) -> R {
       auto x = make(c, {3, 40});
       return x ? in_own_frame(*x, [](const Tensor& t) { return ops::transpose(ops::exp(t)); }) : x;
     }},
};

// With less room than it needs, whatever is done says so, wherever that is; and works again with all of it.
TEST(Refusals, NoRoom) {
  Workspace plan = planning_workspace(1), ws{{.scratch = 16_MiB, .threads = 1}};
  Arena& scratch = *ws.context().scratch;
  for (const bool record : {false, true}) {
    for (const Step& step : k_steps) {
      SCOPED_TRACE(step.what + std::string(record ? ", recorded" : ""));
      const auto run = [&](Workspace& on) -> R {
        if (!record) {
          auto frame = on.frame();
          return step.run(frame.context());
        }
        auto tape = on.record();
        if (!tape.context().record) return fail(Errc::out_of_memory, "record", "no room for a tape");
        return step.run(tape.context());
      };
      plan = planning_workspace(1);
      ASSERT_OK(run(plan));
      const std::size_t wanted = plan.counters().high_water, stride = std::max<std::size_t>(64, wanted / 200 / 64 * 64);
      for (std::size_t room = 0; room < wanted; room += stride) {
        ASSERT_OK(scratch.take(16_MiB - room));
        EXPECT_FAILS(run(ws), Errc::out_of_memory) << room << " of " << wanted;
        scratch.shrink_to(0);
      }
      EXPECT_OK(run(ws));
    }
  }
}

}  // namespace
