// Model: layers together with the one slab that holds their parameters; and build, which makes it.
export module qorus.nn:model;
import qorus.std;
import qorus.ops;
import :param;
import :layers;
import :loss;
import :init;

export namespace qorus::nn {

// One parameter of a model: its name, its elements, and where it lies in the slab.
struct Parameter {
  Text name;
  Tensor tensor;
  Role role = Role::weight;
  bool trainable = true;
  std::size_t offset = 0;  // in floats
};

// `name` shares the parameter `source`: its gradient is the sum of both uses.
struct Tie {
  std::string_view name, source;
};

// The parameters of a model, in the order of its field lists: a slab (the trainable ones first), each 64-byte aligned, padding 0.
// Gradients and an optimizer's moments have the same layout. Movable, not copyable.
class Parameters {
 public:
  [[nodiscard]] const List<Parameter>& parameters() const noexcept { return list_; }
  // By name. Errors: not_found.
  [[nodiscard]] Result<Tensor> parameter(std::string_view name) const noexcept;
  // How many numbers there are in all; how many of them are trained.
  [[nodiscard]] std::size_t parameter_count() const noexcept;
  [[nodiscard]] std::size_t trainable_count() const noexcept;

  // Overwrites a parameter: loading, and surgery. Not while a tape that used it is open.
  // Errors: not_found, invalid_size (both shapes), invalid_dtype, stale_tensor.
  [[nodiscard]] Status assign(std::string_view name, const Tensor& values) noexcept;

  // Two names for one parameter.
  struct Tied {
    Text name, source;
    Shape shape{-1};  // as the layer of this name asked for it
  };
  [[nodiscard]] const List<Tied>& tied() const noexcept { return tied_; }

  // The trainable part of the slab, for optimizers: parameters change here and nowhere else. Ends what pack() made.
  [[nodiscard]] std::span<float> trainable_slab() noexcept {
    packed_ = Slab();
    return {reinterpret_cast<float*>(slab_.data()), block().floats};
  }
  // What a training step changes beside the trainable parameters (running statistics); what lies in other models is left alone.
  void apply(const StateUpdate* updates) noexcept;  // optimizers do, and who gathers gradients
  // All parameters as slab() gave them, those that are not trained as well. False if the size is another.
  bool restore(std::span<const float> values) noexcept;
  [[nodiscard]] std::span<const float> slab() const noexcept {
    return {reinterpret_cast<const float*>(slab_.data()), slab_.size() / sizeof(float)};
  }
  [[nodiscard]] const Block& block() const noexcept { return *slab_.block(); }

 protected:
  // While a model is built: what a layer said of a parameter, by the parameter's address.
  struct Declared {
    const void* param;
    Dims shape;
  };
  [[nodiscard]] static Status declare(void* builder, const void* param, const Dims& shape) noexcept;
  [[nodiscard]] Status note_ties(std::initializer_list<Tie> ties) noexcept;
  // Both names of every tie must be there. Errors: not_found, invalid_size.
  [[nodiscard]] Status check_ties() const noexcept;
  // Appends the parameter at `param`, if it was declared. Errors: out_of_memory.
  [[nodiscard]] Status enlist(std::string_view name, const Param& param, const List<Declared>& declared) noexcept;
  // Gives every parameter its place in a new slab, which it takes: trainable ones first. Values are not set.
  [[nodiscard]] Status lay_out() noexcept;
  // Fills the slab.
  [[nodiscard]] Status fill(const Initializer& init) noexcept;
  // Lays the slab out anew, with every parameter whose name begins with `prefix` trained or not. Values stay.
  [[nodiscard]] Status retrain(std::string_view prefix, bool trainable) noexcept;
  // Whether a tie joins the member of this name to another.
  [[nodiscard]] bool shares(std::string_view name) const noexcept;
  // Gives the memory of a parameter back to the system, for good; its tensor is stale then.
  void give_up(Param& param) noexcept;
  // The parameter that a member of this name is bound to: its own, or that of a tie.
  [[nodiscard]] const Parameter* bound_to(std::string_view name) const noexcept;

