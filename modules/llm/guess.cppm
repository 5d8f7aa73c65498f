// Guessing the tokens to come, so that the weights are read once for several of them.
module qorus.llm:guess;
import qorus.std;
import qorus.nn;
import :session;

namespace qorus::llm {

// Guesses what follows a session's first sequence: what a smaller model finds most likely (Leviathan et al. 2023), or what followed
// before (Saxena 2023). How many it guesses follows from how many came true.
class Guesser {
 public:
  // Errors: invalid_argument (a draft of another vocabulary, or that is the session itself), out_of_memory, those of feed.
  [[nodiscard]] static Result<Guesser> create(const Session& session, const GenerateOptions& options) noexcept;
  // Reads what the session has read, so that the first guess need not. Errors: those of feed.
  [[nodiscard]] Status begin() noexcept;
  // `ids` holds the token that comes after the session's: appends up to `most` that may follow it. Allocates nothing once warm.
  // Errors: those of feed.
  [[nodiscard]] Status guess(std::size_t most, List<std::int32_t>& ids) noexcept;
  // How many of those came true.
  void learn(std::size_t guessed, std::size_t accepted) noexcept;

 private:
  [[nodiscard]] Status look_up(std::size_t most, List<std::int32_t>& ids) const noexcept;
  [[nodiscard]] Status ask_draft(std::size_t most, List<std::int32_t>& ids) noexcept;

  const Session* session_ = nullptr;
  Session* draft_ = nullptr;
  List<std::int32_t> missing_;            // what the draft has not read yet
  std::size_t limit_ = 0, most_ = 0;      // at most, ever and now
  std::size_t failures_ = 0, pause_ = 0;  // guesses in a row of which nothing came true; tokens without a guess
};

}  // namespace qorus::llm
