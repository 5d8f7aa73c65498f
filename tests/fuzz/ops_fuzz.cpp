// Programs of operations, composed by the fuzzer out of all that qorus.ops has, on tensors of shapes that it chooses, with weights whose shapes
// mostly fit: recorded on a tape and walked back. Every step is an error or a tensor; every leaf has a gradient of its shape afterwards.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <span>
#include <vector>

import qorus.ops;

using namespace qorus;

namespace {

constexpr std::size_t k_most = 4096;  // elements of a tensor

// Where all leaves' elements lie: small numbers, among them some that are none and some that overflow.
struct Elements {
  std::array<float, 2 * k_most> floats{};
  std::array<std::int32_t, 2 * k_most> numbers{};
  Elements() {
    constexpr float k_odd[] = {
        0, -0.0f, 1e-30f, 3e38f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()};
    std::uint32_t state = 1;
    for (std::size_t i = 0; i < floats.size(); ++i) {
      state = state * 1664525 + 1013904223;
      floats[i] = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-30f;
      if (i > k_most && state % 61 == 0) floats[i] = k_odd[(state >> 8) % std::size(k_odd)];
      numbers[i] = static_cast<std::int32_t>(state >> 28) % 7 - (i > k_most ? 2 : 0);
    }
  }
};
const Elements g_elements;

using Unary = Result<Tensor> (*)(const Operand&) noexcept;
using Binary = Result<Tensor> (*)(const Operand&, const Operand&) noexcept;
using Reduction = Result<Tensor> (*)(const Operand&, const ops::Axes&, bool) noexcept;
using Loss = Result<Tensor> (*)(const Operand&, const Operand&, ops::Reduce) noexcept;
constexpr Unary k_unary[] = {ops::neg,       ops::abs,        ops::sign,   ops::sqrt, ops::square,   ops::reciprocal,
                             ops::exp,       ops::log,        ops::sin,    ops::cos,  ops::erf,      ops::floor,
                             ops::relu,      ops::gelu,       ops::silu,   ops::tanh, ops::softplus, ops::sigmoid,
                             ops::gelu_tanh, ops::contiguous, ops::detach, ops::ceil, ops::round};
constexpr Binary k_binary[] = {ops::add, ops::sub,     ops::mul,     ops::div,    ops::pow,
                               ops::add, ops::maximum, ops::minimum, ops::matmul, ops::with_penalty};
constexpr Reduction k_reductions[] = {ops::sum,  ops::mean,    ops::max,       ops::min,
                                      ops::prod, ops::sum_abs, ops::sum_square};
constexpr Loss k_losses[] = {ops::mse, ops::l1};

class Composer {
 public:
  Composer(Tape& tape, const std::uint8_t* data, std::size_t size) : tape_(tape), at_(data), end_(data + size) {}

  void run() {
    for (int i = 0; i < 3; ++i) keep(leaf(shape()));
    for (int i = 0; i < 24 && at_ != end_ && !made_.empty(); ++i) keep(step());
    if (made_.empty()) return;
    const auto loss = made_.back().rank() == 0 ? Result<Tensor>(made_.back()) : ops::sum(made_.back());
    if (!loss) return;
    const auto gradients = backward(*loss);
    if (!gradients) return;
    for (const Tensor& leaf : leaves_) {
      const auto gradient = gradients->of(leaf);
      if (!gradient || gradient->shape() != leaf.shape()) __builtin_trap();
    }
  }

 private:
  int number(int below) { return at_ == end_ ? 0 : *at_++ % below; }
  int axis() { return number(7) - 3; }
  std::int64_t extent() { return number(6); }
  std::vector<std::int64_t> extents() {
    std::vector<std::int64_t> dims(static_cast<std::size_t>(number(5)));
    for (auto& one : dims) one = 1 + number(5) - (number(16) == 0);
    return dims;
  }
  Shape shape() { return Shape(std::span<const std::int64_t>(extents())); }
  template <class T, std::size_t N>
  const T& one_of(const T (&list)[N]) {
    return list[static_cast<std::size_t>(number(N))];
  }

