// Images as text, for terminals and test logs.
export module qorus.data:picture;
import qorus.std;
import qorus.tensor;

export namespace qorus::data {

enum class Ink : std::uint8_t {
  blocks,  // half blocks: a character is 1 x 2 pixels
  dots,    // braille: 2 x 4 pixels, so that five digits fit side by side
};

// Writes images […, height, width] (u8, or f32 with 1 as full ink) as UTF-8 lines, side by side with two blanks
// between; a pixel is ink from half the brightest one on. `out` is cut at a character, and always terminated if it has
// room for that; gives the full length, as snprintf does. A tensor that is not one or more images, or is stale, is
// written as its error.
std::size_t write_text(const Tensor& images, std::span<char> out, Ink ink = Ink::blocks) noexcept;
[[nodiscard]] inline std::string to_text(const Tensor& images, Ink ink = Ink::blocks) {
  std::string text(write_text(images, {}, ink), '\0');
  write_text(images, std::span(text.data(), text.size() + 1), ink);
  return text;
}

}  // namespace qorus::data
