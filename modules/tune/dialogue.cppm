// What a language model is taught from: conversations in JSON lines, or plain text; as tokens, of which those of the answers count; packed into
// rows of one length.
export module qorus.tune:dialogue;
import qorus.std;
import qorus.data;
import qorus.llm;

export namespace qorus::tune {

// Tokens of one conversation, or of a piece of text.
struct Sample {
  List<std::int32_t> ids;
  List<std::uint8_t> counts;  // for each: 1 where the model is to foretell it
};

struct SampleOptions {
  std::int64_t context = 0;  // tokens that a sample may foretell at most; 0: as many as the model was trained for
  // How a conversation is spelled, in Jinja. Empty: as the model's own template has it; where there is none, or with `plain`, a prompt is
  // followed by its response and the token that ends a text.
  std::string_view jinja = {};
  bool plain = false;
};

// Appends the samples of a file or of all files of a folder and its folders, in the order of their names. Files named *.jsonl or *.json hold JSON, one
// object on each line: {"prompt": TEXT, "response": TEXT}, in which the response counts, or {"messages": [{"role": ROLE, "content": TEXT}, …]} with
// roles system, user, assistant (and others that the template knows), in which what the assistant says counts. Other files are text: cut
// into pieces of the context, in which everything counts. Errors, with file and line: not_found, io; corrupt (a line that is no JSON, or
// lacks a part; a role that is no text), invalid_argument (no response; the template refuses the conversation), invalid_size (a
// sample longer than the context, both lengths), not_found (messages without a template), those of the tokenizer; out_of_memory.
[[nodiscard]] Status read_samples(std::string_view path, const llm::Model& model, const SampleOptions& options,
                                  List<Sample>& samples) noexcept;

// Rows ready for training: inputs [rows, 2, context] i32, ids and below them the number of the sample within its row, which attention does not
// leave; targets [rows, context] i32, the token to foretell at each place, -1 where none is.
struct Rows {
  Owned inputs, targets;
  std::size_t count = 0, samples = 0;
  std::size_t places = 0, tokens = 0;  // taken by samples, and those of them that count
  std::int64_t context = 0;
  [[nodiscard]] data::Examples examples() const noexcept;  // of all rows; borrowed
};

// Packs samples into as few rows as first-fit gives, in the order of `order` (indices; empty: as they come). The rows are shorter than the
// context if all samples together are. Errors: invalid_size (no samples; one longer than the context), out_of_memory, overflow.
[[nodiscard]] Result<Rows> pack_rows(std::span<const Sample> samples, std::span<const std::uint32_t> order,
                                     std::int64_t context) noexcept;

// Numbers 0 to count - 1 shuffled by the seed, for cutting samples in those to learn from and those to validate with. Errors: out_of_memory.
[[nodiscard]] Result<List<std::uint32_t>> shuffled(std::size_t count, std::uint64_t seed) noexcept;

}  // namespace qorus::tune