  void keep(const Result<Tensor>& made) {
    if (made && made->numel() <= k_most) made_.push_back(*made);
  }
  // One of the tensors so far, mostly the last.
  const Tensor& any() {
    const auto back = static_cast<std::size_t>(number(4) ? 0 : number(8));
    return made_[made_.size() - 1 - std::min(back, made_.size() - 1)];
  }
  // A new tensor whose gradient is wanted.
  Result<Tensor> leaf(const Shape& shape) {
    if (!shape.valid() || shape.numel() > k_most) return fail(Errc::invalid_size, "fuzz", "too large");
    const auto first = static_cast<std::size_t>(number(256)) * 16;
    auto made =
        tape_.watch(Tensor::borrow(std::span<const float>(g_elements.floats).subspan(first, shape.numel()), shape));
    if (made) leaves_.push_back(*made);
    return made;
  }
  Result<Tensor> numbers(const Shape& shape) {
    if (!shape.valid() || shape.numel() > k_most) return fail(Errc::invalid_size, "fuzz", "too large");
    const auto first = static_cast<std::size_t>(number(256)) * 16;
    return tape_.input(
        Tensor::borrow(std::span<const std::int32_t>(g_elements.numbers).subspan(first, shape.numel()), shape));
  }
  static std::int64_t last(const Tensor& x) { return x.rank() > 0 ? x.shape()[-1] : 1; }
  // Of the i-th axis; 1 if there is none.
  static std::int64_t at(const Tensor& x, int i) { return i >= 0 && i < x.rank() ? x.shape()[i] : 1; }
  static Shape cut(const Tensor& x, int rank) {
    return Shape(x.shape().extents().first(static_cast<std::size_t>(rank)));
  }

  Result<Tensor> step() {
    const Tensor x = any();
    switch (number(8)) {
      case 0: return one_of(k_unary)(x);
      case 1: return one_of(k_binary)(x, any());
      case 2: return one_of(k_binary)(x, leaf(shape()));
      case 3: return reduction(x);
      case 4: return shaped(x);
      case 5: return joined(x, any());
      case 6: return layer(x);
      default: return picture(x);
    }
  }

  Result<Tensor> reduction(const Tensor& x) {
    const int first = axis(), second = axis();
    switch (number(8)) {
      case 0: return ops::softmax(x, first);
      case 1: return ops::log_softmax(x, first);
      case 2: return ops::cumsum(x, first, {.exclusive = second > 0, .reverse = second % 2 == 0});
      case 3: return ops::variance(x, first, second);
      case 4: return one_of(k_reductions)(x, {}, second > 0);
      case 5: return one_of(k_reductions)(x, {first, second}, number(2) == 0);
      case 6: return ops::one_hot(ops::argmax(x, first, second > 0), number(8), 1, 0, second);
      default: return one_of(k_reductions)(x, first, second > 0);
    }
  }

  Result<Tensor> shaped(const Tensor& x) {
    const int a = axis(), b = axis();
    switch (number(12)) {
      case 0: return ops::reshape(x, std::span<const std::int64_t>(extents()));
      case 1: return ops::reshape(x, {-1, extent()});
      case 2: return ops::flatten(x, a, b);
      case 3: return ops::transpose(x, a, b);
      case 4: return ops::permute(x, {a, b, number(4), number(4)});
      case 5: return ops::slice(x, a, number(9) - 3, number(9) - 3, number(6) - 2);
      case 6: return ops::select(x, a, b);
      case 7: return ops::broadcast_to(x, shape());
      case 8: return ops::unsqueeze(x, a);
      case 9: return ops::squeeze(x, a);
      case 10: {
        constexpr DType k_types[] = {DType::f16, DType::bf16, DType::i32, DType::u8, DType::q8_0};
        return ops::cast(ops::cast(x, one_of(k_types)), DType::f32);
      }
      default: return ops::clamp(x, static_cast<float>(a), static_cast<float>(b));
    }
  }