  List<Parameter> list_;
  List<Leaf> leaves_;
  List<Tied> tied_;
  Slab slab_, packed_;
};

struct BuildOptions {
  DType input = DType::f32;              // i32 for models of tokens
  std::initializer_list<Tie> tied = {};  // `{.tied = {{"head.weight", "tokens.weight"}}}`
};

// Layers with their parameters bound. Callable like a layer: `x | model`.
template <Layer L>
class Model : public Parameters {
 public:
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return layers_(x); }
  // loss((*this)(x)), as nn::loss_of has it: what `x | (model | loss)` is.
  [[nodiscard]] Result<Tensor> loss(const Tensor& x, const BoundLoss& loss) const noexcept {
    return loss_of(layers_, x, loss);
  }
  [[nodiscard]] const L& layers() const noexcept { return layers_; }
  // The shape of one example that the model was built for.
  [[nodiscard]] const Shape& input_shape() const noexcept { return input_shape_; }
  [[nodiscard]] DType input_dtype() const noexcept { return input_dtype_; }

  // Lays out a second copy of the weights for the products of inference, which are faster then, most of all for few rows; the
  // same bits. Costs the weights' memory once more (16/9 of it for convolutions of 3 by 3); nn::packed does not. Training and assign()
  // drop it. Errors: out_of_memory.
  [[nodiscard]] Status pack() noexcept {
    return pack_each([](std::string_view, Param&) {});
  }

  [[nodiscard]] static Result<Model> make(L layers, const Shape& example, const Initializer& init,
                                          const BuildOptions& options) noexcept {
    Model model(std::move(layers), example, options.input);
    if (auto done = expand(model.layers_); !done) return fail(done.error());
    List<Declared> declared;
    if (auto done = model.infer(declared); !done) return fail(done.error());
    Status status = model.note_ties(options.tied);
    visit(model.layers_, [&](std::string_view name, const Param& param) {
      if (status) status = model.enlist(name, param, declared);
    });
    if (status) status = model.check_ties();
    if (status) status = model.lay_out();
    if (status) status = model.fill(init);
    if (!status) return fail(status.error());
    model.bind();
    return model;
  }

  // Trains every parameter whose name begins with `prefix` no more (or again): its gradient is not computed, and nothing that comes
  // before the first trained layer costs a backward. Values stay; tensors and optimizers made before do not. Not while a tape is open.
  // Errors: not_found (no such name), out_of_memory.
  [[nodiscard]] Status freeze(std::string_view prefix, bool frozen = true) noexcept {
    auto done = retrain(prefix, !frozen);
    if (done) bind();
    return done;
  }

 private:
  template <Layer>
  friend class Packed;

  // pack(), and done(name, param) after each.
  template <class F>
  [[nodiscard]] Status pack_each(const F& done) noexcept {
    Checked floats = 0;
    visit(layers_, [&](std::string_view, const Param& param) {
      if (param.packs && param.bound())
        floats = (floats + ops::packed_size(param.tensor.shape())).aligned(k_alignment / sizeof(float));
    });
    auto bytes = (floats * sizeof(float)).get("pack");
    if (!bytes) return fail(bytes.error());
    auto slab = Slab::create(*bytes);
    if (!slab) return fail(slab.error());
    packed_ = std::move(*slab);
    std::size_t at = 0;
    Status status;
    visit(layers_, [&](std::string_view name, Param& param) {
      if (!status || !param.packs || !param.bound()) return;
      const std::size_t size = ops::packed_size(param.tensor.shape());
      auto* place = reinterpret_cast<float*>(packed_.data()) + at;
      status = ops::pack_weight(param.tensor, {place, size});
      param.packed = Tensor(packed_.data() + at * sizeof(float), DType::f32,
                            Layout::dense(Shape{static_cast<std::int64_t>(size)}), packed_.lifetime());
      at = align_up(at + size, k_alignment / sizeof(float));
      if (status) done(name, param);
    });
    return status;
  }

  Model(L layers, const Shape& example, DType dtype) noexcept
      : layers_(std::move(layers)), input_shape_(example), input_dtype_(dtype) {}

  // Runs the layers over shapes only; they declare what they need.
  [[nodiscard]] Status infer(List<Declared>& declared) const noexcept {
    Workspace workspace = planning_workspace();
    workspace.context().declare = declare;
    workspace.context().builder = &declared;
    auto frame = workspace.frame();
    auto x = frame.input(Tensor(nullptr, input_dtype_, Layout::dense(input_shape_.inserted(0, 1)), {}));
    if (!x) return fail(x.error());
    if (auto y = layers_(*x); !y) return fail(y.error());
    return {};
  }

