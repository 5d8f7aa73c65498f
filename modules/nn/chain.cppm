// Pipes: `layer | layer` is a layer, `tensor | layer` applies it, and an error goes through. Chains are flat, and neighbours with a
// fused kernel are joined at compile time.
export module qorus.nn:chain;
import qorus.std;
import qorus.ops;
import :param;
import :layers;
import :loss;
import :description;

export namespace qorus::nn {

// A layer that can take the next one's activation into its own kernel.
template <class L>
concept Fusable = requires(const L& layer, const Tensor& x, Activation a) {
  { layer.with(x, a) } -> std::same_as<Result<Tensor>>;
};
template <class L>
concept FusableActivation = requires {
  { L::k_activation } -> std::convertible_to<Activation>;
};

// A layer that chooses among `vocab` rows of a table, and one that can go over the table instead of what was chosen.
template <class L>
concept Lookup = requires(const L& layer, const Tensor& ids) {
  { layer.vocab } -> std::convertible_to<std::int64_t>;
  { layer.table(ids) } -> std::same_as<Result<Tensor>>;
};
template <class L>
concept ReadsTables = requires(const L& layer, const Tensor& table, const Tensor& ids) {
  { layer.looked_up(table, ids) } -> std::same_as<Result<Tensor>>;
};

// A layer whose result a tape need not keep for a layer of products behind it (rematerialize).
template <class L>
concept Remakes = requires {
  { L::k_remakes } -> std::convertible_to<bool>;
};

// layer(lookup(ids)), by the table where that has fewer rows.
template <Lookup A, ReadsTables B>
[[nodiscard]] Result<Tensor> after_lookup(const A& lookup, const B& layer, const Tensor& ids) noexcept {
  const bool fewer = lookup.vocab < static_cast<std::int64_t>(ids.numel());
  const auto x = fewer ? lookup.table(ids) : lookup(ids);
  if (!x) return x;
  return fewer ? layer.looked_up(*x, ids) : layer(*x);
}

// A layer under a name of its own instead of its index.
template <Layer L>
struct Named {
  static constexpr std::size_t k_longest = 47;
  L layer;
  std::array<char, k_longest + 1> text{};

  [[nodiscard]] std::string_view name() const noexcept { return text.data(); }
  void describe(Writer& out) const noexcept {
    describe_inside(layer, out);
    out.value("name", name());
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return layer(x); }
};
template <class L>
inline constexpr bool k_is_named = false;
template <class L>
inline constexpr bool k_is_named<Named<L>> = true;

// One layer after the other. Its parts are named by index, as in "0.weight".
template <Layer... Ls>
struct Chain {
  static constexpr std::string_view k_name = "chain";
  std::tuple<Ls...> layers;

  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return trace(x, Unseen{}); }
  // The same, telling observe(index, layer, output) of every step.
  template <class F>
  [[nodiscard]] Result<Tensor> trace(const Tensor& x, F&& observe) const noexcept {
    Result<Tensor> y = x;
    [&]<std::size_t... I>(std::index_sequence<I...>) { (step<I>(y, observe), ...); }(std::index_sequence_for<Ls...>{});
    return y;
  }
  // loss((*this)(x)), as the last layer has it.
  [[nodiscard]] Result<Tensor> loss(const Tensor& x, const BoundLoss& loss) const noexcept {
    constexpr std::size_t last = sizeof...(Ls) - 1;
    Result<Tensor> y = x;
    [&]<std::size_t... I>(std::index_sequence<I...>) { (step<I>(y, Unseen{}), ...); }(std::make_index_sequence<last>());
    if (!y) return y;
    if constexpr (taken<last>()) {
      return loss(*y);
    } else if constexpr (looks_up<last>()) {
      step<last>(y, Unseen{});
      return y ? loss(*y) : y;
    } else if constexpr (remade<last>()) {
      return rematerialize(*y, std::get<last - 1>(layers),
                           [&](const Tensor& t) { return loss_of(std::get<last>(layers), t, loss); });
    } else {
      return loss_of(std::get<last>(layers), *y, loss);
    }
  }
  void describe(Writer& out) const noexcept {
    out.value("kind", k_name);
    out.open("layers", '[');
    std::apply([&](const auto&... part) { (nn::describe({}, part, out), ...); }, layers);
    out.close(']');
  }
  // Calls f(name, layer) for each part.
  template <class Self, class F>
  static void visit_parts(Self& self, F&& f) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (visit_part<I>(self, f), ...);
    }(std::index_sequence_for<Ls...>{});
  }

 private:
  template <std::size_t I>
  using Part = std::tuple_element_t<I, std::tuple<Ls...>>;
  // Whether part I is an activation that part I - 1 has taken over.
  template <std::size_t I>
  static constexpr bool taken() {
    if constexpr (I == 0 || I >= sizeof...(Ls)) {
      return false;
    } else {
      return Fusable<Part<I - 1>> && FusableActivation<Part<I>>;
    }
  }
  // Whether part I goes over the table of part I - 1. Not where outputs are observed: that of part I - 1 is never made.
  template <std::size_t I>
  static constexpr bool looks_up() {
    if constexpr (I == 0 || I >= sizeof...(Ls)) {
      return false;
    } else {
      return Lookup<Part<I - 1>> && ReadsTables<Part<I>>;
    }
  }
  // Whether what part I reads is made again in the backward. Not where outputs are observed.
  template <std::size_t I>
  static constexpr bool remade() {
    if constexpr (I == 0 || I >= sizeof...(Ls)) {
      return false;
    } else {
      return Remakes<Part<I - 1>> && Fusable<Part<I>>;
    }
  }
  struct Unseen {
    void operator()(std::size_t, const auto&, const Tensor&) const noexcept {}
  };
  template <std::size_t I, class F>
  void step(Result<Tensor>& y, const F& observe) const noexcept {
    if (!y) return;
    const auto& layer = std::get<I>(layers);
    const auto run = [&](const Tensor& t) {
      if constexpr (taken<I + 1>()) {
        return layer.with(t, Part<I + 1>::k_activation);
      } else {
        return layer(t);
      }
    };
    constexpr bool unseen = std::same_as<F, Unseen>;
    if constexpr (unseen && (looks_up<I + 1>() || remade<I + 1>())) {
      return;
    } else if constexpr (unseen && looks_up<I>()) {
      y = after_lookup(std::get<I - 1>(layers), layer, *y);
    } else if constexpr (unseen && remade<I>()) {
      y = rematerialize(*y, std::get<I - 1>(layers), run);
    } else if constexpr (!taken<I>()) {
      y = run(*y);
    }
    if (y) observe(I, layer, *y);
  }
  template <std::size_t I, class Self, class F>
  static void visit_part(Self& self, F& f) {
    auto& part = std::get<I>(self.layers);
    if constexpr (k_is_named<Part<I>>) {
      f(part.name(), part.layer);
    } else {
      f(I, part);
    }
  }
};
template <class L>
inline constexpr bool k_is_chain = false;
template <class... Ls>
inline constexpr bool k_is_chain<Chain<Ls...>> = true;

