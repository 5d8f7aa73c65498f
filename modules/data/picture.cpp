// Bodies of qorus.data:picture.
module qorus.data;
import qorus.std;

namespace qorus::data {
namespace {

// Takes text as snprintf does: keeps what fits, counts all.
class Sink {
 public:
  explicit Sink(std::span<char> out) noexcept : out_(out) {}
  void put(std::string_view piece) noexcept {
    if (!full_ && size_ + piece.size() < out_.size()) {
      std::memcpy(out_.data() + size_, piece.data(), piece.size());
      kept_ = size_ + piece.size();
    } else {
      full_ = true;  // whole characters only
    }
    size_ += piece.size();
  }
  // A character of three bytes (U+0800 to U+FFFF).
  void put(char32_t c) noexcept {
    const char bytes[] = {static_cast<char>(0xe0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
                          static_cast<char>(0x80 | (c & 63))};
    put(std::string_view(bytes, 3));
  }
  std::size_t finish() noexcept {
    if (!out_.empty()) out_[kept_] = 0;
    return size_;
  }

 private:
  std::span<char> out_;
  std::size_t size_ = 0, kept_ = 0;
  bool full_ = false;
};

// Images whose pixels are ink or paper.
class Pixels {
 public:
  explicit Pixels(const Tensor& images) noexcept : images_(images) {
    const std::size_t n = images.numel();
    float brightest = 0;
    for (std::size_t i = 0; i < n; ++i) brightest = std::max(brightest, value(i));
    threshold_ = 0.5f * brightest;
  }
  bool ink(std::size_t image, std::int64_t row, std::int64_t column) const noexcept {
    const std::int64_t height = images_.dim(-2), width = images_.dim(-1);
    if (row >= height || column >= width) return false;
    const float v =
        value(image * static_cast<std::size_t>(height * width) + static_cast<std::size_t>(row * width + column));
    return v > 0 && v >= threshold_;
  }

 private:
  float value(std::size_t i) const noexcept {
    return images_.dtype() == DType::u8 ? static_cast<float>(images_.u8()[i]) : images_.f32()[i];
  }
  const Tensor& images_;
  float threshold_;
};

void put_block(Sink& sink, const Pixels& pixels, std::size_t image, std::int64_t row, std::int64_t column) noexcept {
  const bool upper = pixels.ink(image, 2 * row, column), lower = pixels.ink(image, 2 * row + 1, column);
  if (!upper && !lower) return sink.put(std::string_view(" "));
  sink.put(upper && lower ? U'█' : upper ? U'▀' : U'▄');
}

void put_dots(Sink& sink, const Pixels& pixels, std::size_t image, std::int64_t row, std::int64_t column) noexcept {
  constexpr int k_bits[4][2] = {
      {0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};  // Unicode's numbering of the dots
  int dots = 0;
  for (int r = 0; r < 4; ++r) {
    for (int c = 0; c < 2; ++c) {
      if (pixels.ink(image, 4 * row + r, 2 * column + c)) dots |= k_bits[r][c];
    }
  }
  if (dots == 0) return sink.put(std::string_view(" "));
  sink.put(static_cast<char32_t>(0x2800 + dots));
}

Status check_images(const Tensor& images) noexcept {
  if (auto ok = images.check("to_text"); !ok) return ok;
  if (images.dtype() != DType::u8 && images.dtype() != DType::f32)
    return fail(Errc::invalid_dtype, "to_text", "images are u8 or f32");
  if (images.rank() < 2)
    return fail(Errc::invalid_size, "to_text", "images [..., height, width]", images.shape().dims());
  if (!images.contiguous())
    return fail(Errc::invalid_argument, "to_text", "images are contiguous", images.shape().dims());
  return {};
}

}  // namespace

std::size_t write_text(const Tensor& images, std::span<char> out, Ink ink) noexcept {
  Sink sink(out);
  if (auto ok = check_images(images); !ok) {
    sink.put(ok.error().message().view());
    return sink.finish();
  }
  if (images.numel() == 0) return sink.finish();
  const Pixels pixels(images);
  const std::int64_t height = images.dim(-2), width = images.dim(-1);
  const std::size_t count = images.numel() / static_cast<std::size_t>(height * width);
  const std::int64_t across = ink == Ink::blocks ? 1 : 2, down = ink == Ink::blocks ? 2 : 4;
  for (std::int64_t row = 0; row * down < height; ++row) {
    for (std::size_t image = 0; image < count; ++image) {
      if (image) sink.put(std::string_view("  "));
      for (std::int64_t column = 0; column * across < width; ++column) {
        (ink == Ink::blocks ? put_block : put_dots)(sink, pixels, image, row, column);
      }
    }
    sink.put(std::string_view("\n"));
  }
  return sink.finish();
}

}  // namespace qorus::data
