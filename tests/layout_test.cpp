// qorus.tensor:shape: shapes and layouts, checked element by element over many random ones.
#include "tests/testing.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

import qorus.tensor;

using namespace qorus;

namespace {

constexpr std::int64_t k_low = std::numeric_limits<std::int64_t>::min(),
                       k_high = std::numeric_limits<std::int64_t>::max();

std::string text(const Layout& layout) {
  std::string line = "shape [";
  for (int d = 0; d < layout.shape.rank(); ++d) line += " " + std::to_string(layout.shape[d]);
  line += " ] stride [";
  for (int d = 0; d < layout.shape.rank(); ++d) line += " " + std::to_string(layout.stride[d]);
  return line + " ] offset " + std::to_string(layout.offset);
}
using Index = std::vector<std::int64_t>;

// All indices of a shape in row-major order, by counting.
std::vector<Index> indices(const Shape& shape) {
  std::vector<Index> all;
  for (std::size_t n = 0; n < shape.numel(); ++n) {
    Index index(shape.rank());
    std::size_t rest = n;
    for (int d = shape.rank() - 1; d >= 0; --d) {
      index[d] = static_cast<std::int64_t>(rest % shape[d]);
      rest /= shape[d];
    }
    all.push_back(index);
  }
  return all;
}
std::int64_t place(const Layout& layout, const Index& index) {
  std::int64_t at = layout.offset;
  for (std::size_t d = 0; d < index.size(); ++d) at += index[d] * layout.stride[d];
  return at;
}
// Where the elements lie, in row-major order.
std::vector<std::int64_t> places(const Layout& layout) {
  std::vector<std::int64_t> all;
  for (const Index& index : indices(layout.shape)) all.push_back(place(layout, index));
  return all;
}

// A dense layout, turned about by random views.
class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  int below(int n) { return static_cast<int>(engine_() % static_cast<unsigned>(n)); }

  Shape shape(int max_rank = 5, int max_extent = 4) {
    std::vector<std::int64_t> extents(below(max_rank + 1));
    for (auto& extent : extents) extent = below(12) ? 1 + below(max_extent) : 0;
    return Shape(extents);
  }
  std::vector<int> order(int rank) {
    std::vector<int> axes(rank);
    for (int d = 0; d < rank; ++d) axes[d] = d;
    for (int d = rank; d > 1; --d) std::swap(axes[d - 1], axes[below(d)]);
    return axes;
  }
  Layout layout() {
    Layout made = Layout::dense(shape());
    for (int step = below(4); step > 0 && made.shape.rank() > 0; --step) {
      const int axis = below(made.shape.rank());
      const auto extent = made.shape[axis];
      if (below(3) == 0) {
        made = *made.permuted(order(made.shape.rank()));
      } else if (below(2) == 0) {
        const auto begin = below(static_cast<int>(extent) + 1);
        made = *made.sliced(axis, begin, begin + below(static_cast<int>(extent) - begin + 1), 1 + below(3));
      } else if (extent == 1) {
        made = *made.broadcast_to(made.shape.with(axis, 1 + below(3)));
      }
    }
    return made;
  }
  // A shape of the same count, cut elsewhere, with a few extents of 1.
  Shape recut(std::size_t numel) {
    std::vector<std::int64_t> extents;
    auto rest = static_cast<std::int64_t>(numel);
    while (extents.size() < 5 && (rest > 1 || below(3) == 0)) {
      std::vector<std::int64_t> divisors;
      for (std::int64_t d = 1; d <= rest; ++d) {
        if (rest % d == 0) divisors.push_back(d);
      }
      if (divisors.empty()) break;
      extents.push_back(divisors[below(static_cast<int>(divisors.size()))]);
      rest /= extents.back();
    }
    extents.push_back(rest);
    return Shape(extents);
  }

 private:
  std::mt19937 engine_;
};

// --- Shape --------------------------------------------------------------------------------------------------------------

