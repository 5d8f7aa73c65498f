// The last line of a program: what came of it, or why not, and the exit code that says so.
export module qorus.train:report;
import qorus.nn;
import :fit;

export namespace qorus {

// Writes the error to the standard error stream, if it is one. 0 or 1, for main to return.
[[nodiscard]] int report(const Error& error) noexcept;
[[nodiscard]] int report(const train::History& history) noexcept;  // one line on standard output
template <class T>
[[nodiscard]] int report(const Result<T>& result) noexcept {
  if (!result) return report(result.error());
  return 0;
}
template <nn::Layer L>
[[nodiscard]] int report(const Result<train::Fit<L>>& result) noexcept {
  if (!result) return report(result.error());
  return report(result->history);
}
[[nodiscard]] inline int report(const Result<train::History>& result) noexcept {
  return result ? report(*result) : report(result.error());
}

}  // namespace qorus
