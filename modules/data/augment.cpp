// Bodies of qorus.data:augment.
module qorus.data;
import qorus.std;
import :random;

namespace qorus::data {
namespace {

constexpr std::uint64_t k_stream = 0x6175676d656e74;  // apart from shuffles

// Where a pixel of the result comes from: turned, mirrored, moved. Whole numbers stay whole without a turn.
struct Motion {
  float cosine = 1, sine = 0;  // of the turn
  float right = 0, down = 0;   // of the shift
  bool flip = false;
  [[nodiscard]] bool none() const noexcept { return sine == 0 && right == 0 && down == 0 && !flip; }
};

// Bilinear, with `blank` all around.
void move_plane(const Motion& motion, std::int64_t height, std::int64_t width, float blank, const float* from,
                float* to) noexcept {
  const float middle_x = static_cast<float>(width - 1) / 2, middle_y = static_cast<float>(height - 1) / 2;
  const auto at = [&](std::int64_t y, std::int64_t x) {
    return y >= 0 && y < height && x >= 0 && x < width ? from[y * width + x] : blank;
  };
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x, ++to) {
      const float dx = static_cast<float>(x) - middle_x - motion.right;
      const float dy = static_cast<float>(y) - middle_y - motion.down;
      const float turned = motion.cosine * dx + motion.sine * dy;
      const float u = (motion.flip ? -turned : turned) + middle_x;
      const float v = motion.cosine * dy - motion.sine * dx + middle_y;
      const float left = std::floor(u), top = std::floor(v), a = u - left, b = v - top;
      const auto i = static_cast<std::int64_t>(top), j = static_cast<std::int64_t>(left);
      if (a == 0 && b == 0) {
        *to = at(i, j);
      } else {
        *to = (1 - b) * ((1 - a) * at(i, j) + a * at(i, j + 1)) + b * ((1 - a) * at(i + 1, j) + a * at(i + 1, j + 1));
      }
    }
  }
}

void blank_square(int side, std::int64_t channels, std::int64_t height, std::int64_t width, float blank, Random& random,
                  float* image) noexcept {
  const auto y = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(height))) - side / 2;
  const auto x = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(width))) - side / 2;
  const std::int64_t left = std::max<std::int64_t>(x, 0), right = std::min(x + side, width);
  for (std::int64_t c = 0; c < channels; ++c) {
    for (std::int64_t row = std::max<std::int64_t>(y, 0); row < std::min(y + side, height); ++row) {
      float* const line = image + (c * height + row) * width;
      std::fill(line + left, line + right, blank);
    }
  }
}

}  // namespace

Status check_augment(const Augment& options, const Shape& example, DType dtype) noexcept {
  if ((example.rank() != 2 && example.rank() != 3) || example.numel() == 0) {
    return fail(Errc::invalid_size, "augment", "images are [height, width] or [channels, height, width]",
                example.dims());
  }
  if (dtype == DType::i32) return fail(Errc::invalid_dtype, "augment", "images are u8 or f32", example.dims());
  for (const float number : {options.shift, options.rotate, options.brightness, options.contrast, options.noise}) {
    if (!(number >= 0 && number < 1e6f))
      return fail(Errc::invalid_argument, "augment", "a number that is negative, or not finite");
  }
  if (options.cutout < 0) return fail(Errc::invalid_argument, "augment", "a square's side is not negative");
  return {};
}

void augment_image(const Augment& options, const Shape& example, float blank, std::uint64_t key, std::uint64_t number,
                   float* image, float* spare) noexcept {
  Random random(mix(key ^ mix(options.seed)) ^ k_stream, number);
  const std::int64_t height = example[example.rank() - 2], width = example[example.rank() - 1];
  const std::int64_t channels = example.rank() == 3 ? example[0] : 1;
  const std::size_t count = example.numel();
  Motion motion;
  motion.flip = options.flip && random.below(2) == 1;
  if (options.shift > 0) {
    const auto most = static_cast<std::int64_t>(options.shift);
    const auto places = static_cast<std::uint64_t>(2 * most + 1);
    const auto draw = [&] { return static_cast<float>(static_cast<std::int64_t>(random.below(places)) - most); };
    motion.right = draw();
    motion.down = draw();
  }
  if (options.rotate > 0) {
    const float angle = random.between(-options.rotate, options.rotate) * 0.017453293f;
    motion.cosine = std::cos(angle);
    motion.sine = std::sin(angle);
  }
  if (!motion.none()) {
    for (std::int64_t c = 0; c < channels; ++c)
      move_plane(motion, height, width, blank, image + c * height * width, spare + c * height * width);
    std::copy(spare, spare + count, image);
  }
  const float add = options.brightness > 0 ? random.between(-options.brightness, options.brightness) : 0;
  const float gain = options.contrast > 0 ? 1 + random.between(-options.contrast, options.contrast) : 1;
  if (add != 0 || gain != 1) {
    double sum = 0;
    for (std::size_t i = 0; i < count; ++i) sum += static_cast<double>(image[i]);
    const float mean = static_cast<float>(sum / static_cast<double>(count));
    for (std::size_t i = 0; i < count; ++i) image[i] = mean + gain * (image[i] - mean) + add;
  }
  if (options.noise > 0) {
    for (std::size_t i = 0; i < count; ++i) image[i] += options.noise * random.normal();
  }
  if (options.cutout > 0) blank_square(options.cutout, channels, height, width, blank, random, image);
}

}  // namespace qorus::data
