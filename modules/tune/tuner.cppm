// Fine-tuning: a language model of which adapters, or all weights, are trained on rows of tokens.
export module qorus.tune:tuner;
import qorus.std;
import qorus.llm;
import qorus.nn;
import qorus.train;
import :dialogue;

export namespace qorus::tune {

struct TuneOptions {
  bool full = false;  // all weights, which must be f32, f16 or bf16; otherwise adapters of low rank (Hu et al. 2021):
  std::int64_t rank = 8;  // 1 to the least extent of the matrices
  float alpha = 0;        // adapters are scaled by alpha / rank; 0: twice the rank
  // The matrices that get one, with commas between: q, k, v, o, gate, up, down, head, or all (without the head). Experts get none.
  std::string_view targets = "q,v";
  std::uint64_t seed = 0;  // of the adapters' a; b begins at 0
  bool recompute =
      false;  // blocks keep only their input for the backward, which computes them again: more time, less memory
};

// One parameter that is trained.
struct TrainedPart {
  Text name;
  nn::Param param;
  Shape shape{-1};
};
// All of them: a layer that computes nothing, from which nn::build makes their slab.
struct TrainedLayers {
  List<TrainedPart> parts;
  template <class Self, class F>
  static void visit_parts(Self& self, F&& f) {
    for (std::size_t i = 0; i < self.parts.size(); ++i) f(self.parts[i].name.view(), self.parts[i].param);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
};

// How well rows are foretold.
struct Score {
  double loss = 0;  // mean of -ln p of the tokens that count
  std::size_t tokens = 0;
  [[nodiscard]] double perplexity() const noexcept { return std::exp(loss); }
};

// Borrows a model that was opened with lay_out = false and binds its parameters to those that are trained: until the tuner is gone, sessions of the
// model run with them as they are. The base's file is only read. Movable.
class Tuner {
 public:
  // Errors: invalid_argument (rank, alpha or a target that is none; adapters that are there already), unsupported (all weights of a
  // mixture of experts, or of a quantised model, by name), not_found (a target that the model does not have), out_of_memory.
  [[nodiscard]] static Result<Tuner> create(llm::Model& model, const TuneOptions& options = {}) noexcept;
  Tuner(Tuner&&) noexcept = default;
  Tuner& operator=(Tuner&&) noexcept = default;
  ~Tuner();  // the model is what it was before

  [[nodiscard]] nn::Parameters& parameters() noexcept { return trained_; }
  [[nodiscard]] const nn::Parameters& parameters() const noexcept { return trained_; }
  [[nodiscard]] llm::Model& model() const noexcept { return *model_; }
  [[nodiscard]] bool full() const noexcept { return full_; }
  [[nodiscard]] std::int64_t rank() const noexcept { return rank_; }
  [[nodiscard]] float alpha() const noexcept { return alpha_; }
  [[nodiscard]] std::size_t matrices() const noexcept { return trained_.parameters().size() / (full_ ? 1 : 2); }

  // The mean loss over the tokens that count in a batch of rows: x: [batch, 2, context], y: [batch, context], inputs of a tape or a frame. Attention
  // stays within a sample. Positions run on along a row where they are rotary (angles depend on differences alone); learned ones begin
  // anew with each sample. Errors: those of the operations; invalid_size (a context longer than the model has positions for).
  [[nodiscard]] Result<Tensor> loss(const Tensor& x, const Tensor& y) const noexcept;
  // Row by row, without gradients. Errors: as loss; out_of_memory.
  [[nodiscard]] Result<Score> measure(const Rows& rows, int threads = cpu_count()) const noexcept;
  // train::run_fit with this loss; options.loss, forward and metrics are not used. Errors: those of run_fit.
  [[nodiscard]] Result<train::History> fit(const Rows& rows, const train::FitOptions& options) noexcept;

 private:
  explicit Tuner(llm::Model& model, nn::Model<TrainedLayers> trained, const TuneOptions& options) noexcept
      : model_(&model),
        trained_(std::move(trained)),
        rank_(options.rank),
        alpha_(options.alpha),
        full_(options.full),
        recompute_(options.recompute) {}
  struct LayerCall;  // one block, as the tape remembers it
  [[nodiscard]] Result<Tensor> run_block(const llm::Block& block, const Tensor& x, const Tensor& mask,
                                         std::int64_t batch, const std::byte* spent) const noexcept;
  [[nodiscard]] Status make_tables() noexcept;
  [[nodiscard]] Result<Tensor> embed(const Tensor& ids, const Tensor& numbers) const noexcept;
  [[nodiscard]] Result<Tensor> block(const llm::Block& block, const Tensor& x, const Tensor& mask,
                                     std::int64_t batch) const noexcept;
  [[nodiscard]] Result<Tensor> attend(const llm::Block& block, const Tensor& x, const Tensor& mask,
                                      std::int64_t batch) const noexcept;
  [[nodiscard]] Result<Tensor> head(const Tensor& x, const Tensor& targets) const noexcept;

  // A parameter of the model, and what it was bound to.
  struct Bound {
    nn::Param* place;
    Tensor before;
  };
  llm::Model* model_;
  List<Bound> bound_;
  nn::Model<TrainedLayers> trained_;
  Owned cosine_[2], sine_[2];  // of layers that see all positions, and of those with a window: [context, rope_dim / 2]
  std::int64_t rank_ = 0;
  float alpha_ = 0;
  bool full_ = false, recompute_ = false;
};

// Measures rows after each epoch: the record's validation loss, for the callbacks that come after it. Borrows both.
struct Validation {
  const Tuner* tuner = nullptr;
  const Rows* rows = nullptr;
  int threads = 1;
  void operator()(train::Event& event) const noexcept;
};
[[nodiscard]] inline Validation validation(const Tuner& tuner, const Rows& rows, int threads = cpu_count()) noexcept {
  return {&tuner, &rows, threads};
}

}  // namespace qorus::tune
