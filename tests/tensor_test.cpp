// qorus.tensor: what a tensor shows and refuses to show, its lifetimes, owned tensors, Fresh, and how it reads when printed.
#include "tests/testing.h"

#include <algorithm>
#include <array>
#include <clocale>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

import qorus.tensor;

using namespace qorus;
using qorus_test::allocations_of;

namespace {

// 0, 1, 2, … in this shape.
Owned counting(const Shape& shape) {
  Owned owned = Owned::zeros(shape).value();
  auto values = owned.fill<float>();
  std::iota(values.begin(), values.end(), 0.0f);
  return owned;
}
// A context over an arena, without a tape.
struct Scene {
  Arena arena;
  Context context;
  explicit Scene(std::size_t bytes) : arena(Arena::create(bytes).value()) { context.scratch = &arena; }
};

// --- types ----------------------------------------------------------------------------------------------------------------

TEST(DType, KnowsSizesAndNames) {
  EXPECT_EQ(size_of(DType::f32), 4u);
  EXPECT_EQ(size_of(DType::bf16), 2u);
  EXPECT_EQ(size_of(DType::i8), 1u);
  EXPECT_EQ(to_string(DType::f16), "f16");
  EXPECT_EQ(to_string(DType::u8), "u8");
  EXPECT_EQ(dtype_of<float>, DType::f32);
  EXPECT_EQ(dtype_of<std::int32_t>, DType::i32);
  EXPECT_EQ(dtype_of<std::int8_t>, DType::i8);
  EXPECT_EQ(dtype_of<std::uint8_t>, DType::u8);
}

TEST(DType, KnowsTheBlockFormats) {
  EXPECT_TRUE(is_block(DType::q4_0));
  EXPECT_FALSE(is_block(DType::u8));
  EXPECT_EQ(block_size(DType::f32), 1u);
  EXPECT_EQ(block_size(DType::q8_0), 32u);
  EXPECT_EQ(block_size(DType::q6_k), 256u);
  EXPECT_EQ(row_bytes(DType::q4_0, 64), 36u);
  EXPECT_EQ(row_bytes(DType::q6_k, 512), 420u);
  EXPECT_EQ(row_bytes(DType::f16, 3), 6u);
  EXPECT_EQ(size_of(DType::q4_0), 0u);
  EXPECT_EQ(to_string(DType::iq4_xs), "iq4_xs");
  for (int i = 0; i < k_dtype_count; ++i)
    EXPECT_EQ(is_block(static_cast<DType>(i)), block_size(static_cast<DType>(i)) > 1);
}

TEST(Tensor, OfABlockFormatIsSeenByWholeRows) {
  const Owned weights = Owned::zeros({4, 64}, DType::q4_0).value();
  const Tensor whole = weights;
  EXPECT_EQ(whole.shape(), Shape({4, 64}));
  EXPECT_EQ(to_string(whole), " q4_0 [4,64]");
  EXPECT_FAILS(whole.to_vector(), Errc::invalid_dtype);
  const Tensor rows = whole.seen_as(whole.layout().sliced(0, 1, 4, 2).value());
  ASSERT_OK(rows.check("test"));
  EXPECT_EQ(rows.data() - whole.data(), 36);
  const Tensor blocks = whole.seen_as(whole.layout().sliced(1, 32, 64, 1).value());
  ASSERT_OK(blocks.check("test"));
  EXPECT_EQ(blocks.data() - whole.data(), 18);
  auto* bytes = const_cast<std::byte*>(whole.data());
  for (int i = 0; i < 4 * 36; ++i) bytes[i] = static_cast<std::byte>(i);
  const Owned copy = keep(blocks).value();
  for (int i = 0; i < 4 * 18; ++i)
    EXPECT_EQ(copy.tensor().data()[i], static_cast<std::byte>(i / 18 * 36 + 18 + i % 18));
  for (const auto& part : {whole.layout().sliced(1, 1, 33, 1), whole.layout().sliced(1, 0, 33, 1),
                           whole.layout().sliced(1, 0, 64, 2), whole.layout().permuted(std::array{1, 0})}) {
    EXPECT_FAILS(whole.seen_as(part.value()).check("test"), Errc::invalid_size);
  }
  EXPECT_FAILS(Owned::zeros({4, 63}, DType::q4_0), Errc::invalid_dtype);
  EXPECT_FAILS(Owned::zeros({}, DType::q8_0), Errc::invalid_dtype);
  EXPECT_OK(Owned::zeros({0, 32}, DType::q8_0));
  Scene scene(1 << 16);
  EXPECT_FAILS(Fresh::make(scene.context, {2, 255}, DType::q6_k), Errc::invalid_dtype);
  EXPECT_OK(Fresh::make(scene.context, {2, 256}, DType::q6_k));
}

// --- reading ---------------------------------------------------------------------------------------------------------------

TEST(Tensor, IsAValueThatCopiesWithoutAllocating) {
  static_assert(std::is_trivially_copyable_v<Tensor>);
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const Owned owned = counting({2, 3});
  float sum = 0;
  EXPECT_EQ(allocations_of([&] {
              const Tensor a = owned.tensor();
              const Tensor b = a;
              sum = b.at<float>({1, 2}).value();
            }),
            0u);
  EXPECT_EQ(sum, 5.0f);
}

TEST(Tensor, ShowsWhatItBorrows) {
  const std::vector<std::int32_t> numbers{1, 2, 3, 4, 5, 6};
  const Tensor tensor = Tensor::borrow<std::int32_t>(numbers, {2, 3});
  EXPECT_EQ(tensor.dtype(), DType::i32);
  EXPECT_EQ(tensor.rank(), 2);
  EXPECT_EQ(tensor.dim(-1), 3);
  EXPECT_EQ(tensor.stride(-2), 3);
  EXPECT_EQ(tensor.numel(), 6u);
  EXPECT_TRUE(tensor.contiguous());
  EXPECT_EQ(tensor.at<std::int32_t>({1, 0}).value(), 4);
  EXPECT_EQ(tensor.at<std::int32_t>({-1, -1}).value(), 6);
  EXPECT_EQ(tensor.values<std::int32_t>().value().data(), numbers.data());
  EXPECT_EQ(tensor.to_vector<std::int32_t>().value(), numbers);
}

TEST(Tensor, OfAWrongCountIsRefusedByEverything) {
  const std::vector<float> numbers(6);
  for (const Shape& shape : {Shape{7}, Shape{2, -3}, Shape{}}) {
    const Tensor tensor = Tensor::borrow<float>(numbers, shape);
    EXPECT_FAILS(tensor.check("add"), Errc::invalid_size);
    EXPECT_FAILS(tensor.values<float>(), Errc::invalid_size);
    EXPECT_FAILS(tensor.to_vector(), Errc::invalid_size);
    EXPECT_FAILS(keep(tensor), Errc::invalid_size);
  }
  EXPECT_FAILS(Tensor().check("add"), Errc::invalid_size);
  EXPECT_FAILS(Tensor().item(), Errc::invalid_size);
}

TEST(Tensor, ReadsOnlyItsOwnType) {
  const Owned owned = counting({2, 3});
  const Tensor tensor = owned;
  EXPECT_FAILS(tensor.values<std::int32_t>(), Errc::invalid_dtype);
  EXPECT_FAILS(tensor.at<std::uint8_t>({0, 0}), Errc::invalid_dtype);
  EXPECT_FAILS(tensor.item<std::int8_t>(), Errc::invalid_dtype);
  EXPECT_FAILS(tensor.to_vector<std::int32_t>(), Errc::invalid_dtype);
  std::array<std::int32_t, 6> wrong{};
  EXPECT_FAILS(tensor.copy_to(std::span<std::int32_t>(wrong)), Errc::invalid_dtype);
  EXPECT_FAILS_SAYING(tensor.check(DType::u8, "select"), "select: invalid dtype: [2,3]");
  EXPECT_OK(tensor.check(DType::f32, "add"));
}

TEST(Tensor, ChecksEveryIndex) {
  const Owned owned = counting({2, 3});
  const Tensor tensor = owned;
  EXPECT_EQ(tensor.at<float>({1, 1}).value(), 4.0f);
  EXPECT_FAILS(tensor.at<float>({2, 0}), Errc::invalid_argument);
  EXPECT_FAILS(tensor.at<float>({0, 3}), Errc::invalid_argument);
  EXPECT_FAILS(tensor.at<float>({-3, 0}), Errc::invalid_argument);
  EXPECT_FAILS(tensor.at<float>({0}), Errc::invalid_argument);
  EXPECT_FAILS(tensor.at<float>({0, 0, 0}), Errc::invalid_argument);
  EXPECT_FAILS(tensor.at<float>({std::numeric_limits<std::int64_t>::min(), 0}), Errc::invalid_argument);
  EXPECT_FAILS(counting({0}).tensor().at<float>({0}), Errc::invalid_argument);
  EXPECT_EQ(counting({}).tensor().at<float>({}).value(), 0.0f);
}

TEST(Tensor, GivesItsOneElement) {
  EXPECT_EQ(counting({}).tensor().item().value(), 0.0f);
  EXPECT_EQ(counting({1, 1}).tensor().item().value(), 0.0f);
  EXPECT_FAILS(counting({2}).tensor().item(), Errc::invalid_size);
  EXPECT_FAILS(counting({0}).tensor().item(), Errc::invalid_size);
  const Owned owned = counting({4, 3});
  const Tensor row = owned.tensor().seen_as(owned.tensor().layout().sliced(0, 2, 3, 1)->sliced(1, 1, 2, 1).value());
  EXPECT_EQ(row.item().value(), 7.0f);
}

TEST(Tensor, CopiesOutWhateverItsStrides) {
  const Owned owned = counting({2, 3, 4});
  const Tensor tensor = owned;
  const int order[] = {2, 0, 1};
  const Tensor turned = tensor.seen_as(tensor.layout().permuted(order).value());
  EXPECT_FALSE(turned.contiguous());
  EXPECT_FAILS(turned.values<float>(), Errc::invalid_argument);
  const auto copy = turned.to_vector().value();
  std::size_t n = 0;
  for (std::int64_t i = 0; i < 4; ++i) {
    for (std::int64_t j = 0; j < 2; ++j) {
      for (std::int64_t k = 0; k < 3; ++k, ++n) {
        ASSERT_EQ(copy[n], tensor.at<float>({j, k, i}).value());
        ASSERT_EQ(copy[n], turned.at<float>({i, j, k}).value());
      }
    }
  }
  const Tensor wide = tensor.seen_as(tensor.layout().sliced(2, 3, 4, 1)->broadcast_to({2, 3, 2}).value());
  EXPECT_EQ(wide.to_vector().value(), (std::vector<float>{3, 3, 7, 7, 11, 11, 15, 15, 19, 19, 23, 23}));
  const Tensor column = tensor.seen_as(Layout{.shape = {3}, .stride = {4}, .offset = 1});
  EXPECT_EQ(column.to_vector().value(), (std::vector<float>{1, 5, 9}));
  const Tensor none = tensor.seen_as(tensor.layout().sliced(1, 1, 1, 1).value());
  EXPECT_TRUE(none.to_vector().value().empty());
  std::vector<float> small(5);
  EXPECT_FAILS(tensor.copy_to(std::span<float>(small)), Errc::invalid_size);
}

TEST(Tensor, CopiesElementsOfEveryWidth) {
  const std::vector<std::uint8_t> bytes{1, 2, 3, 4, 5, 6};
  const Tensor tensor = Tensor::borrow<std::uint8_t>(bytes, {2, 3});
  const int swap[] = {1, 0};
  EXPECT_EQ(tensor.seen_as(tensor.layout().permuted(swap).value()).to_vector<std::uint8_t>().value(),
            (std::vector<std::uint8_t>{1, 4, 2, 5, 3, 6}));
}

TEST(Tensor, ThatWasOnlyPlannedHasNoElements) {
  const Tensor planned(nullptr, DType::f32, Layout::dense({1000, 1000, 1000, 1000}), {});
  EXPECT_OK(planned.check(DType::f32, "add"));
  EXPECT_FAILS(planned.to_vector(), Errc::invalid_argument);  // and allocates no 4 TB first
  EXPECT_FAILS(planned.values<float>(), Errc::invalid_argument);
  EXPECT_FAILS(planned.at<float>({0, 0, 0, 0}), Errc::invalid_argument);
  EXPECT_FAILS(keep(Tensor(nullptr, DType::f32, Layout::dense({2}), {})), Errc::invalid_argument);
  EXPECT_NE(to_string(planned).find("f32 [1000,1000,1000,1000]"), std::string::npos);
  Scene scene(4096);
  scene.context.planning = true;
  const Tensor result = Fresh::make(scene.context, {4}).value().freeze();
  EXPECT_OK(result.check("add"));
  EXPECT_FAILS(result.to_vector(), Errc::invalid_argument);
  EXPECT_FAILS(keep(result), Errc::invalid_argument);
}

// --- lifetimes -------------------------------------------------------------------------------------------------------------

TEST(Tensor, IsStaleOnceItsOwnerIsGone) {
  Tensor tensor;
  {
    const Owned owned = counting({2, 2});
    tensor = owned;
    EXPECT_TRUE(tensor.alive());
  }
  EXPECT_FALSE(tensor.alive());
  EXPECT_FAILS(tensor.check("add"), Errc::stale_tensor);
  EXPECT_FAILS(tensor.values<float>(), Errc::stale_tensor);
  EXPECT_FAILS(tensor.at<float>({0, 0}), Errc::stale_tensor);
  EXPECT_FAILS(tensor.item(), Errc::stale_tensor);
  EXPECT_FAILS(tensor.to_vector(), Errc::stale_tensor);
  EXPECT_FAILS(keep(tensor), Errc::stale_tensor);
  EXPECT_FAILS_SAYING(tensor.check("add"), "add: stale tensor: [2,2]");
  EXPECT_NE(to_string(tensor).find("stale tensor"), std::string::npos);
}

TEST(Tensor, IsStaleOnceItsFrameEnded) {
  Scene scene(4096);
  Tensor inner, outer;
  {
    const Frame frame(scene.arena);
    outer = Fresh::make(scene.context, {4}).value().freeze();
    {
      const Frame nested(scene.arena);
      inner = Fresh::make(scene.context, {4}).value().freeze();
      EXPECT_TRUE(inner.alive());
    }
    EXPECT_FAILS(inner.check("add"), Errc::stale_tensor);
    EXPECT_TRUE(outer.alive());
  }
  EXPECT_FAILS(outer.check("add"), Errc::stale_tensor);
}

TEST(Tensor, InAContextIsStaleOnceTheContextsScopeEnded) {
  const Owned owned = counting({4});
  Block* scope = acquire_block().value();
  Context context;
  context.scope = lifetime_of(scope);
  const Tensor input = owned.tensor().in(context);
  EXPECT_EQ(input.context(), &context);
  EXPECT_TRUE(input.alive());
  release_block(scope);
  EXPECT_FAILS(input.check("add"), Errc::stale_tensor);
  EXPECT_TRUE(owned.tensor().alive());
}

// --- Owned, keep --------------------------------------------------------------------------------------------------------------

TEST(Owned, HoldsCopies) {
  std::vector<float> values{1, 2, 3, 4};
  const auto owned = Owned::from<float>(values, {2, 2});
  ASSERT_OK(owned);
  values[0] = 99;
  EXPECT_EQ(owned->tensor().to_vector().value(), (std::vector<float>{1, 2, 3, 4}));
  const auto listed = Owned::from<std::int32_t>({7, 8, 9}, {3});
  EXPECT_EQ(listed.value().tensor().to_vector<std::int32_t>().value(), (std::vector<std::int32_t>{7, 8, 9}));
  EXPECT_EQ(Owned::zeros({3}, DType::u8).value().tensor().to_vector<std::uint8_t>().value(),
            (std::vector<std::uint8_t>(3)));
}

TEST(Owned, RefusesWhatDoesNotFit) {
  EXPECT_FAILS(Owned::from<float>({1, 2, 3}, {2, 2}), Errc::invalid_size);
  EXPECT_FAILS(Owned::from<float>({}, {-1}), Errc::invalid_size);
  EXPECT_FAILS(Owned::zeros({-1}), Errc::invalid_size);
  const Tensor nothing(nullptr, DType::f32, Layout::dense({0}), {});
  EXPECT_EQ(keep(nothing).value().tensor().numel(), 0u);
  EXPECT_EQ(nothing.values<float>().value().size(), 0u);
  QORUS_NEEDS_ALLOCATION_COUNTER();
  EXPECT_FAILS(Owned::zeros({std::int64_t{1} << 47}), Errc::out_of_memory);
}

TEST(Owned, MovesWithItsTensors) {
  Owned first = counting({3});
  const Tensor tensor = first;
  const Owned second = std::move(first);
  EXPECT_TRUE(tensor.alive());
  EXPECT_EQ(tensor.at<float>({2}).value(), 2.0f);
  Owned third;
  EXPECT_EQ(third.tensor().numel(), 0u);
}

TEST(Owned, IsFilledOnlyAsItsType) {
  Owned owned = Owned::zeros({2}, DType::i32).value();
  EXPECT_TRUE(owned.fill<float>().empty());
  ASSERT_EQ(owned.fill<std::int32_t>().size(), 2u);
  owned.fill<std::int32_t>()[1] = 5;
  EXPECT_EQ(owned.tensor().at<std::int32_t>({1}).value(), 5);
}

TEST(Owned, KeepsAResultBeyondItsFrame) {
  Scene scene(4096);
  Owned kept;
  {
    const Frame frame(scene.arena);
    Fresh fresh = Fresh::make(scene.context, {2, 3}).value();
    std::iota(fresh.f32(), fresh.f32() + 6, 0.0f);
    const Tensor tensor = std::move(fresh).freeze();
    const int swap[] = {1, 0};
    kept = keep(tensor.seen_as(tensor.layout().permuted(swap).value())).value();
  }
  EXPECT_EQ(kept.tensor().to_vector().value(), (std::vector<float>{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(kept.tensor().shape(), (Shape{3, 2}));
  EXPECT_EQ(keep(counting({0, 4})).value().tensor().numel(), 0u);
}

// --- Fresh -------------------------------------------------------------------------------------------------------------------

TEST(Fresh, FreezesIntoATensorOfItsContext) {
  Scene scene(4096);
  Fresh fresh = Fresh::make(scene.context, {3}, DType::i32).value();
  EXPECT_EQ(fresh.shape(), (Shape{3}));
  for (int i = 0; i < 3; ++i) fresh.i32()[i] = i * i;
  const Tensor tensor = std::move(fresh).freeze();
  EXPECT_EQ(tensor.context(), &scene.context);
  EXPECT_FALSE(tensor.tracked());
  EXPECT_EQ(tensor.to_vector<std::int32_t>().value(), (std::vector<std::int32_t>{0, 1, 4}));
}

TEST(Fresh, SaysWhyThereIsNone) {
  Scene scene(4096);
  EXPECT_FAILS(Fresh::make(scene.context, {-1}), Errc::invalid_size);
  EXPECT_FAILS(Fresh::make(scene.context, {2000}), Errc::out_of_memory);
  EXPECT_FAILS(Fresh::make(scene.context, {std::int64_t{1} << 47}), Errc::out_of_memory);
  scene.context.failure = fail(Errc::not_built, "workspace", "").value();
  EXPECT_FAILS(Fresh::make(scene.context, {1}), Errc::not_built);
}

TEST(Fresh, IsRecordedOnlyWhenAnInputIsTrackedAndATapeRecords) {
  struct Saved {
    int value;
  };
  static int records = 0, seen = 0;
  static Node node;
  Scene scene(4096);
  const Owned elsewhere = counting({2}), third = counting({2});
  const Tensor constant = third, tracked = elsewhere.tensor().with_slot(5);
  const auto freeze = [&](const Tensor& input) {
    return Fresh::make(scene.context, {2}).value().freeze(RuleRef{3}, {&input, &constant, &input}, Saved{42});
  };
  EXPECT_FALSE(freeze(tracked).value().tracked());  // no tape
  scene.context.record = [](Context&, const Node& recorded, const void* saved,
                            std::size_t size) noexcept -> Result<std::uint32_t> {
    ++records;
    node = recorded;
    if (size == sizeof(Saved)) std::memcpy(&seen, saved, sizeof seen);
    if (records == 2) return fail(Errc::out_of_memory, "tape", "full");
    return 17u;
  };
  EXPECT_FALSE(freeze(constant).value().tracked());
  EXPECT_EQ(records, 0);
  const Tensor result = freeze(tracked).value();
  EXPECT_EQ(result.grad_ref().slot, 17u);
  EXPECT_EQ(result.grad_ref().numel, 2u);
  EXPECT_EQ(seen, 42);
  EXPECT_EQ(node.rule.builtin, 3);
  EXPECT_EQ(node.out_numel, 2u);
  ASSERT_EQ(node.read_count, 2);  // two blocks outside the tape's frame, one of them read twice
  EXPECT_EQ(node.reads[0].block, elsewhere.tensor().lifetime().block);
  EXPECT_FALSE(result.seen_as(result.layout()).tracked());
  EXPECT_FAILS(freeze(tracked), Errc::out_of_memory);
}

TEST(GradRef, OfAParameterNamesItsPlaceInItsBlock) {
  auto slab = Slab::create(40 * sizeof(float));
  ASSERT_OK(slab);
  slab->block()->base = reinterpret_cast<const float*>(slab->data());
  const Tensor all(slab->data(), DType::f32, Layout::dense({40}), slab->lifetime());
  const Tensor leaf = all.seen_as(all.layout().sliced(0, 16, 26, 1).value()).with_slot(GradRef::k_leaf | 1);
  const GradRef ref = leaf.grad_ref();
  EXPECT_TRUE(ref.leaf());
  EXPECT_EQ(ref.block, slab->block());
  EXPECT_EQ(ref.offset, 16u);
  EXPECT_EQ(ref.numel, 10u);
  EXPECT_FALSE(all.grad_ref());
}

// --- parallel -----------------------------------------------------------------------------------------------------------------

TEST(Parallel, RunsEveryTaskOnceOnWhateverExecutor) {
  Context context;
  std::vector<int> hits(100);
  const auto count = [&](std::uint32_t i, int) { ++hits[i]; };
  parallel(context, 100, count);
  context.executor = {nullptr, 3, [](void*, std::uint32_t tasks, void (*task)(void*, std::uint32_t, int), void* user) {
                        while (tasks) task(user, --tasks, 1);  // backwards
                      }};
  parallel(context, 100, count);
  EXPECT_EQ(hits, std::vector<int>(100, 2));
  context.planning = true;
  parallel(context, 100, count);
  EXPECT_EQ(hits, std::vector<int>(100, 2));
}

TEST(Parallel, CutsInPiecesThatCoverAll) {
  Context context;
  for (const std::size_t n : {0, 1, 7, 8, 9, 64, 100}) {
    std::vector<int> hits(n);
    parallel_chunks(context, n, 8, [&](std::size_t begin, std::size_t end) {
      EXPECT_LE(end - begin, 8u);
      for (std::size_t i = begin; i < end; ++i) ++hits[i];
    });
    EXPECT_EQ(hits, std::vector<int>(n, 1));
  }
}

TEST(Context, DrawsNeverOverlap) {
  Context context;
  EXPECT_EQ(context.draw(5), 0u);
  EXPECT_EQ(context.draw(4), 8u);
  EXPECT_EQ(context.draw(1), 12u);
  EXPECT_EQ(context.draw(0), 16u);
}

// --- printing -------------------------------------------------------------------------------------------------------------------

TEST(Format, WritesNestedRows) {
  EXPECT_EQ(to_string(counting({2, 3})), "[[0, 1, 2],\n [3, 4, 5]] f32 [2,3]");
  EXPECT_EQ(to_string(counting({2, 1, 2})), "[[[0, 1]],\n [[2, 3]]] f32 [2,1,2]");
  EXPECT_EQ(to_string(counting({})), "0 f32 []");
  EXPECT_EQ(to_string(counting({0})), "[] f32 [0]");
  EXPECT_EQ(to_string(counting({2, 0})), "[[],\n []] f32 [2,0]");
}

TEST(Format, ShortensLongAxes) {
  EXPECT_EQ(to_string(counting({8})), "[0, 1, 2, 3, 4, 5, 6, 7] f32 [8]");
  EXPECT_EQ(to_string(counting({9})), "[0, 1, 2, 3, ..., 5, 6, 7, 8] f32 [9]");
  EXPECT_EQ(to_string(counting({1000})), "[0, 1, 2, 3, ..., 996, 997, 998, 999] f32 [1000]");
  const std::string tall = to_string(counting({100, 1}));
  EXPECT_EQ(tall, "[[0],\n [1],\n [2],\n [3],\n ...,\n [96],\n [97],\n [98],\n [99]] f32 [100,1]");
}

TEST(Format, WritesEveryType) {
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(to_string(Owned::from<float>({1.5f, -0.25f, 1e-10f, 123456789.0f, inf, -inf}, {6}).value()),
            "[1.5, -0.25, 1e-10, 1.2346e+08, inf, -inf] f32 [6]");
  EXPECT_NE(to_string(Owned::from<float>({NAN}, {1}).value()).find("nan"), std::string::npos);
  EXPECT_EQ(to_string(Owned::from<std::int32_t>({-2147483647 - 1, 2147483647}, {2}).value()),
            "[-2147483648, 2147483647] i32 [2]");
  EXPECT_EQ(to_string(Owned::from<std::int8_t>({-128, 127}, {2}).value()), "[-128, 127] i8 [2]");
  EXPECT_EQ(to_string(Owned::from<std::uint8_t>({0, 255}, {2}).value()), "[0, 255] u8 [2]");
  const std::uint16_t halves[] = {0x3C00, 0xC100, 0x0001, 0x7C00, 0x7BFF, 0x7C01}, brains[] = {0x3F80, 0xC020};
  const auto bits = [](const std::uint16_t* data, DType dtype, std::int64_t n) {
    return Tensor(reinterpret_cast<const std::byte*>(data), dtype, Layout::dense({n}), {});
  };
  EXPECT_EQ(to_string(bits(halves, DType::f16, 5)), "[1, -2.5, 5.9605e-08, inf, 65504] f16 [5]");
  EXPECT_EQ(to_string(bits(brains, DType::bf16, 2)), "[1, -2.5] bf16 [2]");
  EXPECT_NE(to_string(bits(halves + 5, DType::f16, 1)).find("nan"), std::string::npos);
  Scene scene(4096), plan(4096);
  plan.context.planning = true;
  const Owned one = counting({1});
  EXPECT_EQ(to_string(one.tensor().in(scene.context)), "[0] f32 [1]");
  EXPECT_EQ(to_string(one.tensor().in(plan.context)), " f32 [1]");  // a shape without elements
}

TEST(Format, FollowsStrides) {
  const Owned owned = counting({2, 3});
  const int swap[] = {1, 0};
  const Tensor turned = owned.tensor().seen_as(owned.tensor().layout().permuted(swap).value());
  EXPECT_EQ(to_string(turned), "[[0, 3],\n [1, 4],\n [2, 5]] f32 [3,2]");
}

TEST(Format, CutsToTheRoomThereIsAndAlwaysTerminates) {
  const Owned owned = counting({2, 3});
  const std::string whole = to_string(owned);
  EXPECT_EQ(format(owned, {}), whole.size());
  for (std::size_t room = 1; room <= whole.size() + 3; ++room) {
    std::string text(room, '#');
    EXPECT_EQ(format(owned, text), whole.size());
    EXPECT_STREQ(text.c_str(), whole.substr(0, std::min(room - 1, whole.size())).c_str());
  }
}

TEST(Format, ReadsTheSameInEveryLocale) {
  const Owned owned = Owned::from<float>({1.5f}, {1}).value();
  for (const char* name : {"de_DE.UTF-8", "fr_FR.UTF-8", "C"}) {
    if (std::setlocale(LC_ALL, name)) EXPECT_EQ(to_string(owned), "[1.5] f32 [1]") << name;
  }
  std::setlocale(LC_ALL, "C");
}

TEST(Format, AllocatesNothing) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const Owned owned = counting({20, 30});
  std::array<char, 2000> text{};
  EXPECT_EQ(allocations_of([&] { format(owned, text); }), 0u);
}

}  // namespace