TEST(Shape, KnowsItsExtents) {
  const Shape shape{2, 3, 4};
  EXPECT_TRUE(shape.valid());
  EXPECT_EQ(shape.rank(), 3);
  EXPECT_EQ(shape.numel(), 24u);
  EXPECT_EQ(shape[0], 2);
  EXPECT_EQ(shape[-1], 4);
  EXPECT_EQ(shape.extents().size(), 3u);
  EXPECT_EQ(Shape{}.numel(), 1u);
  EXPECT_EQ(Shape{}.rank(), 0);
  EXPECT_EQ((Shape{3, 0, 2}.numel()), 0u);
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_NE((Shape{2, 3}), (Shape{3, 2}));
  EXPECT_NE((Shape{1}), Shape{});
}

TEST(Shape, IsInvalidRatherThanWrong) {
  EXPECT_TRUE((Shape{1, 2, 3, 4, 5, 6}.valid()));
  EXPECT_FALSE((Shape{1, 2, 3, 4, 5, 6, 7}.valid()));
  EXPECT_FALSE((Shape{2, -1}.valid()));
  EXPECT_FALSE((Shape{k_low}.valid()));
  EXPECT_TRUE((Shape{std::int64_t{1} << 47}.valid()));
  EXPECT_FALSE((Shape{(std::int64_t{1} << 47) + 1}.valid()));
  EXPECT_FALSE((Shape{std::int64_t{1} << 32, std::int64_t{1} << 32}.valid()));
  EXPECT_FALSE((Shape{k_high, k_high, k_high}.valid()));
  EXPECT_EQ((Shape{2, -1}.numel()), 0u);
  EXPECT_EQ((Shape{2, -1}), (Shape{1, 1, 1, 1, 1, 1, 1}));  // all invalid shapes are one
  EXPECT_TRUE((Shape{2, -1}.extents().empty()));
}

TEST(Shape, WithAnExtentOfZeroIsStillBounded) {
  // Its strides are computed too: they must not overflow, whatever the order of the extents.
  EXPECT_FALSE((Shape{0, k_high, k_high}.valid()));
  EXPECT_FALSE((Shape{k_high, k_high, 0}.valid()));
  EXPECT_TRUE((Shape{0, 1000, 1000}.valid()));
}

TEST(Shape, IsEdited) {
  const Shape shape{2, 3, 4};
  EXPECT_EQ(shape.with(1, 7), (Shape{2, 7, 4}));
  EXPECT_EQ(shape.with(-1, 7), (Shape{2, 3, 7}));
  EXPECT_FALSE(shape.with(0, -7).valid());
  EXPECT_EQ(shape.without(0), (Shape{3, 4}));
  EXPECT_EQ(shape.without(-1), (Shape{2, 3}));
  EXPECT_EQ(shape.inserted(0, 9), (Shape{9, 2, 3, 4}));
  EXPECT_EQ(shape.inserted(3, 9), (Shape{2, 3, 4, 9}));
  EXPECT_EQ(Shape{}.inserted(0, 5), (Shape{5}));
  EXPECT_FALSE((Shape{1, 2, 3, 4, 5, 6}.inserted(2, 1).valid()));
}

TEST(Shape, StaysInvalidWhenEdited) {
  const Shape bad{-1};
  EXPECT_FALSE(bad.with(0, 3).valid());
  EXPECT_FALSE(bad.without(0).valid());
  EXPECT_FALSE(bad.inserted(0, 3).valid());
}

TEST(Shape, Broadcasts) {
  EXPECT_EQ(broadcast({2, 3}, {2, 3}), (Shape{2, 3}));
  EXPECT_EQ(broadcast({2, 3}, {3}), (Shape{2, 3}));
  EXPECT_EQ(broadcast({2, 1}, {1, 3}), (Shape{2, 3}));
  EXPECT_EQ(broadcast({}, {4, 5}), (Shape{4, 5}));
  EXPECT_EQ(broadcast({}, {}), Shape{});
  EXPECT_EQ(broadcast({1}, {0}), (Shape{0}));
  EXPECT_EQ(broadcast({7, 1, 5}, {3, 1}), (Shape{7, 3, 5}));
  EXPECT_FALSE(broadcast({2}, {3}).valid());
  EXPECT_FALSE(broadcast({0}, {2}).valid());
  EXPECT_FALSE(broadcast({-1}, {3}).valid());
  EXPECT_FALSE(broadcast({std::int64_t{1} << 40, 1}, {1, std::int64_t{1} << 40}).valid());
}

