// A conversation with a model: its KV cache and workspace, sized once; and generation on top of it.
export module qorus.llm:session;
import qorus.std;
import qorus.nn;
import qorus.text;
import :model;
import :cache;
import :config;
import :sampler;

export namespace qorus::llm {

struct SessionOptions {
  std::int64_t context = 0;  // positions of each sequence at most, up to 2^20; 0: as many as the model was trained for
  std::int64_t batch = 256;  // tokens that are processed at once
  int sequences = 1;         // up to 1024; each has a part of the cache of its own
  DType cache = DType::f32;  // or f16, or q8_0
  int threads = cpu_count();
};

// Tokens that follow those of one sequence.
struct SequenceInput {
  int sequence = 0;
  std::span<const std::int32_t> ids;
};

// Borrows the model, which must outlive it. One thread at a time. After a first token of each kind, it allocates nothing.
class Session {
 public:
  // Errors: invalid_argument, out_of_memory, those of KvCache::create.
  [[nodiscard]] static Result<Session> create(const Model& model, const SessionOptions& options = {}) noexcept;

  // Feeds tokens after those so far, and gives the logits of the last one: [vocab] floats, valid until the next call.
  // Errors: invalid_argument (no tokens; an id outside the vocabulary; more than the context has room for).
  [[nodiscard]] Result<std::span<const float>> feed(std::span<const std::int32_t> ids, int sequence = 0) noexcept {
    const SequenceInput input{sequence, ids};
    return feed_all({&input, 1}, nullptr, nullptr);
  }
  // The same, and calls see(row, logits) for every token fed.
  template <class F>
  [[nodiscard]] Result<std::span<const float>> feed(std::span<const std::int32_t> ids, F&& see) noexcept
    requires std::is_invocable_v<F&, std::size_t, std::span<const float>>
  {
    const SequenceInput input{0, ids};
    return feed_all(
        {&input, 1},
        [](void* user, std::size_t row, std::span<const float> logits) {
          (*static_cast<std::remove_reference_t<F>*>(user))(row, logits);
        },
        &see);
  }
  // Several sequences at once, each with tokens of its own: the logits of each one's last token, [inputs, vocab]. A sequence's bits are
  // the same as alone. Errors: also invalid_argument (no such sequence, or one twice).
  [[nodiscard]] Result<std::span<const float>> feed_batch(std::span<const SequenceInput> inputs) noexcept {
    return feed_all(inputs, nullptr, nullptr);
  }
  // Makes `ids` the whole of a sequence: what it begins with already stays, the rest is fed. Gives the logits of the last token.
  [[nodiscard]] Result<std::span<const float>> continue_as(std::span<const std::int32_t> ids,
                                                           int sequence = 0) noexcept;

  [[nodiscard]] std::int64_t position(int sequence = 0) const noexcept { return cache_.size(sequence); }
  [[nodiscard]] std::int64_t room(int sequence = 0) const noexcept {  // positions left
    return cache_.capacity() - cache_.size(sequence);
  }
  [[nodiscard]] std::span<const std::int32_t> tokens(int sequence = 0) const noexcept;  // fed so far
  void rewind(std::int64_t position, int sequence = 0) noexcept {
    cache_.truncate(sequence, position);
  }  // forgets what came after
  // Makes a sequence begin as another one does, for prompts with the same first part. Errors: invalid_argument (no such sequence).
  [[nodiscard]] Status fork(int from, int to, std::int64_t positions) noexcept;
  // A sequence's tokens and cache in a file, which is replaced as a whole or not at all; and back, into a session of the same model
  // and the same kind of cache. Errors: those of AtomicFile and MappedFile; corrupt (not such a file, cut, or damaged),
  // invalid_argument (of another model or kind of cache, or more positions than the context has; no such sequence).
  [[nodiscard]] Status save(std::string_view path, int sequence = 0) noexcept;
  [[nodiscard]] Status restore(std::string_view path, int sequence = 0) noexcept;
  [[nodiscard]] const Model& model() const noexcept { return *model_; }

