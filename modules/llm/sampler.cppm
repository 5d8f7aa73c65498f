// Choosing the next token from the logits.
export module qorus.llm:sampler;
import qorus.std;
import qorus.memory;

export namespace qorus::llm {

class Session;

struct LogitBias {
  std::int32_t id = 0;
  float add = 0;  // to the token's logit; -infinity forbids it
};

// How a text goes on. What is left at its default does nothing. In this order: bias, penalties, temperature; then either mirostat or
// top_k, typical_p, top_p and min_p; then a draw among what is left.
struct GenerateOptions {
  std::int64_t max_tokens = 128;
  float temperature = 0;   // logits are divided by it; 0: always the most likely token
  int top_k = 0;           // above 0: only so many of the most likely tokens (Fan et al. 2018)
  float top_p = 1;         // below 1: only the most likely that together have this probability (Holtzman et al. 2020)
  float min_p = 0;         // only tokens with this share of the likeliest one's probability (Nguyen et al. 2024)
  float typical_p = 1;     // below 1: only those nearest to the expected surprise, of this mass (Meister et al. 2022)
  float mirostat_tau = 0;  // above 0: mirostat 2 towards this surprise in bits (Basu et al. 2021)
  float mirostat_eta = 0.1f;  // how fast it gets there
  float repetition_penalty =
      1;  // a token seen lately: its logit divided by this if positive, else times it (Keskar et al. 2019)
  float frequency_penalty = 0;  // taken from its logit for each time that it was seen lately
  float presence_penalty = 0;   // taken from its logit once
  int penalty_last = 64;        // how many tokens are "lately", those of the prompt included
  std::uint64_t seed = 0;       // means the same text on every run and number of threads
  std::span<const LogitBias> bias = {};
  std::span<const std::string_view> stop = {};  // texts that end it, and are not given
  bool special = false;                         // control pieces that the prompt spells out are meant as such
  // Up to 64: so many tokens at most are guessed ahead and fed at once, which reads the weights once for all. Those stay that would have been
  // chosen anyway: the text is the same to the byte, only sooner, where guesses come true. Until the end the session may stand ahead of what
  // was said.
  int guess = 0;
  // Who guesses: a session of a smaller model with the same vocabulary, whose first sequence becomes what this one is; null: what
  // followed the last time, within 16384 tokens, that the last two to four of them stood there.
  Session* draft = nullptr;
};

// Draw i depends on the seed and on i alone. After create() it allocates nothing.
class Sampler {
 public:
  Sampler() noexcept = default;
  // Borrows options.bias. Errors: invalid_argument (a number outside its range, which is named; a bias of a token that is not in the
  // vocabulary), out_of_memory.
  [[nodiscard]] static Result<Sampler> create(const GenerateOptions& options, std::size_t vocab) noexcept;
  // logits: [vocab]. `history`: the tokens so far, for the penalties; ids outside the vocabulary count for nothing.
  [[nodiscard]] std::int32_t choose(std::span<const float> logits, std::span<const std::int32_t> history) noexcept;

 private:
  void penalise(std::span<const std::int32_t> history) noexcept;
  void weigh() noexcept;
  void keep_typical() noexcept;
  void keep_top_p() noexcept;
  void keep_min_p() noexcept;
  [[nodiscard]] std::int32_t draw() noexcept;
  [[nodiscard]] std::int32_t mirostat() noexcept;
  [[nodiscard]] double mass() const noexcept;
  [[nodiscard]] float weight(std::int32_t id) const noexcept { return weights_[static_cast<std::size_t>(id)]; }

  GenerateOptions options_;
  List<float> logits_, weights_;       // weights: probabilities times a constant
  List<std::int32_t> order_, counts_;  // candidates; how often each token was seen lately, 0 between the calls
  std::size_t kept_ = 0;               // candidates left: the first of order_
  std::uint64_t step_ = 0;
  double surprise_ = 0;  // mirostat's bound, in bits
};

}  // namespace qorus::llm
