// The numbers and switches of a language model, read from the metadata of its file, and the table of architectures.
export module qorus.llm:config;
import qorus.std;
import qorus.ops;
import qorus.io;
import qorus.text;

export namespace qorus::llm {

// Which way the angles of rotary positions are stretched for contexts beyond those of the first training.
struct RopeScaling {
  enum class Kind : std::uint8_t {
    none,
    linear,   // positions divided by the factor
    dynamic,  // the base grows with the context (NTK-aware); here with the session's, so that a position keeps its angle
    yarn,     // fast pairs stay, slow ones are divided, those between are mixed (Peng et al. 2023)
    llama3,   // the same by wavelength, as Llama 3.1 does it
    longrope,  // a factor for each pair, one list for short and one for long contexts (Phi-3)
  };
  Kind kind = Kind::none;
  float factor = 1;
  float original_context = 0;           // of the first training
  float low_freq = 1, high_freq = 4;    // llama3
  float beta_fast = 32, beta_slow = 1;  // yarn
  bool truncate = true;                 // yarn: whether the bounds are rounded to whole pairs
  float attention_factor = 0;           // cosine and sine are multiplied by it; 0: as the kind has it
};

// Rotary positions of one kind of layer.
struct Rope {
  std::int64_t dim = 0;  // elements of a head that turn
  float base = 10000;
  RopeScaling scaling;
};

// What an architecture has that is not a number in its files.
struct Architecture {
  std::string_view gguf, hugging_face;  // its name in either kind of file
  bool layer_norm = false;              // layer norms with a bias instead of RMS norms
  bool gated = true;                    // feed-forward: down(act(gate x) * up x) instead of down(act(up x))
  bool learned_positions = false;       // an embedding of positions instead of rotary ones
  bool interleaved = false;  // GGUF: rotary pairs are neighbours (elsewhere halves, and in safetensors always)
  bool qkv_bias = false, all_bias = false;  // which biases must be there; others are taken where they are
  bool qk_norm = false,
       post_norms = false;         // RMS norms of each head's query and key; norms after both halves of a block
  bool norms_lack_one = false;     // safetensors: norms are stored as weight - 1
  bool scales_embedding = false;   // by sqrt(d_model)
  bool transposed = false;         // safetensors: products stored as [in, out]
  bool normalises_experts = true;  // the shares of the chosen experts add up to 1
  std::int64_t window_period = 0;  // every so many layers one sees all positions; 0: none does, if there is a window
  Activation activation = Activation::silu;
};
// By the name in GGUF files (general.architecture) or in config.json (model_type). Null if there is none.
[[nodiscard]] const Architecture* architecture_of_gguf(std::string_view name) noexcept;
[[nodiscard]] const Architecture* architecture_of_hugging_face(std::string_view name) noexcept;

struct Config {
  const Architecture* architecture = nullptr;
  std::int64_t layers = 0, d_model = 0, heads = 0, kv_heads = 0, head_dim = 0, d_ff = 0, vocab = 0;
  std::int64_t context = 0;  // positions that the model was trained for
  float norm_eps = 1e-5f;
  Activation activation = Activation::silu;
  ops::RopePairs pairs = ops::RopePairs::halves;
  Rope rope, local_rope;            // of layers that see all positions, and of those with a window
  std::int64_t window = 0;          // positions that a layer with a window sees; 0: all
  std::int64_t window_period = 0;   // layer i has the window unless (i + 1) is a multiple of this; 0: every layer has
  std::int64_t first_windowed = 0;  // earlier layers have none
  float embedding_scale = 1;
  float attention_scale = 0;               // 0: 1 / sqrt(head_dim)
  float attention_cap = 0, logit_cap = 0;  // above 0: cap tanh(x / cap) for x
  std::int64_t experts = 0, experts_used = 0, expert_ff = 0, shared_ff = 0;
  std::int64_t expert_period = 1,
               first_expert = 0;  // layer i has experts if i >= first and (i + 1) is a multiple of the period
  bool normalises_experts = true;
  List<float> long_factors, short_factors;  // longrope

  [[nodiscard]] bool windowed(std::int64_t layer) const noexcept {
    return window > 0 && layer >= first_windowed && (window_period == 0 || (layer + 1) % window_period != 0);
  }
  [[nodiscard]] bool has_experts(std::int64_t layer) const noexcept {
    return experts > 0 && layer >= first_expert && (layer + 1) % expert_period == 0;
  }
};

// Errors: unsupported (an architecture or a kind of rope scaling, by name), not_found, invalid_dtype (a key), invalid_argument (numbers
// that make no model), out_of_memory. The vocabulary is not in all metadata: it may be 0 then.
[[nodiscard]] Result<Config> read_config(const io::Gguf& file) noexcept;
[[nodiscard]] Result<Config> read_config(const text::JsonValue& config) noexcept;  // config.json of Hugging Face
// Whether the numbers make a model at all.
[[nodiscard]] Status check_config(const Config& config) noexcept;

// How far the pairs of a head turn from one position to the next, [dim / 2], in a session of so many positions; cosine and sine are
// to be multiplied by `scale`.
struct Frequencies {
  List<double> turn;
  float scale = 1;
};
[[nodiscard]] Result<Frequencies> frequencies(const Rope& rope, const Config& config, std::int64_t context) noexcept;

}  // namespace qorus::llm