TEST(Shape, FillsInAnOpenExtent) {
  const auto infer = [](std::vector<std::int64_t> wanted, std::size_t numel) {
    return infer_extent(wanted, numel, "reshape");
  };
  EXPECT_EQ(infer({2, -1}, 12).value(), (Shape{2, 6}));
  EXPECT_EQ(infer({-1}, 0).value(), (Shape{0}));
  EXPECT_EQ(infer({3, 4}, 12).value(), (Shape{3, 4}));
  EXPECT_EQ(infer({}, 1).value(), Shape{});
  EXPECT_FAILS(infer({5, -1}, 12), Errc::invalid_size);
  EXPECT_FAILS(infer({-1, -1}, 12), Errc::invalid_size);
  EXPECT_FAILS(infer({0, -1}, 0), Errc::invalid_size);
  EXPECT_FAILS(infer({-2}, 12), Errc::invalid_size);
  EXPECT_FAILS(infer({k_high, k_high, -1}, 12), Errc::invalid_size);
  EXPECT_FAILS(infer({1, 1, 1, 1, 1, 1, 12}, 12), Errc::invalid_size);
  EXPECT_FAILS(infer({std::int64_t{1} << 31, std::int64_t{1} << 31}, 12), Errc::invalid_size);
  EXPECT_FAILS_SAYING(infer({3, 5}, 12), "reshape: invalid size: [12] and [3,5]: the number of elements would change");
}

TEST(Shape, CountsAxesFromTheEnd) {
  EXPECT_EQ(normal_axis(-1, 3, "sum").value(), 2);
  EXPECT_EQ(normal_axis(2, 3, "sum").value(), 2);
  EXPECT_FAILS(normal_axis(3, 3, "sum"), Errc::invalid_argument);
  EXPECT_FAILS(normal_axis(-4, 3, "sum"), Errc::invalid_argument);
  EXPECT_FAILS(normal_axis(0, 0, "sum"), Errc::invalid_argument);
  EXPECT_FAILS_SAYING(normal_axis(3, 3, "sum"), "[3]");
}

// --- Layout -------------------------------------------------------------------------------------------------------------

TEST(Layout, DenseIsRowMajorWithoutGaps) {
  Random random(1);
  for (int round = 0; round < 500; ++round) {
    const Layout layout = Layout::dense(random.shape());
    const auto at = places(layout);
    for (std::size_t n = 0; n < at.size(); ++n) ASSERT_EQ(at[n], static_cast<std::int64_t>(n)) << text(layout);
    EXPECT_TRUE(layout.is_dense());
  }
}

TEST(Layout, KnowsWhetherItIsDense) {
  Random random(2);
  int dense = 0;
  for (int round = 0; round < 5000; ++round) {
    const Layout layout = random.layout();
    const auto at = places(layout);
    bool truth = true;
    for (std::size_t n = 0; n < at.size(); ++n) truth = truth && at[n] - at[0] == static_cast<std::int64_t>(n);
    ASSERT_EQ(layout.is_dense(), truth) << text(layout);
    dense += truth;
  }
  EXPECT_GT(dense, 500);
  EXPECT_LT(dense, 4500);
}

TEST(Layout, Permutes) {
  Random random(3);
  for (int round = 0; round < 2000; ++round) {
    const Layout layout = random.layout();
    const auto axes = random.order(layout.shape.rank());
    const auto turned = layout.permuted(axes);
    ASSERT_OK(turned);
    for (const Index& index : indices(turned->shape)) {
      Index original(index.size());
      for (std::size_t d = 0; d < index.size(); ++d) original[axes[d]] = index[d];
      ASSERT_EQ(place(*turned, index), place(layout, original)) << text(layout);
    }
  }
}

