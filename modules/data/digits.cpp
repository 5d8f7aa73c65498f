// Bodies of qorus.data:digits. A glyph is a few strokes in a unit box (x right, y down); an example is one of its
// class's glyphs, bent by a random cubic field, slanted, turned, scaled and placed, then drawn with a round pen. No
// function of the C library is involved, so that the same seed draws the same bytes on every machine.
module qorus.data;
import qorus.std;
import :random;

namespace qorus::data {
namespace {

constexpr int k_side = 28;
constexpr int k_max_points = 16, k_max_strokes = 3;
// Examples for training are numbered below this, those for testing from it on.
constexpr std::uint64_t k_test_stream = std::uint64_t{1} << 32;
constexpr std::size_t k_max_count = std::size_t{1} << 31;

struct Point {
  float x, y;
};
// A smooth curve through its points, or straight lines from one to the next.
enum Line : std::uint8_t { k_smooth, k_sharp };
struct Stroke {
  Line line = k_smooth;
  int count = 0;
  struct {
    std::int8_t x, y;
  } points[k_max_points] = {};
};
struct Glyph {
  int digit;
  Stroke strokes[k_max_strokes];
};

// Coordinates in hundredths of the box.
// clang-format off
constexpr Glyph k_glyphs[] = {
    {0, {{k_smooth, 10, {{55, 0}, {28, 8}, {12, 42}, {16, 76}, {42, 100}, {72, 90}, {88, 55}, {82, 20},
                       {58, 1}, {40, 4}}}}},
    {0, {{k_smooth, 9, {{50, 2}, {18, 16}, {8, 50}, {20, 88}, {50, 100}, {82, 86}, {92, 50}, {80, 14}, {48, 0}}}}},
    {1, {{k_sharp, 2, {{50, 0}, {50, 100}}}}},
    {1, {{k_sharp, 3, {{30, 20}, {54, 0}, {54, 100}}}}},
    {1, {{k_sharp, 3, {{30, 22}, {54, 0}, {54, 100}}}, {k_sharp, 2, {{28, 100}, {80, 100}}}}},
    {2, {{k_smooth, 8, {{12, 26}, {24, 6}, {50, 0}, {76, 9}, {80, 30}, {64, 55}, {36, 80}, {10, 100}}},
         {k_sharp, 2, {{10, 100}, {90, 100}}}}},
    {2, {{k_smooth, 12, {{14, 20}, {30, 3}, {58, 0}, {78, 20}, {70, 50}, {42, 82}, {20, 97}, {10, 86},
                       {26, 78}, {50, 90}, {72, 98}, {94, 90}}}}},
    {3, {{k_smooth, 6, {{14, 12}, {40, 0}, {70, 6}, {76, 26}, {58, 44}, {36, 48}}},
         {k_smooth, 6, {{36, 48}, {70, 52}, {86, 73}, {70, 94}, {40, 100}, {10, 88}}}}},
    {3, {{k_sharp, 3, {{16, 2}, {80, 2}, {42, 40}}},
         {k_smooth, 6, {{42, 40}, {74, 48}, {86, 72}, {66, 96}, {34, 100}, {10, 90}}}}},
    {4, {{k_sharp, 3, {{30, 0}, {12, 58}, {90, 58}}}, {k_sharp, 2, {{72, 12}, {66, 100}}}}},
    {4, {{k_sharp, 3, {{66, 0}, {8, 66}, {94, 66}}}, {k_sharp, 2, {{66, 0}, {66, 100}}}}},
    {4, {{k_smooth, 4, {{20, 4}, {14, 34}, {30, 50}, {72, 46}}}, {k_sharp, 2, {{78, 2}, {68, 100}}}}},
    {5, {{k_sharp, 3, {{82, 2}, {26, 2}, {20, 44}}},
         {k_smooth, 7, {{20, 44}, {48, 36}, {78, 48}, {86, 70}, {70, 93}, {40, 100}, {10, 90}}}}},
    {5, {{k_smooth, 9, {{26, 4}, {24, 24}, {22, 44}, {50, 40}, {76, 54}, {80, 76}, {62, 96}, {36, 100}, {12, 92}}},
         {k_sharp, 2, {{26, 4}, {84, 0}}}}},
    {6, {{k_smooth, 11, {{74, 2}, {46, 16}, {24, 44}, {14, 72}, {28, 96}, {56, 100}, {82, 86}, {80, 64},
                       {56, 53}, {32, 60}, {17, 78}}}}},
    {6, {{k_smooth, 9, {{50, 0}, {28, 30}, {18, 66}, {30, 95}, {58, 100}, {78, 84}, {70, 64}, {44, 62}, {22, 80}}}}},
    {7, {{k_sharp, 2, {{10, 3}, {88, 3}}}, {k_smooth, 4, {{88, 3}, {66, 38}, {50, 70}, {42, 100}}}}},
    {7, {{k_sharp, 2, {{10, 3}, {88, 3}}}, {k_smooth, 4, {{88, 3}, {66, 38}, {50, 70}, {42, 100}}},
         {k_sharp, 2, {{34, 52}, {80, 50}}}}},
    {7, {{k_sharp, 4, {{10, 18}, {14, 2}, {86, 4}, {46, 100}}}}},
    {8, {{k_smooth, 13, {{74, 14}, {50, 0}, {25, 12}, {28, 34}, {50, 47}, {77, 66}, {78, 88}, {50, 100},
                       {20, 88}, {22, 66}, {50, 47}, {74, 32}, {74, 12}}}}},
    {8, {{k_smooth, 7, {{50, 0}, {24, 10}, {26, 36}, {50, 46}, {74, 36}, {76, 10}, {48, 0}}},
         {k_smooth, 7, {{50, 46}, {18, 60}, {16, 88}, {50, 100}, {84, 88}, {82, 60}, {48, 46}}}}},
    {9, {{k_smooth, 8, {{82, 24}, {60, 2}, {30, 5}, {14, 28}, {28, 50}, {56, 50}, {78, 32}, {84, 16}}},
         {k_smooth, 3, {{83, 18}, {80, 58}, {70, 100}}}}},
    {9, {{k_smooth, 8, {{80, 22}, {58, 0}, {28, 6}, {16, 28}, {30, 48}, {56, 46}, {76, 30}, {83, 12}}},
         {k_smooth, 5, {{82, 16}, {86, 56}, {72, 90}, {46, 100}, {20, 92}}}}},
};
// clang-format on

// Where a point of the glyph's box lands on the paper, in pixels.
class Hand {
 public:
  explicit Hand(Random& random) noexcept {
    for (auto& axis : bend_) {
      for (float& c : axis) c = 0.11f * random.normal();
    }
    height_ = random.between(15.5f, 21.5f);
    width_ = height_ * random.between(0.52f, 0.86f);
    slant_ = 0.18f * random.normal() + 0.08f;
    const float t = 0.055f * random.normal();  // the tangent of half the angle
    cosine_ = (1 - t * t) / (1 + t * t);
    sine_ = 2 * t / (1 + t * t);
    centre_ = {13.5f + 0.9f * random.normal(), 13.5f + 0.9f * random.normal()};
  }
  Point operator()(Point p) const noexcept {
    const float u = 2 * p.x - 1, v = 2 * p.y - 1;
    const float terms[k_terms] = {u * v, u * u, v * v, u * u * v, u * v * v, v * v * v};
    float x = u, y = v;
    for (int i = 0; i < k_terms; ++i) {
      x += bend_[0][i] * terms[i];
      y += bend_[1][i] * terms[i] * 0.6f;
    }
    x = 0.5f * width_ * x - 0.5f * height_ * slant_ * y;
    y = 0.5f * height_ * y;
    return {centre_.x + cosine_ * x - sine_ * y, centre_.y + sine_ * x + cosine_ * y};
  }

