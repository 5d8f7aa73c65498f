// Failure as a value: Errc, Error, Result and the few functions that make them. Nothing here allocates.
export module qorus.memory:error;
import qorus.std;

export namespace tl {
using tl::expected;
using tl::unexpected;
using tl::operator==;
using tl::operator!=;
}  // namespace tl

export namespace qorus {

enum class Errc : std::uint8_t {
  ok,
  invalid_argument,  // a value that the function does not accept
  aliasing,          // an output overlaps an input
  overflow,          // a size or count does not fit its type
  misaligned,        // an address or offset lacks the alignment it needs
  invalid_dtype,     // an element type that the operation does not have
  invalid_size,      // shapes or lengths that do not go together
  out_of_memory,     // the system, or an arena of fixed size, has no more
  stale_tensor,      // used after its frame was rewound or its owner is gone
  no_workspace,      // no operand carries a workspace: begin with tape.input or workspace.input
  not_built,         // a layer whose parameters were never bound: nn::build first
  not_found,         // a file, tensor or name that is not there
  io,                // the operating system refused
  corrupt,           // bytes that are not a valid file of their format
  unsupported,       // valid, but not something that this version does
  diverged,          // a loss or gradient that is not finite
};
inline constexpr int k_errc_count = 16;

// The code's name as written above.
[[nodiscard]] std::string_view to_string(Errc code) noexcept;

inline constexpr int k_max_rank = 6;

// A list of at most six extents, stored inline. rank < 0 means "none".
struct Dims {
  std::array<std::int64_t, k_max_rank> extent{};
  std::int8_t rank = -1;
  friend bool operator==(const Dims&, const Dims&) = default;
};

// A line of text of its own, cut at its end if it would be longer.
struct Text {
  std::array<char, 400> bytes{};
  std::uint32_t size = 0;

  [[nodiscard]] const char* c_str() const noexcept { return bytes.data(); }
  [[nodiscard]] std::string_view view() const noexcept { return {bytes.data(), size}; }
  Text& operator+=(std::string_view more) noexcept;
  Text& operator+=(std::int64_t number) noexcept;
};

// What went wrong, where, and with which shapes. Trivially copyable; text is put together only by message().
struct Error {
  Errc code = Errc::ok;
  std::int32_t system = 0;         // errno, where the operating system had a say
  const char* op = "";             // the function, e.g. "matmul"; static
  const char* text = "";           // what was expected; static
  Dims first, second;              // the shapes at fault, if any
  std::array<char, 96> subject{};  // a file, tensor or option by name; a long one keeps its end
  std::source_location where = std::source_location::current();

  // One line: `matmul: invalid size: [32,128] and [64,10]: inner sizes differ`.
  [[nodiscard]] Text message() const noexcept;
  // This error with the name of the thing at fault.
  [[nodiscard]] Error about(std::string_view name) const noexcept;
};

template <class T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

// `return fail(Errc::invalid_size, "matmul", "inner sizes differ", a, b);`
[[nodiscard]] inline tl::unexpected<Error> fail(Errc code, const char* op, const char* text, const Dims& first = {},
                                                const Dims& second = {},
                                                std::source_location where = std::source_location::current()) noexcept {
  return tl::unexpected<Error>(
      Error{.code = code, .op = op, .text = text, .first = first, .second = second, .where = where});
}
// The same, about something that has a name (a path, a tensor, an option).
[[nodiscard]] inline tl::unexpected<Error> fail(Errc code, const char* op, const char* text, std::string_view subject,
                                                std::source_location where = std::source_location::current()) noexcept {
  return tl::unexpected<Error>(Error{.code = code, .op = op, .text = text, .where = where}.about(subject));
}
// Hands an error on.
[[nodiscard]] inline tl::unexpected<Error> fail(const Error& error) noexcept { return tl::unexpected<Error>(error); }

// An error of the operating system: errno is `system`, the subject usually a path.
[[nodiscard]] tl::unexpected<Error> fail_system(int system, const char* op, const char* text, std::string_view subject,
                                                std::source_location where = std::source_location::current()) noexcept;

}  // namespace qorus