  Result<Tensor> joined(const Tensor& x, const Tensor& y) {
    const int a = axis();
    constexpr ops::PadMode k_modes[] = {ops::PadMode::constant, ops::PadMode::edge, ops::PadMode::reflect,
                                        ops::PadMode::wrap};
    switch (number(12)) {
      case 0: return ops::concat({x, y, x}, a);
      case 1: return ops::stack({x, y}, a);
      case 2: return ops::pad(x, {{a, number(6) - 2, number(6) - 2}, {axis(), extent(), extent()}}, one_of(k_modes));
      case 3: return ops::tile(x, std::span<const std::int64_t>(extents()));
      case 4: return ops::repeat(x, extent() - 1, a);
      case 5: return ops::take(x, numbers(shape()), a);
      case 6: return ops::gather(x, numbers(x.shape()), a);
      case 7: return ops::scatter_add(x, numbers(y.shape()), y, a);
      case 8: return ops::where(ops::less(x, y), x, y);
      case 9: return ops::dropout(x, static_cast<float>(number(12)) * 0.1f);
      case 10: {
        const auto parts = ops::split<2>(x, a);
        return parts ? ops::mul((*parts)[0], (*parts)[1]) : Result<Tensor>(fail(parts.error()));
      }
      default: return ops::pow(x, static_cast<float>(number(9) - 3) * 0.5f);
    }
  }

  Activation activation() { return static_cast<Activation>(number(7)); }

  Result<Tensor> layer(const Tensor& x) {
    const std::int64_t in = last(x), out = extent();
    switch (number(12)) {
      case 0: return ops::linear(x, leaf({out, in}), leaf({out}), activation());
      case 1: return ops::linear(x, leaf({out, in}), activation());
      case 2: return ops::layer_norm(x, leaf({in}), leaf({in}));
      case 3: return ops::rms_norm(x, leaf({in}));
      case 4:
        return ops::cross_entropy(x, numbers(cut(x, std::max(x.rank() - 1, 0))),
                                  {.label_smoothing = static_cast<float>(number(4)) * 0.25f,
                                   .ignore_index = number(4),
                                   .reduce = static_cast<ops::Reduce>(number(3))});
      case 5:
        return ops::nll(x, numbers(cut(x, std::max(x.rank() - 1, 0))), leaf({in}),
                        {.ignore_index = number(4), .reduce = static_cast<ops::Reduce>(number(3))});
      case 6: return one_of(k_losses)(x, leaf(x.shape()), static_cast<ops::Reduce>(number(3)));
      case 7: return number(2) ? ops::huber(x, leaf(x.shape()), 0.5f) : ops::bce_with_logits(x, leaf(x.shape()), 2);
      case 8: return attention(x);
      case 9: {
        const auto tables = ops::rope_tables(tape_.context(), at(x, x.rank() - 2), number(4));
        if (!tables) return fail(tables.error());
        return ops::rope(x, tables->cosine, tables->sine,
                         number(2) ? ops::RopePairs::halves : ops::RopePairs::interleaved);
      }
      case 10: return experts(x);
      default: return recurrent(x);
    }
  }

  Result<Tensor> attention(const Tensor& x) {
    const std::int64_t keys = extent(), heads = number(4) ? at(x, 1) : extent();
    const auto k = leaf({at(x, 0), heads, keys, last(x)}), v = leaf({at(x, 0), heads, keys, last(x)});
    ops::AttentionOptions options{.causal = number(2) == 0, .window = number(8) ? 0 : extent(), .past = number(4) - 1};
    if (number(4) == 0) options.softcap = 2;
    if (number(4) == 0) options.slopes = leaf({at(x, 1)});
    if (number(4) == 0) options.lengths = numbers({at(x, 0)});
    if (number(4) == 0) options.mask = leaf({at(x, 0), at(x, 1), at(x, 2), keys});
    return ops::attention(x, k, v, options);
  }

  Result<Tensor> experts(const Tensor& x) {
    const std::int64_t count = 1 + number(4), out = 1 + number(4);
    const auto scores = ops::linear(x, leaf({count, last(x)}));
    const auto routing = ops::route(scores, {.top_k = number(4), .capacity = static_cast<float>(number(3))});
    if (!routing) return fail(routing.error());
    const auto rows = ops::take(x, routing->token);
    const auto done = ops::expert_linear(rows, leaf({count * out, last(x)}), routing->ends);
    return ops::mul(ops::take(done, routing->place), ops::unsqueeze(ops::gather(scores, routing->choice, -1), -1));
  }

