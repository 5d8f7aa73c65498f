// Parameters, and the one list that a layer gives of its members: names and places, from which everything else follows
// (checkpoints, optimizers, initialisation, printing).
export module qorus.nn:param;
import qorus.std;
import qorus.ops;

export namespace qorus::nn {

// What an initialiser makes of a parameter.
enum class Role : std::uint8_t {
  weight,  // [out, in…]: drawn
  bias,    // zeros
  gain,    // ones
};

// A trainable leaf of a model. Unbound (no shape, no memory) until nn::build; a layer asks for it with nn::use.
struct Param {
  Tensor tensor;
  Role role = Role::weight;
  bool trainable = true;
  bool packs = false;  // a weight that products read: nn::Model::pack lays out a copy of it
  bool alone = false;  // in inference that copy alone is read, so that nn::packed keeps nothing else
  Tensor packed = {};  // that copy; stale once a parameter of the model was changed
  // That copy while it is good, else no tensor.
  [[nodiscard]] Tensor good_packed() const noexcept;
  [[nodiscard]] bool bound() const noexcept { return tensor.shape().valid(); }
};

// The parameter as a tensor, for a layer that computes with x. While a model is being built and the parameter is still unbound,
// this is where its shape becomes known. Errors: not_built.
[[nodiscard]] Result<Tensor> use(const Param& param, const Shape& shape, const Tensor& x, const char* layer) noexcept;

// `static constexpr auto fields() { return nn::fields("weight", &Linear::weight, "bias", &Linear::bias); }`
template <class Member>
struct Field {
  std::string_view name;
  Member member;
};
constexpr auto fields() noexcept { return std::tuple<>{}; }
template <class Member, class... More>
constexpr auto fields(std::string_view name, Member member, More... more) noexcept {
  return std::tuple_cat(std::tuple<Field<Member>>({name, member}), fields(more...));
}

// A dotted name under construction: "blocks.3.attn.q_proj.weight".
class Path {
 public:
  // Appends a name (or an index) for the lifetime of the result.
  class Step {
   public:
    Step(Path& path, std::string_view name) noexcept : path_(&path), size_(path.text_.size) {
      if (size_) path.text_ += ".";
      path.text_ += name;
    }
    Step(Path& path, std::size_t index) noexcept : path_(&path), size_(path.text_.size) {
      if (size_) path.text_ += ".";
      path.text_ += static_cast<std::int64_t>(index);
    }
    ~Step() { path_->text_.size = size_; }
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;

   private:
    Path* path_;
    std::uint32_t size_;
  };
  [[nodiscard]] std::string_view view() const noexcept { return text_.view(); }

 private:
  Text text_;
};

// f(name, param) as a plain function, for layers whose types are forgotten.
struct ParamVisitor {
  void* user;
  void (*see)(void* user, std::string_view name, Param& param);
  void operator()(std::string_view name, Param& param) const { see(user, name, param); }
};

// Calls f(name, param) for every parameter of a layer, in the order of the field lists. Layers are walked by their fields(), or,
// where the parts are not members, by a member `visit_parts(layer, f)` that calls f(name or index, part) for each; a layer that has
// forgotten their types has `visit_params(path, visitor)`.
template <class L, class F>
void visit(L& layer, Path& path, F&& f) {
  using Plain = std::remove_const_t<L>;
  if constexpr (std::is_same_v<Plain, Param>) {
    f(path.view(), layer);
  } else if constexpr (requires(ParamVisitor visitor) { layer.visit_params(path, visitor); }) {
    layer.visit_params(
        path, {const_cast<void*>(static_cast<const void*>(&f)), [](void* user, std::string_view name, Param& param) {
                 (*static_cast<std::remove_reference_t<F>*>(user))(name, param);
               }});
  } else if constexpr (requires { Plain::fields(); }) {
    std::apply(
        [&](const auto&... field) {
          (
              [&] {
                const Path::Step step(path, field.name);
                visit(layer.*field.member, path, f);
              }(),
              ...);
        },
        Plain::fields());
  } else if constexpr (requires { Plain::visit_parts(layer, [](auto, auto&) {}); }) {
    Plain::visit_parts(layer, [&](auto name, auto& part) {
      const Path::Step step(path, name);
      visit(part, path, f);
    });
  }
}
template <class L, class F>
void visit(L& layer, F&& f) {
  Path path;
  visit(layer, path, f);
}

// Makes the copies that nn::repeat stands for, in every part. Errors: out_of_memory.
template <class L>
[[nodiscard]] Status expand(L& layer) noexcept {
  Status status;
  if constexpr (requires { layer.expand_parts(); }) status = layer.expand_parts();
  if (!status) return status;
  if constexpr (requires { L::fields(); }) {
    std::apply([&](const auto&... field) { ((status = status ? expand(layer.*field.member) : status), ...); },
               L::fields());
  } else if constexpr (requires { L::visit_parts(layer, [](auto, auto&) {}); }) {
    L::visit_parts(layer, [&](auto, auto& part) {
      if (status) status = expand(part);
    });
  }
  return status;
}

}  // namespace qorus::nn