TEST(Layout, PermutesOnlyByAPermutation) {
  const Layout layout = Layout::dense({2, 3, 4});
  const auto permuted = [&](std::vector<int> axes) { return layout.permuted(axes); };
  EXPECT_EQ(permuted({-1, 0, 1})->shape, (Shape{4, 2, 3}));
  EXPECT_FAILS(permuted({0, 1}), Errc::invalid_argument);
  EXPECT_FAILS(permuted({0, 1, 2, 3}), Errc::invalid_argument);
  EXPECT_FAILS(permuted({0, 1, 1}), Errc::invalid_argument);
  EXPECT_FAILS(permuted({0, 1, -2}), Errc::invalid_argument);
  EXPECT_FAILS(permuted({0, 1, 3}), Errc::invalid_argument);
  EXPECT_FAILS_SAYING(permuted({0, 1, 1}), "[2,3,4]: an axis is named twice");
}

TEST(Layout, Slices) {
  Random random(4);
  for (int round = 0; round < 3000; ++round) {
    const Layout layout = random.layout();
    if (layout.shape.rank() == 0) continue;
    const int axis = random.below(layout.shape.rank());
    const auto extent = layout.shape[axis];
    const std::int64_t begin = random.below(static_cast<int>(extent) + 1);
    const std::int64_t end = begin + random.below(static_cast<int>(extent - begin) + 1), step = 1 + random.below(4);
    const auto piece = layout.sliced(axis, begin, end, step);
    ASSERT_OK(piece);
    std::int64_t count = 0;
    for (std::int64_t i = begin; i < end; i += step) ++count;
    ASSERT_EQ(piece->shape, layout.shape.with(axis, count));
    for (Index index : indices(piece->shape)) {
      const auto seen = place(*piece, index);
      index[axis] = begin + index[axis] * step;
      ASSERT_EQ(seen, place(layout, index)) << text(layout);
    }
  }
}

TEST(Layout, SlicesOnlyWhatIsThere) {
  const Layout layout = Layout::dense({2, 5});
  EXPECT_EQ(layout.sliced(1, -2, 5, 1)->shape, (Shape{2, 2}));
  EXPECT_EQ(layout.sliced(-1, 1, -1, 1)->shape, (Shape{2, 3}));
  EXPECT_EQ(layout.sliced(1, 5, 5, 1)->shape, (Shape{2, 0}));
  EXPECT_FAILS(layout.sliced(1, 0, 6, 1), Errc::invalid_argument);
  EXPECT_FAILS(layout.sliced(1, -6, 5, 1), Errc::invalid_argument);
  EXPECT_FAILS(layout.sliced(1, 3, 2, 1), Errc::invalid_argument);
  EXPECT_FAILS(layout.sliced(1, 0, 5, 0), Errc::invalid_argument);
  EXPECT_FAILS(layout.sliced(1, 0, 5, -1), Errc::invalid_argument);
  EXPECT_FAILS(layout.sliced(2, 0, 1, 1), Errc::invalid_argument);
  EXPECT_FAILS(layout.sliced(0, k_low, k_high, 1), Errc::invalid_argument);
  EXPECT_EQ(layout.sliced(1, 0, 5, k_high)->shape, (Shape{2, 1}));  // and no overflow on the way
  EXPECT_EQ(layout.sliced(0, 0, 2, k_high / 2)->shape, (Shape{1, 5}));
}