  Result<Tensor> recurrent(const Tensor& x) {
    constexpr ops::Cell k_cells[] = {ops::Cell::rnn, ops::Cell::rnn_relu, ops::Cell::gru, ops::Cell::lstm};
    const ops::Cell cell = one_of(k_cells);
    const std::int64_t hidden = 1 + number(4), gates = ops::gates_of(cell) * hidden;
    ops::CellOptions options{.reverse = number(2) == 0};
    if (number(3) == 0) options.h = leaf({at(x, 0), hidden});
    if (number(3) == 0) options.c = leaf({at(x, 0), hidden});
    if (number(4) == 0) options.lengths = numbers({at(x, 0)});
    ops::CellWeights weights{.input = leaf({gates, last(x)}), .state = leaf({gates, hidden})};
    if (number(2) == 0) weights.input_bias = leaf({gates});
    if (number(3) == 0) weights.state_bias = leaf({gates});
    const auto made = ops::recurrent(cell, x, weights, options);
    if (!made) return fail(made.error());
    keep(made->h);
    return made->y;
  }

  PerAxis per_axis(int most) { return number(3) ? PerAxis(number(most)) : PerAxis({number(most), number(most)}); }
  Pads pads() {
    const int kind = number(8);
    return kind == 0 ? Pads::same() : kind == 1 ? Pads::same_lower() : kind < 5 ? Pads(number(3)) : Pads(0);
  }

  // Of [batch, channels, …].
  Result<Tensor> picture(const Tensor& x) {
    const std::int64_t channels = at(x, 1), groups = number(3) ? 1 : extent(), out = extent();
    const auto window = [&](std::int64_t first, std::int64_t second) {
      std::array<std::int64_t, 6> dims{first, second, 1, 1, 1, 1};
      for (std::size_t i = 2; i < dims.size(); ++i) dims[i] = 1 + number(3);
      return Shape(std::span<const std::int64_t>(dims).first(static_cast<std::size_t>(std::max(x.rank(), 2))));
    };
    const ops::PoolOptions pool{.stride = per_axis(3),
                                .padding = pads(),
                                .dilation = 1 + number(2),
                                .ceil = number(2) == 0,
                                .count_include_pad = number(2) == 0};
    switch (number(10)) {
      case 0:
      case 1:
        return ops::conv(x, leaf(window(out, groups > 0 ? channels / groups : 0)), leaf({out}),
                         {.stride = 1 + number(3),
                          .padding = pads(),
                          .dilation = 1 + number(2),
                          .groups = groups,
                          .activation = activation()});
      case 2:
        return ops::conv_transpose(x, leaf(window(channels, out)), leaf({out * groups}),
                                   {.stride = 1 + number(3),
                                    .padding = pads(),
                                    .dilation = 1 + number(2),
                                    .output_padding = per_axis(2),
                                    .groups = groups});
      case 3: return ops::max_pool(x, per_axis(4), pool);
      case 4: return ops::avg_pool(x, per_axis(4), pool);
      case 5: return number(2) ? ops::adaptive_avg_pool(x, per_axis(5)) : ops::adaptive_max_pool(x, per_axis(5));
      case 6:
        return ops::resize(
            x, per_axis(7),
            {.mode = number(2) ? ops::ResizeMode::linear : ops::ResizeMode::nearest, .align_corners = number(2) == 0});
      case 7:
        return ops::group_norm(x, leaf({channels}), leaf({channels}),
                               {.groups = number(3) ? channels : groups, .activation = activation()});
      case 8:
        return ops::batch_norm(x, leaf({channels}), leaf({channels}), ops::cast(numbers({channels}), DType::f32),
                               ops::cast(numbers({channels}), DType::f32), {.frozen = number(2) == 0});
      default: return ops::reshape(x, {1, extent(), extent(), -1});
    }
  }

  Tape& tape_;
  const std::uint8_t *at_, *end_;
  std::vector<Tensor> made_, leaves_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Workspace workspace({.scratch = 256_MiB, .threads = 1});
  auto tape = workspace.record();
  Composer(tape, data, size).run();
  return 0;
}