 private:
  static constexpr int k_terms = 6;
  float bend_[2][k_terms];
  float height_, width_, slant_, cosine_, sine_;
  Point centre_;
};

class Paper {
 public:
  // Darkens what a round pen of radius r covers on its way from a to b; the edge is soft over 1.3 pixels.
  void draw(Point a, Point b, float r) noexcept {
    const float reach = r + 0.65f;
    const int left = first(std::min(a.x, b.x) - reach), right = last(std::max(a.x, b.x) + reach);
    const int top = first(std::min(a.y, b.y) - reach), bottom = last(std::max(a.y, b.y) + reach);
    const float dx = b.x - a.x, dy = b.y - a.y, length2 = dx * dx + dy * dy + 1e-12f;
    for (int row = top; row <= bottom; ++row) {
      for (int column = left; column <= right; ++column) {
        const float px = static_cast<float>(column) - a.x, py = static_cast<float>(row) - a.y;
        const float t = std::clamp((px * dx + py * dy) / length2, 0.0f, 1.0f);
        const float ex = px - t * dx, ey = py - t * dy;
        const float ink = std::clamp((reach - std::sqrt(ex * ex + ey * ey)) / 1.3f, 0.0f, 1.0f);
        float& pixel = ink_[row * k_side + column];
        pixel = std::max(pixel, ink);
      }
    }
  }
  // Uneven ink and grain, then bytes.
  void print(Random& random, std::span<std::uint8_t> out) const noexcept {
    const float strength = random.between(0.78f, 1.0f), uneven = random.between(0.02f, 0.16f),
                grain = random.between(0.0f, 0.09f);
    std::uint64_t bits = 0;
    for (int i = 0; i < k_side * k_side; ++i) {
      if (i % 4 == 0) bits = random.bits();
      const float noise = static_cast<float>(bits & 0xffff) * 0x1p-15f - 1.0f;  // [-1, 1)
      bits >>= 16;
      const float value = ink_[i] * strength * (1 + uneven * noise) + grain * std::max(0.0f, noise) * (1 - ink_[i]);
      out[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(std::clamp(value, 0.0f, 1.0f) * 255.99f);
    }
  }

 private:
  static int first(float x) noexcept {
    return static_cast<int>(std::clamp(std::ceil(x), 0.0f, static_cast<float>(k_side)));
  }
  static int last(float x) noexcept { return static_cast<int>(std::clamp(std::floor(x), -1.0f, k_side - 1.0f)); }
  std::array<float, k_side * k_side> ink_{};
};

// The curve of Catmull and Rom through b and c, at t of the way.
Point between(Point a, Point b, Point c, Point d, float t) noexcept {
  const auto axis = [t](float p, float q, float r, float s) {
    return q + 0.5f * t * (r - p + t * (2 * p - 5 * q + 4 * r - s + t * (3 * (q - r) + s - p)));
  };
  return {axis(a.x, b.x, c.x, d.x), axis(a.y, b.y, c.y, d.y)};
}

void draw_stroke(const Stroke& stroke, const Hand& hand, float radius, Paper& paper) noexcept {
  constexpr int k_steps = 5;
  const auto at = [&](int i) {
    const auto& point = stroke.points[std::clamp(i, 0, stroke.count - 1)];
    return Point{static_cast<float>(point.x) * 0.01f, static_cast<float>(point.y) * 0.01f};
  };
  Point from = hand(at(0));
  for (int i = 0; i + 1 < stroke.count; ++i) {
    for (int step = 1; step <= k_steps; ++step) {
      const float t = static_cast<float>(step) / k_steps;
      const Point a = at(i), b = at(i + 1);
      const Point p = stroke.line == k_smooth ? between(at(i - 1), a, b, at(i + 2), t)
                                              : Point{a.x + t * (b.x - a.x), a.y + t * (b.y - a.y)};
      const Point to = hand(p);
      paper.draw(from, to, radius);
      from = to;
    }
  }
}

// Example `number`: its image, and its class.
int draw_example(std::uint64_t seed, std::uint64_t number, std::span<std::uint8_t> image) noexcept {
  Random random(seed, number);
  const int digit = static_cast<int>(random.below(10));
  const auto is_one = [digit](const Glyph& glyph) { return glyph.digit == digit; };
  const auto variants = static_cast<std::uint64_t>(std::count_if(std::begin(k_glyphs), std::end(k_glyphs), is_one));
  const Glyph* glyph = std::find_if(std::begin(k_glyphs), std::end(k_glyphs), is_one) + random.below(variants);
  const Hand hand(random);
  const float pen = random.between(0.55f, 1.45f);
  Paper paper;
  for (const Stroke& stroke : glyph->strokes) {
    if (stroke.count) draw_stroke(stroke, hand, pen * random.between(0.9f, 1.1f), paper);
  }
  paper.print(random, image);
  return digit;
}

Result<Dataset> draw(std::uint64_t seed, std::uint64_t first, std::size_t count) noexcept {
  constexpr std::size_t k_pixels = k_side * k_side;
  const auto n = static_cast<std::int64_t>(count);
  auto images = Owned::zeros({n, k_side, k_side}, DType::u8);
  if (!images) return fail(images.error());
  auto labels = Owned::zeros({n}, DType::i32);
  if (!labels) return fail(labels.error());
  const auto pixels = images->fill<std::uint8_t>();
  const auto classes = labels->fill<std::int32_t>();
  for (std::size_t i = 0; i < count; ++i)
    classes[i] = draw_example(seed, first + i, pixels.subspan(i * k_pixels, k_pixels));
  return Dataset::create(std::move(*images), std::move(*labels), {.scale = 1.0f / 255.0f, .classes = 10});
}

}  // namespace

Result<Split> digits(std::uint64_t seed, const DigitsOptions& options) noexcept {
  for (const std::size_t count : {options.train, options.test}) {
    if (count == 0 || count > k_max_count)
      return fail(Errc::invalid_argument, "digits", "1 to 2^31 examples for each part");
  }
  auto train = draw(seed, 0, options.train);
  if (!train) return fail(train.error());
  auto test = draw(seed, k_test_stream, options.test);
  if (!test) return fail(test.error());
  return Split{std::move(*train), std::move(*test)};
}

}  // namespace qorus::data