TEST(Layout, Broadcasts) {
  Random random(5);
  int stretched = 0;
  for (int round = 0; round < 3000; ++round) {
    const Layout layout = random.layout();
    Shape wanted = layout.shape;
    for (int d = 0; d < wanted.rank(); ++d) {
      if (wanted[d] == 1) wanted = wanted.with(d, random.below(4));
    }
    if (wanted.rank() < 6 && random.below(2)) wanted = wanted.inserted(0, random.below(4));
    const auto wide = layout.broadcast_to(wanted);
    ASSERT_OK(wide);
    ASSERT_EQ(wide->shape, wanted);
    const int extra = wanted.rank() - layout.shape.rank();
    for (const Index& index : indices(wanted)) {
      Index original(index.begin() + extra, index.end());
      for (int d = 0; d < layout.shape.rank(); ++d) {
        if (layout.shape[d] == 1) original[d] = 0;
      }
      ASSERT_EQ(place(*wide, index), place(layout, original)) << text(layout);
    }
    stretched += wanted != layout.shape;
  }
  EXPECT_GT(stretched, 500);
  EXPECT_FAILS(Layout::dense({2, 3}).broadcast_to({3}), Errc::invalid_size);
  EXPECT_FAILS(Layout::dense({2, 3}).broadcast_to({2, 4}), Errc::invalid_size);
  EXPECT_FAILS(Layout::dense({2, 3}).broadcast_to({2, 1}), Errc::invalid_size);
  EXPECT_FAILS(Layout::dense({1}).broadcast_to({-1}), Errc::invalid_size);
  EXPECT_FAILS_SAYING(Layout::dense({2, 3}).broadcast_to({2, 4}), "[2,3] and [2,4]");
}

// Whether any strides make `wanted` name the same places in the same order: found by solving for each extent's stride.
bool can_be_seen_as(const std::vector<std::int64_t>& at, const Shape& wanted) {
  if (at.empty()) return true;
  Layout layout{.shape = wanted, .offset = at[0]};
  std::size_t inner = at.size();
  for (int d = 0; d < wanted.rank(); ++d) {
    inner /= static_cast<std::size_t>(wanted[d]);
    layout.stride[d] = wanted[d] > 1 ? at[inner] - at[0] : 0;
  }
  return places(layout) == at;
}

TEST(Layout, ReshapesWheneverThatNeedsNoCopyAndOnlyThen) {
  Random random(6);
  int views = 0, copies = 0;
  for (int round = 0; round < 20000; ++round) {
    const Layout layout = random.layout();
    const Shape wanted = random.recut(layout.shape.numel());
    Layout seen;
    const auto at = places(layout);
    ASSERT_EQ(layout.reshaped(wanted, seen), can_be_seen_as(at, wanted))
        << text(layout) << " as " << text(Layout::dense(wanted));
    if (!can_be_seen_as(at, wanted)) {
      ++copies;
      continue;
    }
    ++views;
    ASSERT_EQ(seen.shape, wanted);
    ASSERT_EQ(places(seen), at) << text(layout) << " as " << text(seen);
  }
  EXPECT_GT(views, 3000);
  EXPECT_GT(copies, 500);
}

TEST(Layout, ReshapesOnlyToTheSameCount) {
  Layout seen;
  EXPECT_FALSE(Layout::dense({2, 3}).reshaped({7}, seen));
  EXPECT_FALSE(Layout::dense({2, 3}).reshaped({-6}, seen));
  EXPECT_FALSE(Layout::dense({0}).reshaped({-6}, seen));
  EXPECT_TRUE(Layout::dense({1}).reshaped({}, seen));
  EXPECT_TRUE(Layout::dense({}).reshaped({1, 1, 1}, seen));
  EXPECT_TRUE(Layout::dense({0, 3}).reshaped({7, 0}, seen));
  EXPECT_FALSE(Layout::dense({-1}).reshaped({6}, seen));
  EXPECT_TRUE((Layout{.shape = {0, 3}, .stride = {1, 7}}.reshaped({7, 0}, seen)));  // nothing lies anywhere
  EXPECT_TRUE((Layout{.shape = {1, 1}, .stride = {9, 9}}.reshaped({1, 1, 1}, seen)));
  EXPECT_FALSE(broadcast(Shape{2}, Shape{-1}).valid());
}

}  // namespace
