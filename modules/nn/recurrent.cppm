// Recurrent layers: RNN, LSTM and GRU, stacked and in both directions, with PyTorch's parameter names and formulas.
export module qorus.nn:recurrent;
import qorus.std;
import qorus.ops;
import :param;
import :layers;

export namespace qorus::nn {

// The parameters of one layer and direction: weight_ih [gates hidden, in], weight_hh [gates hidden, hidden], biases [gates hidden].
struct RecurrentPart {
  Param weight_ih{.packs = true}, weight_hh{.packs = true}, bias_ih{.role = Role::bias}, bias_hh{.role = Role::bias};
};

struct RecurrentOptions {
  std::int64_t layers = 1;
  bool bidirectional = false;  // the directions' results side by side: [forward, backward]
  bool bias = true;
  float dropout = 0;  // between layers, while a tape records
};
// Where sequences begin and end. States: [layers directions, batch, hidden], in PyTorch's order; default: zeros. lengths: [batch] i32.
struct RecurrentStart {
  Result<Tensor> h = Tensor(), c = Tensor(), lengths = Tensor();
};
// y: [batch, seq, directions hidden]; h, c: the final states, as in RecurrentStart.
struct RecurrentResult {
  Tensor y, h, c;
};

// The state of a recurrent layer between calls of step(): memory of its own, sized once.
struct RecurrentState {
  Owned h, c;  // [layers, batch, hidden]
};

// What RNN, LSTM and GRU have in common. x: [batch, seq, in].
class Recurrent {
 public:
  Recurrent(ops::Cell cell, std::int64_t hidden, const RecurrentOptions& options, bool relu = false) noexcept
      : cell_(cell), hidden_(hidden), options_(options), relu_(relu) {}
  Recurrent(Recurrent&&) noexcept = default;
  Recurrent& operator=(Recurrent&&) noexcept = default;
  // A copy of a built one has to be built again.
  Recurrent(const Recurrent& other) noexcept : Recurrent(other.cell_, other.hidden_, other.options_, other.relu_) {}
  Recurrent& operator=(const Recurrent& other) noexcept { return *this = Recurrent(other); }
  ~Recurrent() = default;

  // y alone, from a state of zeros.
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
  // y for x = table[ids], each row of the table multiplied once: what a chain makes of `embedding | lstm` where there are more ids, [batch,
  // seq], than rows, [n, in]. The same bits as of x; gradients are sums in another order.
  [[nodiscard]] Result<Tensor> looked_up(const Tensor& table, const Tensor& ids) const noexcept;
  // Errors: not_built, and those of ops::recurrent.
  [[nodiscard]] Result<RecurrentResult> run(const Tensor& x, const RecurrentStart& start = {}) const noexcept;
  // A state of zeros for `batch` sequences. Allocates. Errors: out_of_memory.
  [[nodiscard]] Result<RecurrentState> state(std::int64_t batch) const noexcept;
  // One step: x: [batch, in] to [batch, hidden]; the state is overwritten. Allocates nothing when warm. Not while a tape records.
  // Errors: invalid_argument (bidirectional, or a tape records), invalid_size (the state is for another batch).
  [[nodiscard]] Result<Tensor> step(const Tensor& x, RecurrentState& state) const noexcept;

  [[nodiscard]] ops::Cell cell() const noexcept {
    return cell_ == ops::Cell::rnn && relu_ ? ops::Cell::rnn_relu : cell_;
  }
  [[nodiscard]] std::int64_t hidden() const noexcept { return hidden_; }
  [[nodiscard]] const RecurrentOptions& options() const noexcept { return options_; }

  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("hidden", self.hidden_);
    f("layers", self.options_.layers);
    f("bidirectional", self.options_.bidirectional);
    f("bias", self.options_.bias);
    f("dropout", self.options_.dropout);
    if (self.cell_ != ops::Cell::lstm && self.cell_ != ops::Cell::gru) f("relu", self.relu_);
  }
  [[nodiscard]] Status expand_parts() noexcept;
  // Parameters are named weight_ih_l0, …, bias_hh_l1_reverse.
  template <class Self, class F>
  static void visit_parts(Self& self, F&& f) {
    for (std::size_t i = 0; i < self.parts_.size(); ++i) {
      auto& part = self.parts_[i];
      f(self.name_of("weight_ih", i).view(), part.weight_ih);
      f(self.name_of("weight_hh", i).view(), part.weight_hh);
      if (!self.options_.bias) continue;
      f(self.name_of("bias_ih", i).view(), part.bias_ih);
      f(self.name_of("bias_hh", i).view(), part.bias_hh);
    }
  }

 private:
  [[nodiscard]] std::int64_t directions() const noexcept { return options_.bidirectional ? 2 : 1; }
  [[nodiscard]] Text name_of(std::string_view parameter, std::size_t part) const noexcept;
  // steps: x, or ids where x is a table.
  [[nodiscard]] Result<RecurrentResult> run_all(const Tensor& x, const Tensor& steps,
                                                const RecurrentStart& start) const noexcept;
  [[nodiscard]] Result<ops::CellStates> run_part(std::size_t part, const Tensor& x, const RecurrentStart& start,
                                                 const Tensor& ids = {}) const noexcept;

  ops::Cell cell_;
  std::int64_t hidden_;
  RecurrentOptions options_;
  bool relu_ = false;  // of an RNN: instead of tanh
  List<RecurrentPart> parts_;
};

template <ops::Cell C>
struct RecurrentLayer : Recurrent {
  static constexpr std::string_view k_name = C == ops::Cell::lstm ? "lstm" : C == ops::Cell::gru ? "gru" : "rnn";
  explicit RecurrentLayer(std::int64_t hidden = 0, const RecurrentOptions& options = {}, bool relu = false) noexcept
      : Recurrent(C, hidden, options, relu) {}
};
using Lstm = RecurrentLayer<ops::Cell::lstm>;
using Gru = RecurrentLayer<ops::Cell::gru>;
using Rnn = RecurrentLayer<ops::Cell::rnn>;

[[nodiscard]] inline Lstm lstm(std::int64_t hidden, const RecurrentOptions& options = {}) noexcept {
  return Lstm(hidden, options);
}
[[nodiscard]] inline Gru gru(std::int64_t hidden, const RecurrentOptions& options = {}) noexcept {
  return Gru(hidden, options);
}
// With tanh, or relu.
[[nodiscard]] inline Rnn rnn(std::int64_t hidden, const RecurrentOptions& options = {}, bool relu = false) noexcept {
  return Rnn(hidden, options, relu);
}

// The last step of each sequence: [batch, seq, …] to [batch, …].
struct LastStep {
  static constexpr std::string_view k_name = "last_step";
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return ops::select(x, 1, -1); }
};
[[nodiscard]] constexpr LastStep last_step() noexcept { return {}; }

}  // namespace qorus::nn
