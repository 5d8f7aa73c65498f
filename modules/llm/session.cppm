// A conversation with a model: its KV cache and workspace, sized once; and generation on top of it.
module;
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
export module qorus.llm:session;
import qorus.nn;
import qorus.text;
import :model;
import :sampler;

export namespace qorus::llm {

// Keys and values of every position so far: [layer, kv_head, position, head_dim], f32, in one slab.
class KvCache {
 public:
  KvCache() noexcept = default;
  // Errors: overflow, out_of_memory.
  [[nodiscard]] static Result<KvCache> create(const Config& config, std::int64_t positions) noexcept;
  [[nodiscard]] std::int64_t size() const noexcept { return size_; }          // positions taken
  [[nodiscard]] std::int64_t capacity() const noexcept { return capacity_; }  // positions in all
  // Writes the keys and values [1, kv_heads, n, head_dim] of one layer at the positions after size(): the one place that changes it.
  // Errors: invalid_size (no room, or another shape), stale_tensor.
  [[nodiscard]] Status append(std::int64_t layer, const Tensor& keys, const Tensor& values) noexcept;
  void advance(std::int64_t positions) noexcept { size_ += positions; }  // once all layers have theirs
  void truncate(std::int64_t positions) noexcept { size_ = positions < size_ ? positions : size_; }
  // The first `positions` of one layer: [1, kv_heads, positions, head_dim].
  [[nodiscard]] Tensor keys(std::int64_t layer, std::int64_t positions) const noexcept {
    return view(2 * layer, positions);
  }
  [[nodiscard]] Tensor values(std::int64_t layer, std::int64_t positions) const noexcept {
    return view(2 * layer + 1, positions);
  }

 private:
  [[nodiscard]] Tensor view(std::int64_t half, std::int64_t positions) const noexcept;
  Slab slab_;
  std::int64_t kv_heads_ = 0, head_dim_ = 0, capacity_ = 0, size_ = 0;
};

struct SessionOptions {
  std::int64_t context = 0;  // positions at most, up to 2^20; 0: as many as the model was trained for
  std::int64_t batch = 256;  // tokens of a prompt that are processed at once
  int threads = cpu_count();
};

// Borrows the model, which must outlive it. One thread at a time. After a first token of each kind, it allocates nothing.
class Session {
 public:
  // Errors: invalid_argument, out_of_memory, those of the layers.
  [[nodiscard]] static Result<Session> create(const Model& model, const SessionOptions& options = {}) noexcept;

  // Feeds tokens after those so far, and gives the logits of the last one: [vocab] floats, valid until the next call.
  // Errors: invalid_argument (no tokens; an id outside the vocabulary; more than the context has room for).
  [[nodiscard]] Result<std::span<const float>> feed(std::span<const std::int32_t> ids) noexcept;
  // The same, and calls see(row, logits) for every token fed.
  template <class F>
  [[nodiscard]] Result<std::span<const float>> feed(std::span<const std::int32_t> ids, F&& see) noexcept {
    return feed_all(
        ids,
        [](void* user, std::size_t row, std::span<const float> logits) {
          (*static_cast<std::remove_reference_t<F>*>(user))(row, logits);
        },
        &see);
  }
  [[nodiscard]] std::int64_t position() const noexcept { return cache_.size(); }
  [[nodiscard]] std::int64_t room() const noexcept { return cache_.capacity() - cache_.size(); }  // positions left
  void rewind(std::int64_t position) noexcept { cache_.truncate(position); }  // forgets what came after
  [[nodiscard]] const Model& model() const noexcept { return *model_; }

 private:
  using See = void (*)(void* user, std::size_t row, std::span<const float> logits);
  Session(const Model& model, Workspace workspace) noexcept : model_(&model), workspace_(std::move(workspace)) {}
  [[nodiscard]] Result<std::span<const float>> feed_all(std::span<const std::int32_t> ids, See see,
                                                        void* user) noexcept;
  [[nodiscard]] Status feed_piece(std::span<const std::int32_t> ids, std::size_t first, See see, void* user) noexcept;
  [[nodiscard]] Status tabulate(std::int64_t positions) noexcept;
  [[nodiscard]] Result<Tensor> forward(Scope& frame, const Tensor& ids, bool last_only) noexcept;

  const Model* model_;
  Workspace workspace_;
  KvCache cache_;
  Owned cosine_, sine_;  // of position p and pair i: [context, rope_dim / 2]
  List<float> logits_;
  std::int64_t batch_ = 1;
};

// Why a text ended.
enum class Ending : std::uint8_t { length, end_of_text, stop, told, context };
struct Generated {
  std::size_t prompt_tokens = 0, tokens = 0;
  double prompt_seconds = 0, seconds = 0;
  Ending ending = Ending::length;
};
// Continues a prompt and hands each piece of text, whole characters only, to say(piece); ends at the end-of-text token, after
// max_tokens, at a stop text, at the end of the context, or when say gives false. Once warm, a token allocates nothing.
// Errors: those of feed, of the tokenizer and of Sampler::create; not_found (a model without a tokenizer).
using Say = bool (*)(void* user, std::string_view piece);
[[nodiscard]] Result<Generated> run_generate(Session& session, std::string_view prompt, const GenerateOptions& options,
                                             Say say, void* user) noexcept;
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
