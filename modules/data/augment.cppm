// Augmentation: small random changes of images, others in each epoch, made as batches are.
export module qorus.data:augment;
import qorus.std;
import qorus.tensor;

export namespace qorus::data {

// What may happen to an image, [height, width] or [channels, height, width]: in this order, each with the same chances for every channel.
// What moves in from outside is what a stored 0 stands for. An example's draw depends on the seeds (this one and the shuffle's), the epoch
// and its number alone.
struct Augment {
  bool flip = false;     // left to right, one time in two
  float shift = 0;       // moved by whole pixels, up to so many, in each direction
  float rotate = 0;      // turned about its middle, up to so many degrees either way; bilinear
  float brightness = 0;  // x + b, b up to so much either way (x as the model sees it)
  float contrast = 0;    // mean + (1 + c) (x - mean), c up to so much either way
  float noise = 0;       // x + noise n, n normal
  int cutout = 0;        // side of a square that is blanked, its middle anywhere (DeVries & Taylor 2017)
  std::uint64_t seed = 0;
  [[nodiscard]] constexpr bool any() const noexcept {
    return flip || shift != 0 || rotate != 0 || brightness != 0 || contrast != 0 || noise != 0 || cutout != 0;
  }
};
// A step: `images | shuffle(7) | augment({.flip = true, .shift = 4}) | batch(64)`. The parts of a split are not augmented.
[[nodiscard]] constexpr Augment augment(const Augment& options) noexcept { return options; }

}  // namespace qorus::data

namespace qorus::data {

// Whether examples of this shape and type can be augmented so. Errors: invalid_size (no image), invalid_dtype (i32), invalid_argument
// (numbers below 0 or not finite).
[[nodiscard]] Status check_augment(const Augment& options, const Shape& example, DType dtype) noexcept;
// Changes one image in place. `blank` is what moves in; `spare` has room for the image. The draw is that of (key, number).
void augment_image(const Augment& options, const Shape& example, float blank, std::uint64_t key, std::uint64_t number,
                   float* image, float* spare) noexcept;

}  // namespace qorus::data