 private:
  using See = void (*)(void* user, std::size_t row, std::span<const float> logits);
  // A part of an input that is processed with others at once: rows [row, row + count) of the batch.
  struct Piece {
    int sequence;
    std::size_t input;
    std::int64_t row, count, past;
    bool last;  // of its input
  };
  Session(const Model& model, Workspace workspace) noexcept : model_(&model), workspace_(std::move(workspace)) {}
  [[nodiscard]] Status prepare(const SessionOptions& options, std::int64_t context) noexcept;
  [[nodiscard]] Status check(std::span<const SequenceInput> inputs) const noexcept;
  [[nodiscard]] bool has(int sequence) const noexcept { return sequence >= 0 && sequence < cache_.sequences(); }
  [[nodiscard]] Result<std::span<const float>> feed_all(std::span<const SequenceInput> inputs, See see,
                                                        void* user) noexcept;
  [[nodiscard]] Status feed_pieces(See see, void* user, std::size_t first) noexcept;
  void turn_to_positions() noexcept;
  // Makes wanted_: all rows, or each input's last one.
  [[nodiscard]] Status choose_rows(bool all) noexcept;
  // Whether a block goes over the wanted rows alone, once the keys and values of all are kept: the last one, as no other block reads the rest.
  [[nodiscard]] bool narrows(std::int64_t layer) const noexcept {
    return layer + 1 == model_->config().layers && wanted_.size() != ids_.size();
  }
  [[nodiscard]] Result<Tensor> wanted_of(Scope& frame, const Operand& rows) const noexcept;
  [[nodiscard]] Result<Tensor> embed(Scope& frame) noexcept;
  [[nodiscard]] Result<Tensor> forward_block(Scope& frame, std::int64_t layer, const Tensor& x) noexcept;
  [[nodiscard]] Result<Tensor> attend(Scope& frame, std::int64_t layer, const Tensor& x) noexcept;
  [[nodiscard]] Result<Tensor> see_cache(Scope& frame, std::int64_t layer, const Piece& piece,
                                         const Tensor& q) noexcept;
  [[nodiscard]] Status keep_stream(const Result<Tensor>& x) noexcept;
  [[nodiscard]] Status give_logits(Scope& frame, See see, void* user, std::size_t first) noexcept;
  [[nodiscard]] Status ready(std::int64_t layer = -1) const noexcept {
    return waits_ || model_->config().experts > 0 ? model_->ready(layer) : Status{};
  }

  const Model* model_;
  Workspace workspace_;
  KvCache cache_;
  // Of the batch at work: its tokens and their positions, the rows whose logits are wanted, its pieces.
  List<std::int32_t> ids_, positions_, wanted_;
  List<Piece> pieces_;
  Frequencies frequencies_[2];        // of layers that see all positions, and of those with a window
  Owned cosine_[2], sine_[2];         // of the rows of the batch, and pair i: [batch, rope_dim / 2]
  Owned stream_;                      // what flows from block to block: [batch, d_model]
  List<float> logits_;                // [sequences, vocab]
  List<List<std::int32_t>> history_;  // tokens of each sequence
  std::int64_t batch_ = 1;
  bool waits_ = true;  // for layers that are not laid out yet; otherwise they are read as they are stored
};

// Why a text ended.
enum class Ending : std::uint8_t { length, end_of_text, stop, told, context };
struct Generated {
  std::size_t prompt_tokens = 0, tokens = 0;  // read (without those that were there already), and written
  double prompt_seconds = 0, seconds = 0;
  std::size_t guessed = 0, accepted = 0;  // tokens ahead of their turn, and those of them that were right
  Ending ending = Ending::length;
};
// Continues a prompt and hands each piece of text, whole characters only, to say(piece); ends at the end-of-text token, after
// max_tokens, at a stop text, at the end of the context, or when say gives false. Once warm, a token allocates nothing.
// Errors: those of feed, of the tokenizer and of Sampler::create; not_found (a model without a tokenizer); invalid_argument (a draft
// with another vocabulary, or that is the session itself).
using Say = bool (*)(void* user, std::string_view piece);
[[nodiscard]] Result<Generated> run_generate(Session& session, std::string_view prompt, const GenerateOptions& options,
                                             Say say, void* user) noexcept;
// The same from ids: `prompt` becomes the whole of the session's first sequence, of which what it begins with already stays.
[[nodiscard]] Result<Generated> run_generate(Session& session, std::span<const std::int32_t> prompt,
                                             const GenerateOptions& options, Say say, void* user) noexcept;
template <class F>
[[nodiscard]] Result<Generated> generate(Session& session, std::string_view prompt, const GenerateOptions& options,
                                         F&& say) noexcept {
  return run_generate(
      session, prompt, options,
      [](void* user, std::string_view piece) { return bool((*static_cast<std::remove_reference_t<F>*>(user))(piece)); },
      &say);
}
// The same with a session of its own.
template <class F>
[[nodiscard]] Result<Generated> generate(const Model& model, std::string_view prompt, const GenerateOptions& options,
                                         F&& say) noexcept {
  auto session = Session::create(model);
  if (!session) return fail(session.error());
  return generate(*session, prompt, options, say);
}

}  // namespace qorus::llm