  void bind() noexcept {
    visit(layers_, [&](std::string_view name, Param& param) {
      if (const Parameter* own = bound_to(name)) param.tensor = own->tensor;
    });
  }

  L layers_;
  Shape input_shape_;
  DType input_dtype_;
};

// Makes a model of layers: infers every shape from that of one example (without the batch), takes one slab for all parameters and
// fills it. Errors: those of the layers (shapes that do not fit), out_of_memory.
template <Layer L>
[[nodiscard]] Result<Model<L>> build(L layers, const Shape& example, const Initializer& init = init::kaiming(0),
                                     const BuildOptions& options = {}) noexcept {
  return Model<L>::make(std::move(layers), example, init, options);
}

// A model that only computes, with its linear layers' weights in memory once, as products read them fastest (those that are tied, and what
// other layers pack: twice, as after Model::pack()). The same bits. Its weights cannot be read any more: under a tape it gives stale_tensor.
template <Layer L>
class Packed {
 public:
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return model_(x); }
  [[nodiscard]] const L& layers() const noexcept { return model_.layers(); }
  [[nodiscard]] const Shape& input_shape() const noexcept { return model_.input_shape(); }
  [[nodiscard]] DType input_dtype() const noexcept { return model_.input_dtype(); }
  [[nodiscard]] std::size_t parameter_count() const noexcept { return model_.parameter_count(); }

  [[nodiscard]] static Result<Packed> make(Model<L>&& model) noexcept {
    auto done = model.pack_each([&](std::string_view name, Param& param) {
      if (param.alone && !model.shares(name)) model.give_up(param);
    });
    if (!done) return fail(done.error());
    return Packed(std::move(model));
  }

 private:
  explicit Packed(Model<L>&& model) noexcept : model_(std::move(model)) {}
  Model<L> model_;
};
// The model packed; it is left as it was if that fails. The weights that are there once afterwards are laid out one by one, each given back
// before the next. Errors: out_of_memory.
template <Layer L>
[[nodiscard]] Result<Packed<L>> packed(Model<L>&& model) noexcept {
  return Packed<L>::make(std::move(model));
}

// A model that ends in a loss: the scores of one that ends in a linear layer without bias, or is a language model, are never whole in memory
// if the loss is cross-entropy: `x | (model | loss::cross_entropy(y))`. Used while the model is there.
template <Layer L>
struct UnderLoss {
  const Model<L>* model;
  BoundLoss bound;
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return model->loss(x, bound); }
};
template <Layer L>
[[nodiscard]] UnderLoss<L> operator|(const Model<L>& model, BoundLoss loss) noexcept {
  return {&model, std::move(loss)};
}

struct PlanOptions {
  bool training = false;  // with tape, backward and gradients
  int threads = cpu_count();
};

// Bytes of workspace scratch that one pass over `input` (its shape with the batch) takes, computed from shapes alone.
// Errors: those of the layers.
template <Layer L>
[[nodiscard]] Result<std::size_t> plan(const L& model, const Shape& input, const PlanOptions& options = {},
                                       DType dtype = DType::f32) noexcept {
  Workspace workspace = planning_workspace(options.threads);
  const Tensor x(nullptr, dtype, Layout::dense(input), {});
  if (options.training) {
    auto tape = workspace.record();
    auto done = tape.input(x)
                    .and_then([&](const Tensor& t) { return model(t); })
                    .and_then([](const Tensor& y) { return ops::sum(y); })
                    .and_then(backward);
    if (!done) return fail(done.error());
  } else {
    auto frame = workspace.frame();
    auto y = frame.input(x).and_then([&](const Tensor& t) { return model(t); });
    if (!y) return fail(y.error());
  }
  return workspace.counters().high_water;
}

}  // namespace qorus::nn

export namespace qorus {
// A model that could not be built passes its error on.
template <nn::Layer L>
[[nodiscard]] Result<Tensor> operator|(const Operand& x, const Result<nn::Model<L>>& model) noexcept {
  if (!x.ok()) return fail(x.error());
  if (!model) return fail(model.error());
  return (*model)(*x);
}
}  // namespace qorus