template <Layer L>
[[nodiscard]] auto as_parts(L layer) noexcept {
  if constexpr (k_is_chain<L>) {
    return std::move(layer.layers);
  } else {
    return std::tuple<L>(std::move(layer));
  }
}
template <Layer... Ls>
[[nodiscard]] Chain<Ls...> as_chain(std::tuple<Ls...> parts) noexcept {
  return {std::move(parts)};
}

// `nn::named("encoder", layer)`: its parameters are called encoder.… ; at most 47 characters.
template <Layer L>
[[nodiscard]] Named<L> named(std::string_view name, L layer) noexcept {
  Named<L> result{.layer = std::move(layer)};
  name.copy(result.text.data(), Named<L>::k_longest);
  return result;
}

// x + f(x)
template <Layer L>
struct Residual {
  static constexpr std::string_view k_name = "residual";
  L body;
  static constexpr auto fields() { return nn::fields("body", &Residual::body); }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return x + body(x); }
};
template <Layer L>
[[nodiscard]] Residual<L> residual(L body) noexcept {
  return {std::move(body)};
}

// n layers of one type, one after the other, each with parameters of its own; made of the pattern when the model is built.
template <class L>
class Repeat {
 public:
  static constexpr std::string_view k_name = "repeat";
  Repeat(std::size_t count, L pattern) noexcept : pattern_(std::move(pattern)), count_(count) {}
  Repeat(Repeat&&) noexcept = default;
  Repeat& operator=(Repeat&&) noexcept = default;
  // A copy of a built one has to be built again.
  Repeat(const Repeat& other) noexcept : pattern_(other.pattern_), count_(other.count_) {}
  Repeat& operator=(const Repeat& other) noexcept { return *this = Repeat(other); }
  ~Repeat() = default;

  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept {
    if (layers_.size() != count_) return fail(Errc::not_built, "repeat", "nn::build the model first", x.shape().dims());
    Result<Tensor> y = x;
    const std::byte* const steps = free_memory(x);
    for (const L& layer : layers_) {
      if (y) y = in_own_frame(*y, layer, steps);
    }
    return y;
  }
  void describe(Writer& out) const noexcept {
    out.value("kind", k_name);
    out.setting("count", static_cast<std::int64_t>(count_));
    nn::describe("pattern", pattern_, out);
  }
  // The copies; none before the model is built.
  [[nodiscard]] const List<L>& layers() const noexcept { return layers_; }
  [[nodiscard]] std::size_t count() const noexcept { return count_; }
  [[nodiscard]] const L& pattern() const noexcept { return pattern_; }
  [[nodiscard]] Status expand_parts() noexcept {
    if (auto room = layers_.reserve(count_); !room) return room;
    while (layers_.size() < count_) {
      if (auto pushed = layers_.push(pattern_); !pushed) return pushed;
    }
    return {};
  }
  template <class Self, class F>
  static void visit_parts(Self& self, F&& f) {
    for (std::size_t i = 0; i < self.layers_.size(); ++i) f(i, self.layers_[i]);
  }

 private:
  L pattern_;
  std::size_t count_;
  List<L> layers_;
};
template <class L>
[[nodiscard]] Repeat<L> repeat(std::size_t count, L pattern) noexcept {
  return {count, std::move(pattern)};
}

// Composes layers. Found by argument look-up wherever one of them is a layer of this namespace.
template <Layer A, Layer B>
  requires std::copy_constructible<A> && std::copy_constructible<B>
[[nodiscard]] auto operator|(A a, B b) noexcept {
  return as_chain(std::tuple_cat(as_parts(std::move(a)), as_parts(std::move(b))));
}

}  // namespace qorus::nn

export namespace qorus {

// Applies a layer. The first error of a pipe is its result.
template <nn::Layer L>
[[nodiscard]] Result<Tensor> operator|(const Operand& x, const L& layer) noexcept {
  if (!x.ok()) return fail(x.error());
  return layer(*x);
}

using nn::operator|;

}  // namespace qorus
