// Any: a layer of a type that is forgotten, for models decided at run time.
export module qorus.nn:any;
import qorus.std;
import qorus.ops;
import :param;
import :layers;
import :description;

export namespace qorus::nn {

// A layer of several inputs, as nn::graph joins branches with.
template <class L>
concept JoinsLayers = requires(const L& layer, std::span<const Tensor> xs) {
  { layer(xs) } -> std::same_as<Result<Tensor>>;
};
template <class L>
concept JoinsTwo = requires(const L& layer, const Tensor& a, const Tensor& b) {
  { layer(a, b) } -> std::same_as<Result<Tensor>>;
};

// Owns a copy of a layer on the heap; a copy of an Any copies the layer. An Any that could not be allocated says so when it is used.
class Any {
 public:
  Any() noexcept = default;
  template <class L>
    requires(!std::same_as<L, Any> && (Layer<L> || JoinsLayers<L> || JoinsTwo<L>))
  explicit Any(L layer) noexcept : type_(&k_type<L>), self_(new(std::nothrow) L(std::move(layer))) {}
  Any(Any&& other) noexcept : type_(other.type_), self_(std::exchange(other.self_, nullptr)) {}
  Any(const Any& other) noexcept : type_(other.type_), self_(other.self_ ? type_->copy(other.self_) : nullptr) {}
  Any& operator=(Any other) noexcept {
    std::swap(type_, other.type_);
    std::swap(self_, other.self_);
    return *this;
  }
  ~Any() {
    if (self_) type_->destroy(self_);
  }

  // Errors: not_built (empty), out_of_memory (its copy), unsupported (a layer of another number of inputs), and the layer's own.
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return (*this)(std::span(&x, 1)); }
  [[nodiscard]] Result<Tensor> operator()(std::span<const Tensor> xs) const noexcept {
    if (auto ok = status(); !ok) return fail(ok.error());
    return type_->call(self_, xs);
  }
  [[nodiscard]] std::string_view kind() const noexcept { return type_ ? type_->kind : std::string_view("none"); }
  [[nodiscard]] Status status() const noexcept {
    if (!type_) return fail(Errc::not_built, "any", "no layer was put in");
    if (!self_) return fail(Errc::out_of_memory, "any", "the system has no more memory for the layer");
    return {};
  }

  [[nodiscard]] Status expand_parts() noexcept {
    if (auto ok = status(); !ok) return ok;
    return type_->expand(self_);
  }
  void visit_params(Path& path, const ParamVisitor& visitor) const noexcept {
    if (self_) type_->visit(self_, path, visitor);
  }
  void describe(Writer& out) const noexcept {
    if (self_) type_->describe(self_, out);
  }

 private:
  struct Type {
    std::string_view kind;
    Result<Tensor> (*call)(const void* self, std::span<const Tensor> xs) noexcept;
    Status (*expand)(void* self) noexcept;
    void (*visit)(void* self, Path& path, const ParamVisitor& visitor) noexcept;
    void (*describe)(const void* self, Writer& out) noexcept;
    void* (*copy)(const void* self) noexcept;
    void (*destroy)(void* self) noexcept;
  };
  template <class L>
  static Result<Tensor> call(const void* self, std::span<const Tensor> xs) noexcept {
    const L& layer = *static_cast<const L*>(self);
    if constexpr (JoinsLayers<L>) {
      return layer(xs);
    } else {
      if constexpr (JoinsTwo<L>) {
        if (xs.size() == 2) return layer(xs[0], xs[1]);
      }
      if constexpr (Layer<L>) {
        if (xs.size() == 1) return layer(xs[0]);
      }
      return fail(Errc::unsupported, "any", "the layer takes another number of inputs");
    }
  }
  template <class L>
  static constexpr std::string_view name_of() noexcept {
    if constexpr (requires { L::k_name; }) {
      return L::k_name;
    } else {
      return "layer";
    }
  }
  template <class L>
  static constexpr Type k_type{
      .kind = name_of<L>(),
      .call = call<L>,
      .expand = [](void* self) noexcept { return nn::expand(*static_cast<L*>(self)); },
      .visit = [](void* self, Path& path,
                  const ParamVisitor& visitor) noexcept { nn::visit(*static_cast<L*>(self), path, visitor); },
      .describe = [](const void* self, Writer& out) noexcept { describe_inside(*static_cast<const L*>(self), out); },
      .copy = [](const void* self) noexcept -> void* { return new (std::nothrow) L(*static_cast<const L*>(self)); },
      .destroy = [](void* self) noexcept { delete static_cast<L*>(self); },
  };

  const Type* type_ = nullptr;
  void* self_ = nullptr;
};

template <class L>
[[nodiscard]] Any any(L layer) noexcept {
  return Any(std::move(layer));
}

// A chain of layers chosen at run time; its parts are named as in a chain, by index or by a name of their own.
class Sequence {
 public:
  static constexpr std::string_view k_name = "chain";
  Sequence() noexcept = default;
  Sequence(Sequence&&) noexcept = default;
  Sequence& operator=(Sequence&&) noexcept = default;
  Sequence(const Sequence& other) noexcept;
  Sequence& operator=(const Sequence& other) noexcept { return *this = Sequence(other); }
  ~Sequence() = default;

  // What could not be added shows when the sequence is used. An empty name: its index.
  template <class L>
  Sequence& add(L layer, std::string_view name = {}) noexcept {
    return push(Any(std::move(layer)), name);
  }
  Sequence& add(Any layer, std::string_view name = {}) noexcept { return push(std::move(layer), name); }
  [[nodiscard]] std::size_t size() const noexcept { return parts_.size(); }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
  [[nodiscard]] Status expand_parts() noexcept { return status_; }
  void describe(Writer& out) const noexcept;
  template <class Self, class F>
  static void visit_parts(Self& self, F&& f) {
    for (std::size_t i = 0; i < self.parts_.size(); ++i) {
      auto& part = self.parts_[i];
      if (part.name.size) {
        f(part.name.view(), part.layer);
      } else {
        f(i, part.layer);
      }
    }
  }

 private:
  struct Part {
    Any layer;
    Text name;
  };
  Sequence& push(Any layer, std::string_view name) noexcept;
  List<Part> parts_;
  Status status_;
};

}  // namespace qorus::nn
