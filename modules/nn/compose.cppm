// Composition beyond the line: branches that are joined, graphs of layers, and layers that change nothing but the gradient.
export module qorus.nn:compose;
import qorus.std;
import qorus.ops;
import :param;
import :layers;
import :description;
import :any;

export namespace qorus::nn {

enum class Join : std::uint8_t {
  concat,    // [f(x), g(x), …] along an axis
  sum,       // f(x) + g(x) + …
  product,   // f(x) g(x) …
  parallel,  // x in equal pieces along the axis, a piece to each branch, their results side by side again
};

// Several layers on one input. Branches are named by index.
class Branches {
 public:
  static constexpr std::string_view k_name = "branches";
  Branches() noexcept = default;
  Branches(Join join, int axis) noexcept : join_(join), axis_(axis) {}
  Branches(Branches&&) noexcept = default;
  Branches& operator=(Branches&&) noexcept = default;
  Branches(const Branches& other) noexcept;
  Branches& operator=(const Branches& other) noexcept { return *this = Branches(other); }
  ~Branches() = default;

  Branches& add(Any layer) noexcept;
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
  [[nodiscard]] Status expand_parts() noexcept { return status_; }
  void describe(Writer& out) const noexcept;
  template <class Self, class F>
  static void visit_parts(Self& self, F&& f) {
    for (std::size_t i = 0; i < self.parts_.size(); ++i) f(i, self.parts_[i]);
  }

 private:
  Join join_ = Join::sum;
  int axis_ = 1;
  List<Any> parts_;
  Status status_;
};
template <class... Ls>
[[nodiscard]] Branches branches(Join join, int axis, Ls... layers) noexcept {
  Branches all(join, axis);
  (all.add(Any(std::move(layers))), ...);
  return all;
}
// [f(x), g(x), …] along axis 1: features of [batch, features], channels of [batch, channels, height, width].
template <Layer... Ls>
[[nodiscard]] Branches concat(Ls... layers) noexcept {
  return branches(Join::concat, 1, std::move(layers)...);
}
// f(x) + g(x) + …
template <Layer... Ls>
[[nodiscard]] Branches branch(Ls... layers) noexcept {
  return branches(Join::sum, 1, std::move(layers)...);
}
// f(x) g(x) …: gated units.
template <Layer... Ls>
[[nodiscard]] Branches gate(Ls... layers) noexcept {
  return branches(Join::product, 1, std::move(layers)...);
}
// Equal pieces of x along axis 1, one to each layer, side by side again.
template <Layer... Ls>
[[nodiscard]] Branches parallel(Ls... layers) noexcept {
  return branches(Join::parallel, 1, std::move(layers)...);
}

// Joins for graphs: of any number of inputs.
struct JoinInputs {
  static constexpr std::string_view k_name = "join";
  Join join = Join::sum;  // not parallel
  int axis = 1;
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("join", self.join);
    f("axis", self.axis);
  }
  [[nodiscard]] Result<Tensor> operator()(std::span<const Tensor> xs) const noexcept;
};
[[nodiscard]] constexpr JoinInputs join_sum() noexcept { return {Join::sum}; }
[[nodiscard]] constexpr JoinInputs join_product() noexcept { return {Join::product}; }
[[nodiscard]] constexpr JoinInputs join_concat(int axis = 1) noexcept { return {Join::concat, axis}; }

// x, cut off from what came before: the backward ends here.
struct Detach {
  static constexpr std::string_view k_name = "detach";
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return ops::detach(x); }
};
[[nodiscard]] constexpr Detach detach() noexcept { return {}; }
// x itself.
struct Identity {
  static constexpr std::string_view k_name = "identity";
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return x; }
};
[[nodiscard]] constexpr Identity identity() noexcept { return {}; }

// A layer with none of its parameters trained: optimizers leave them alone, and what stands before the first trained layer of a
// model costs no backward. Parameters keep their names. Of a built model: Model::freeze.
template <Layer L>
struct Frozen {
  static constexpr std::string_view k_name = "frozen";
  L body;
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return body(x); }
  [[nodiscard]] Status expand_parts() noexcept {
    auto made = expand(body);
    visit(body, [](std::string_view, Param& param) { param.trainable = false; });
    return made;
  }
  void visit_params(Path& path, const ParamVisitor& visitor) const noexcept {
    // Walks of const models see parameters as const: the visitor of such a walk takes them so.
    visit(const_cast<L&>(body), path, visitor);
  }
  void describe(Writer& out) const noexcept {
    describe_inside(body, out);
    out.value("frozen", true);
  }
};
template <Layer L>
[[nodiscard]] Frozen<L> frozen(L layer) noexcept {
  return {std::move(layer)};
}

// Any network without cycles: nodes in the order in which they were added, each a layer and the nodes it reads.
//   nn::Graph g;
//   auto x = g.input();
//   auto a = g.add(nn::linear(8), {x});
//   auto b = g.add(nn::join_sum(), {a, g.add(nn::relu(), {a})}, "sum");
// The last node is the result. Parameters are named by the node's name or index.
class Graph {
 public:
  static constexpr std::string_view k_name = "graph";
  struct Node {
    std::uint32_t index = 0;
  };
  Graph() noexcept = default;
  Graph(Graph&&) noexcept = default;
  Graph& operator=(Graph&&) noexcept = default;
  Graph(const Graph& other) noexcept;
  Graph& operator=(const Graph& other) noexcept { return *this = Graph(other); }
  ~Graph() = default;

  // A place for an input: call the graph with as many tensors as there are. Before the first layer.
  Node input() noexcept;
  // What is wrong (a node of the future, no memory) shows when the graph is built or used.
  template <class L>
  Node add(L layer, std::initializer_list<Node> from, std::string_view name = {}) noexcept {
    return add(Any(std::move(layer)), std::span(from.begin(), from.size()), name);
  }
  Node add(Any layer, std::span<const Node> from, std::string_view name = {}) noexcept;

  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return (*this)(std::span(&x, 1)); }
  // Errors: invalid_argument (another number of inputs, an empty graph), and those of the layers. Allocates in the workspace only.
  [[nodiscard]] Result<Tensor> operator()(std::span<const Tensor> inputs) const noexcept;
  [[nodiscard]] Status expand_parts() noexcept { return status_; }
  void describe(Writer& out) const noexcept;
  template <class Self, class F>
  static void visit_parts(Self& self, F&& f) {
    for (std::size_t i = 0; i < self.parts_.size(); ++i) {
      auto& part = self.parts_[i];
      if (part.name.size) {
        f(part.name.view(), part.layer);
      } else {
        f(i + self.inputs_, part.layer);
      }
    }
  }

 private:
  struct Part {
    Any layer;
    Text name;
    std::uint32_t first = 0, count = 0;  // its inputs in edges_
  };
  std::uint32_t inputs_ = 0;
  List<Part> parts_;
  List<std::uint32_t> edges_;
  Status status_;
};

}  // namespace qorus::nn
