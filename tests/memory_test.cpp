// qorus.memory without its files (file_test.cpp): errors and their text, checked sizes, List, arenas, slabs, the host.
#include "tests/testing.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

import qorus.memory;

using namespace qorus;
using qorus_test::allocations_of;
using qorus_test::FailingAllocations;

namespace {

std::string text_of(const Error& error) { return error.message().c_str(); }
std::string text_of(const tl::unexpected<Error>& failure) { return text_of(failure.value()); }

// --- the counter itself: a zero that it reports must mean something ---------------------------------------------------

// Hands a pointer on in a way that the compiler cannot see through, so that it optimises no allocation away.
void* seen(void* place) {
  static void* volatile g_place = nullptr;
  g_place = place;
  return g_place;
}

TEST(AllocationCounter, SeesEveryDoorToTheHeap) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  struct alignas(128) Wide {
    char bytes[128];
  };
  EXPECT_EQ(allocations_of([] {}), 0u);
  EXPECT_EQ(allocations_of([] { std::free(seen(std::malloc(10))); }), 1u);
  EXPECT_EQ(allocations_of([] { std::free(seen(std::calloc(2, 10))); }), 1u);
  EXPECT_EQ(allocations_of([] { std::free(seen(std::realloc(seen(std::malloc(1)), 5000))); }), 2u);
  EXPECT_EQ(allocations_of([] { std::free(seen(std::aligned_alloc(64, 64))); }), 1u);
  EXPECT_EQ(allocations_of([] {
              auto* made = new Wide;
              delete static_cast<Wide*>(seen(made));
            }),
            1u);
  EXPECT_EQ(allocations_of([] {
              std::vector<int> list(100);
              seen(list.data());
            }),
            1u);
  EXPECT_GE(allocations_of([] { std::thread([] {}).join(); }), 1u);
  EXPECT_GE(allocations_of([&] { std::thread([] { std::free(seen(std::malloc(10))); }).join(); }), 2u);
}

TEST(AllocationCounter, FailsFromTheOneThatIsAskedFor) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  void* got[3] = {};
  {
    const FailingAllocations after_two(2);
    for (void*& place : got) place = seen(std::malloc(8));
  }
  EXPECT_TRUE(got[0] && got[1] && !got[2]);
  for (void* place : got) std::free(place);
  void* again = seen(std::malloc(8));
  EXPECT_NE(again, nullptr);
  std::free(again);
}

// --- Error ------------------------------------------------------------------------------------------------------------

TEST(Error, IsTriviallyCopyableAndMakingOneAllocatesNothing) {
  static_assert(std::is_trivially_copyable_v<Error>);
  QORUS_NEEDS_ALLOCATION_COUNTER();
  std::size_t length = 0;
  EXPECT_EQ(allocations_of([&] {
              const auto failure =
                  fail(Errc::invalid_size, "matmul", "inner sizes differ", Dims{{32, 128}, 2}, Dims{{64, 10}, 2});
              length = failure.value().about("model.safetensors").message().view().size();
              length += fail_system(ENOSPC, "save", "cannot write", "x").value().message().view().size();
            }),
            0u);
  EXPECT_GT(length, 40u);
}

TEST(Error, ReadsAsOneLine) {
  const Dims a{.extent = {32, 128}, .rank = 2}, b{.extent = {64, 10}, .rank = 2}, scalar{.extent = {}, .rank = 0};
  EXPECT_EQ(text_of(fail(Errc::invalid_size, "matmul", "inner sizes differ", a, b)),
            "matmul: invalid size: [32,128] and [64,10]: inner sizes differ");
  EXPECT_EQ(text_of(fail(Errc::invalid_size, "item", "needs exactly one element", a)),
            "item: invalid size: [32,128]: needs exactly one element");
  EXPECT_EQ(text_of(fail(Errc::invalid_size, "add", "", scalar, a)), "add: invalid size: [] and [32,128]");
  EXPECT_EQ(text_of(fail(Errc::corrupt, "idx", "the header is cut", "train-images")),
            "idx: train-images: corrupt: the header is cut");
  EXPECT_EQ(text_of(Error{}), "ok");
}

TEST(Error, EveryCodeHasItsOwnName) {
  std::set<std::string> names;
  for (int code = 0; code < k_errc_count; ++code) names.insert(std::string(to_string(static_cast<Errc>(code))));
  EXPECT_EQ(names.size(), static_cast<std::size_t>(k_errc_count));
  EXPECT_FALSE(names.contains(""));
  EXPECT_EQ(to_string(Errc::diverged), "diverged");
  EXPECT_EQ(to_string(static_cast<Errc>(k_errc_count)), "unknown");
}

TEST(Error, ShowsExtentsOfAnySizeAndSign) {
  constexpr std::int64_t low = std::numeric_limits<std::int64_t>::min(),
                         high = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(text_of(fail(Errc::overflow, "op", "", Dims{.extent = {low, high, 0}, .rank = 3})),
            "op: overflow: [-9223372036854775808,9223372036854775807,0]");
  EXPECT_EQ(text_of(fail(Errc::overflow, "op", "", Dims{.extent = {1, 2, 3, 4, 5, 6}, .rank = 100})),
            "op: overflow: [1,2,3,4,5,6]");
}

TEST(Error, KeepsTheEndOfALongSubject) {
  const Error error = fail(Errc::not_found, "open", "").value();
  EXPECT_STREQ(error.about(std::string(95, 'p')).subject.data(), std::string(95, 'p').c_str());
  const std::string shortened = error.about(std::string(200, 'a') + "/the-end.idx").subject.data();
  EXPECT_EQ(shortened.size(), 95u);
  EXPECT_EQ(shortened.substr(0, 4), "...a");
  EXPECT_EQ(shortened.substr(shortened.size() - 12), "/the-end.idx");
}

TEST(Error, DoesNotCutALetterOfTheSubjectInHalf) {
  std::string name;
  while (name.size() < 300) name += "\xE2\x82\xAC";  // a three-byte letter
  for (int shift = 0; shift < 3; ++shift) {
    const std::string shortened =
        fail(Errc::io, "open", "").value().about(name + std::string(shift, 'x')).subject.data();
    EXPECT_EQ(shortened.substr(0, 6), "...\xE2\x82\xAC");
  }
}

TEST(Error, NamesTheSystemsReason) {
  EXPECT_EQ(text_of(fail_system(ENOSPC, "save", "cannot write", "out.bin")),
            "save: out.bin: input/output error: cannot write: No space left on device");
  EXPECT_EQ(fail_system(ENOENT, "open", "", "x").value().code, Errc::not_found);
  EXPECT_EQ(fail_system(ENOMEM, "open", "", "x").value().code, Errc::out_of_memory);
  EXPECT_EQ(fail_system(EACCES, "open", "", "x").value().code, Errc::io);
  EXPECT_NE(text_of(fail_system(123456, "open", "", "x")).find("unknown error"), std::string::npos);
}

TEST(Error, RemembersWhereItWasMade) {
  const Error error = fail(Errc::io, "open", "").value();
  EXPECT_NE(std::string(error.where.file_name()).find("memory_test.cpp"), std::string::npos);
  EXPECT_EQ(fail(error).value().where.line(), error.where.line());
}

TEST(Text, IsCutAtItsEndAndStaysTerminated) {
  Text text;
  for (int i = 0; i < 100; ++i) text += "0123456789";
  EXPECT_EQ(text.view().size(), text.bytes.size() - 1);
  EXPECT_EQ(std::strlen(text.c_str()), text.view().size());
  text += std::int64_t{7};
  EXPECT_EQ(text.view().size(), text.bytes.size() - 1);
  EXPECT_EQ(text_of(fail(Errc::io, "op", std::string(1000, 'z').c_str())).size(), text.bytes.size() - 1);
}

TEST(Result, FlowsThroughAPipeline) {
  const auto half = [](int n) -> Result<int> {
    if (n % 2) return fail(Errc::invalid_argument, "half", "odd");
    return n / 2;
  };
  EXPECT_EQ(half(12).and_then(half).transform([](int n) { return n + 1; }).value(), 4);
  EXPECT_FAILS(half(6).and_then(half).and_then(half), Errc::invalid_argument);
  EXPECT_FAILS_SAYING(half(3), "half: invalid argument: odd");
}

// --- Checked ------------------------------------------------------------------------------------------------------------

constexpr std::uint64_t k_max = std::numeric_limits<std::uint64_t>::max();

TEST(Checked, CountsExactlyUpToTheLastValue) {
  EXPECT_EQ((Checked(3) * 5 + 1 - 6).get("t").value(), 10u);
  EXPECT_EQ((Checked(k_max - 1) + 1).value_or(0), k_max);
  EXPECT_EQ((Checked(std::uint64_t{1} << 32) * ((std::uint64_t{1} << 32) - 1)).value_or(0), k_max - 0xFFFFFFFFu);
  EXPECT_EQ((Checked(7) - 7).value_or(1), 0u);
}

TEST(Checked, NeverForgetsAnOverflow) {
  EXPECT_FALSE((Checked(k_max) + 1).ok());
  EXPECT_FALSE((Checked(0) - 1).ok());
  EXPECT_FALSE((Checked(std::uint64_t{1} << 32) * (std::uint64_t{1} << 32)).ok());
  EXPECT_FALSE((Checked(k_max) * 2 * 0 + 5).ok());
  EXPECT_FALSE((Checked(5) - (Checked(0) - 1)).ok());
  EXPECT_EQ((Checked(k_max) + 1).value_or(42), 42u);
  EXPECT_FAILS((Checked(k_max) * 2).get("load"), Errc::overflow);
  EXPECT_FAILS_SAYING((Checked(k_max) * 2).get("load"), "load: overflow");
}

TEST(Checked, AlignsUpOrOverflows) {
  EXPECT_EQ(Checked(0).aligned(64).value_or(1), 0u);
  EXPECT_EQ(Checked(1).aligned(64).value_or(0), 64u);
  EXPECT_EQ(Checked(64).aligned(64).value_or(0), 64u);
  EXPECT_EQ(Checked(65).aligned(64).value_or(0), 128u);
  EXPECT_EQ(Checked(k_max - 63).aligned(64).value_or(0), k_max - 63);
  EXPECT_FALSE(Checked(k_max - 62).aligned(64).ok());
  for (std::size_t n = 0; n < 300; ++n) EXPECT_EQ(align_up(n), Checked(n).aligned(k_alignment).value_or(1));
}

TEST(Sizes, HaveLiterals) {
  EXPECT_EQ(3_KiB, 3072u);
  EXPECT_EQ(2_MiB, 2u << 20);
  EXPECT_EQ(5_GiB, std::size_t{5} << 30);
}

// --- List -----------------------------------------------------------------------------------------------------------------

// Counts how many are alive, and refuses to be copied.
struct Tracked {
  static inline int alive = 0;
  int value = 0;
  explicit Tracked(int v = 0) noexcept : value(v) { ++alive; }
  Tracked(Tracked&& other) noexcept : value(std::exchange(other.value, -1)) { ++alive; }
  Tracked& operator=(Tracked&&) = delete;
  ~Tracked() { --alive; }
};

TEST(List, KeepsWhatIsPushedThroughItsGrowth) {
  List<Tracked> list;
  EXPECT_TRUE(list.empty());
  for (int i = 0; i < 1000; ++i) ASSERT_OK(list.push(Tracked(i)));
  EXPECT_EQ(Tracked::alive, 1000);
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(list[i].value, i);
  EXPECT_EQ(list.back().value, 999);
  EXPECT_EQ(list.end() - list.begin(), 1000);
  EXPECT_EQ(list.span().size(), 1000u);
  ASSERT_OK(list.resize(10));
  EXPECT_EQ(Tracked::alive, 10);
  ASSERT_OK(list.resize(20));
  EXPECT_EQ(list[19].value, 0);
  List<Tracked> other = std::move(list);
  EXPECT_TRUE(list.empty());  // NOLINT(bugprone-use-after-move): it says what is left
  EXPECT_EQ(other.size(), 20u);
  EXPECT_EQ(Tracked::alive, 20);
  other.clear();
  EXPECT_EQ(Tracked::alive, 0);
}

TEST(List, DestroysItsElements) {
  {
    List<Tracked> a, b;
    for (int i = 0; i < 9; ++i) ASSERT_OK(a.push(Tracked(i)));
    ASSERT_OK(b.push(Tracked(100)));
    a = std::move(b);
    EXPECT_EQ(a.size(), 1u);
    EXPECT_EQ(a[0].value, 100);
  }
  EXPECT_EQ(Tracked::alive, 0);
}

TEST(List, PushesOneOfItsOwnElementsWhileGrowing) {
  List<int> list;
  for (int i = 0; i < 8; ++i) ASSERT_OK(list.push(i + 100));
  ASSERT_OK(list.push(list[3]));  // the push that grows
  EXPECT_EQ(list[8], 103);
}

TEST(List, AppendsAndClones) {
  List<int> list;
  const std::vector<int> more{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  ASSERT_OK(list.append({}));
  ASSERT_OK(list.append(more));
  ASSERT_OK(list.append(more));
  EXPECT_EQ(list.size(), 22u);
  EXPECT_EQ(list[21], 11);
  auto copy = list.clone();
  ASSERT_OK(copy);
  list[0] = 77;
  EXPECT_EQ((*copy)[0], 1);
  EXPECT_EQ(copy->size(), 22u);
  EXPECT_EQ(List<int>().clone().value().size(), 0u);
}

TEST(List, KeepsTheAlignmentOfItsElements) {
  struct alignas(128) Wide {
    float lanes[32];
  };
  List<Wide> list;
  for (int i = 0; i < 20; ++i) ASSERT_OK(list.push(Wide{}));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(list.data()) % 128, 0u);
}

TEST(List, ReservedRoomIsNotAllocatedAgain) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  List<int> list;
  ASSERT_OK(list.reserve(1000));
  EXPECT_EQ(allocations_of([&] {
              for (int i = 0; i < 1000; ++i) (void)list.push(i);
            }),
            0u);
}

TEST(List, StaysWholeWhenMemoryRunsOut) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  List<Tracked> list;
  for (int i = 0; i < 8; ++i) ASSERT_OK(list.push(Tracked(i)));
  List<int> numbers;
  Status pushed, resized, reserved, appended;
  {
    const FailingAllocations none;
    pushed = list.push(Tracked(8));
    resized = list.resize(50);
    reserved = list.reserve(9);
    const int values[] = {1, 2, 3};
    appended = numbers.append(values);
  }
  for (const Status& status : {pushed, resized, reserved, appended}) EXPECT_FAILS(status, Errc::out_of_memory);
  EXPECT_EQ(list.size(), 8u);
  EXPECT_EQ(Tracked::alive, 8);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(list[i].value, i);
  EXPECT_TRUE(numbers.empty());
  ASSERT_OK(numbers.push(1));
  Errc cloned = Errc::ok;
  {
    const FailingAllocations none;
    if (auto copy = numbers.clone(); !copy) cloned = copy.error().code;
  }
  EXPECT_EQ(cloned, Errc::out_of_memory);
}

TEST(List, RefusesSizesThatOverflow) {
  List<double> list;
  EXPECT_FAILS(list.reserve(k_max / 4), Errc::overflow);
  EXPECT_FAILS(list.resize(k_max), Errc::overflow);
  EXPECT_TRUE(list.empty());
}

// --- blocks, slabs --------------------------------------------------------------------------------------------------------

TEST(Lifetime, OfNoBlockNeverEnds) { EXPECT_TRUE(Lifetime{}.alive()); }

TEST(Lifetime, EndsWithTheBlockAndStaysEndedWhenItIsTakenAgain) {
  Block* block = acquire_block().value();
  const Lifetime first = lifetime_of(block);
  EXPECT_TRUE(first.alive());
  release_block(block);
  EXPECT_FALSE(first.alive());
  Block* again = acquire_block().value();  // the pool hands out what came back last
  EXPECT_EQ(again, block);
  EXPECT_FALSE(first.alive());
  EXPECT_TRUE(lifetime_of(again).alive());
  release_block(again);
  release_block(nullptr);
}

TEST(Lifetime, BlocksAreDistinctAndClean) {
  std::vector<Block*> blocks;
  for (int i = 0; i < 500; ++i) blocks.push_back(acquire_block().value());
  EXPECT_EQ(std::set<Block*>(blocks.begin(), blocks.end()).size(), blocks.size());
  blocks[7]->leaf_count = 3;
  blocks[7]->floats = 12;
  for (Block* block : blocks) release_block(block);
  for (Block*& block : blocks) block = acquire_block().value();
  for (const Block* block : blocks) EXPECT_TRUE(!block->base && !block->floats && !block->leaves && !block->leaf_count);
  for (Block* block : blocks) release_block(block);
}

TEST(Lifetime, PoolServesManyThreads) {
  std::vector<std::thread> threads;
  std::atomic<int> shared{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        auto block = acquire_block();
        if (!block || (*block)->floats != 0) return (void)++shared;
        (*block)->floats = 1;  // would be seen by another holder
        release_block(*block);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(shared.load(), 0);
}

TEST(Lifetime, PoolSaysWhenMemoryRunsOut) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  std::vector<Block*> taken;
  taken.reserve(10000);
  Errc code = Errc::ok;
  {
    const FailingAllocations none;
    while (code == Errc::ok && taken.size() < 10000) {
      auto block = acquire_block();
      if (block) {
        taken.push_back(*block);
      } else {
        code = block.error().code;
      }
    }
  }
  EXPECT_EQ(code, Errc::out_of_memory);
  for (Block* block : taken) release_block(block);
}

TEST(Slab, IsZeroAlignedAndOfItsSize) {
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{64}, std::size_t{1000}, 3_MiB}) {
    auto slab = Slab::create(bytes);
    ASSERT_OK(slab);
    EXPECT_EQ(slab->size(), bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(slab->data()) % k_alignment, 0u);
    for (std::size_t i = 0; i < bytes; i += 13) ASSERT_EQ(slab->data()[i], std::byte{0});
  }
}

TEST(Slab, EndsItsLifetimeWhereverItWasMoved) {
  Slab outer;
  EXPECT_EQ(outer.data(), nullptr);
  EXPECT_TRUE(outer.lifetime().alive());
  Lifetime life;
  {
    auto slab = Slab::create(100);
    ASSERT_OK(slab);
    life = slab->lifetime();
    Slab moved = std::move(*slab);
    EXPECT_EQ(slab->data(), nullptr);
    outer = std::move(moved);
  }
  EXPECT_TRUE(life.alive());
  EXPECT_NE(outer.data(), nullptr);
  outer = Slab();
  EXPECT_FALSE(life.alive());
}

TEST(Slab, DiscardLeavesItsNeighboursAlone) {
  auto slab = Slab::create(6_MiB);
  ASSERT_OK(slab);
  std::memset(slab->data(), 7, slab->size());
  for (const std::size_t begin : {std::size_t{100}, 1_MiB, 5_MiB - 1}) {
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{5000}, std::size_t{70001}}) {
      slab->discard(begin, begin + count);
      std::memset(slab->data() + begin, 7, count);
    }
  }
  EXPECT_TRUE(std::all_of(slab->data(), slab->data() + slab->size(), [](std::byte b) { return b == std::byte{7}; }));
}

TEST(Slab, ReportsWhatCannotBeHad) {
  EXPECT_FAILS(Slab::create(k_max), Errc::overflow);
  QORUS_NEEDS_ALLOCATION_COUNTER();
  EXPECT_FAILS(Slab::create(std::size_t{1} << 62), Errc::out_of_memory);
  Errc code = Errc::ok;
  {
    const FailingAllocations none;
    if (auto slab = Slab::create(64); !slab) code = slab.error().code;
  }
  EXPECT_EQ(code, Errc::out_of_memory);
}

// --- Arena ----------------------------------------------------------------------------------------------------------------

TEST(Arena, HandsOutAlignedPiecesThatDoNotOverlap) {
  auto arena = Arena::create(64_KiB);
  ASSERT_OK(arena);
  std::byte* end = nullptr;
  for (std::size_t bytes = 0; bytes < 200; bytes += 7) {
    auto slice = arena->take(bytes);
    ASSERT_OK(slice);
    EXPECT_EQ(slice->size, bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(slice->data) % k_alignment, 0u);
    if (end) EXPECT_GE(slice->data, end);
    std::memset(slice->data, 0xAB, bytes);
    end = slice->data + bytes;
  }
}

TEST(Arena, CountsWhatItGives) {
  auto arena = Arena::create(1);
  ASSERT_OK(arena);
  EXPECT_EQ(arena->counters().capacity, 4096u);
  ASSERT_OK(arena->take(1));
  ASSERT_OK(arena->take(65));
  EXPECT_EQ(arena->counters().in_use, 64u + 128u);
  EXPECT_EQ(arena->mark(), 192u);
  EXPECT_EQ(arena->counters().takes, 2u);
  arena->reset();
  EXPECT_EQ(arena->counters().in_use, 0u);
  EXPECT_EQ(arena->counters().high_water, 192u);
  EXPECT_EQ(arena->counters().rewinds, 1u);
}

TEST(Arena, IsFullToTheLastByteAndNoFurther) {
  auto arena = Arena::create(8192);
  ASSERT_OK(arena);
  EXPECT_FAILS(arena->take(8193), Errc::out_of_memory);
  EXPECT_FAILS(arena->take(k_max), Errc::out_of_memory);
  EXPECT_FAILS(arena->take(k_max - 62), Errc::out_of_memory);
  auto all = arena->take(8192);
  ASSERT_OK(all);
  std::memset(all->data, 1, all->size);
  EXPECT_OK(arena->take(0));
  EXPECT_FAILS(arena->take(1), Errc::out_of_memory);
  EXPECT_FAILS_SAYING(arena->take(1), "too small");
  arena->reset();
  EXPECT_OK(arena->take(8192));
}

TEST(Arena, ReportsWhatCannotBeHad) {
  EXPECT_FAILS(Arena::create(k_max), Errc::overflow);
  EXPECT_FAILS(Arena::create(std::size_t{1} << 60), Errc::out_of_memory);
}

TEST(Arena, ThatWasNeverCreatedHasNoRoom) {
  Arena arena;
  EXPECT_FAILS(arena.take(1), Errc::out_of_memory);
  EXPECT_OK(arena.take(0));
  arena.reset();
}

TEST(Arena, FrameRewindsAndEndsOnlyWhatItHeld) {
  auto arena = Arena::create(64_KiB);
  ASSERT_OK(arena);
  auto before = arena->take(100);
  Lifetime inner_life, outer_life;
  {
    const Frame outer(*arena);
    auto first = arena->take(100);
    outer_life = first->lifetime;
    const std::size_t mark = arena->mark();
    {
      const Frame inner(*arena);
      inner_life = arena->take(1000)->lifetime;
      EXPECT_TRUE(inner_life.alive());
    }
    EXPECT_FALSE(inner_life.alive());
    EXPECT_TRUE(outer_life.alive());
    EXPECT_EQ(arena->mark(), mark);
    auto second = arena->take(100);  // after an inner frame: still the outer frame's
    EXPECT_TRUE(second->lifetime.alive());
    EXPECT_GE(second->data, first->data + 100);
  }
  EXPECT_FALSE(outer_life.alive());
  EXPECT_TRUE(before->lifetime.alive());
  EXPECT_EQ(arena->counters().rewinds, 2u);
  {
    const Frame again(*arena);
    EXPECT_TRUE(arena->take(1)->lifetime.alive());
    EXPECT_FALSE(outer_life.alive());
    EXPECT_FALSE(inner_life.alive());
  }
}

// Opens `depth` frames inside one another and looks at what each held once the inner ones are closed.
void nest(Arena& arena, int depth) {
  if (depth == 0) return;
  const Frame frame(arena);
  const Lifetime own = arena.take(8)->lifetime;
  EXPECT_TRUE(own.alive());
  nest(arena, depth - 1);
}

TEST(Arena, NestsDeeplyAndComesBackEmpty) {
  auto arena = Arena::create(1_MiB);
  ASSERT_OK(arena);
  const Lifetime root = arena->take(64)->lifetime;
  nest(*arena, 100);
  EXPECT_EQ(arena->mark(), 64u);
  EXPECT_TRUE(root.alive());
}

TEST(Arena, ResetAndDestructionEndEverything) {
  Lifetime life, later;
  {
    auto arena = Arena::create(4096);
    ASSERT_OK(arena);
    life = arena->take(8)->lifetime;
    arena->reset();
    EXPECT_FALSE(life.alive());
    later = arena->take(8)->lifetime;
    Arena moved = std::move(*arena);
    EXPECT_TRUE(later.alive());
    EXPECT_EQ(moved.mark(), 64u);
    EXPECT_FAILS(arena->take(1), Errc::out_of_memory);
  }
  EXPECT_FALSE(later.alive());
}

TEST(Arena, ShrinksToAMark) {
  auto arena = Arena::create(4096);
  ASSERT_OK(arena);
  auto kept = arena->take(64);
  const std::size_t mark = arena->mark();
  auto dropped = arena->take(128);
  arena->shrink_to(mark);
  EXPECT_EQ(arena->mark(), mark);
  EXPECT_EQ(arena->take(128)->data, dropped->data);
  arena->shrink_to(100000);  // beyond the end: nothing to drop
  EXPECT_EQ(arena->mark(), mark + 128);
  EXPECT_TRUE(kept->lifetime.alive());
}

TEST(Arena, TakesFromBothEndsUntilTheyMeet) {
  auto arena = Arena::create(64 * 1024);
  ASSERT_OK(arena);
  const Slice low = arena->take(1000).value(), first = arena->take_far(100).value(),
              second = arena->take_far(1).value();
  EXPECT_EQ(first.data, low.data + 64 * 1024 - 128);
  EXPECT_EQ(second.data, first.data - 64);
  EXPECT_EQ(arena->far_mark(), 192u);
  EXPECT_EQ(arena->counters().in_use, 1024u + 192);
  EXPECT_FAILS(arena->take(64 * 1024 - 1024 - 192 + 1), Errc::out_of_memory);
  EXPECT_FAILS(arena->take_far(64 * 1024 - 1024 - 192 + 1), Errc::out_of_memory);
  EXPECT_FAILS(arena->take_far(k_max), Errc::out_of_memory);
  EXPECT_OK(arena->take_far(64 * 1024 - 1024 - 192));
  EXPECT_EQ(arena->counters().high_water, 64u * 1024);
  arena->shrink_far_to(128);
  EXPECT_EQ(arena->take_far(1).value().data, second.data);
  EXPECT_TRUE(first.lifetime.alive());
  arena->shrink_far_to(0);
  EXPECT_FALSE(first.lifetime.alive());
  EXPECT_TRUE(low.lifetime.alive());
  EXPECT_EQ(arena->counters().in_use, 1024u);
}

TEST(Arena, FramesAndResetDropTheFarEnd) {
  auto arena = Arena::create(64 * 1024);
  ASSERT_OK(arena);
  const Slice outer = arena->take_far(64).value();
  Lifetime transient;
  {
    const Frame frame(*arena);
    EXPECT_OK(arena->take_far(64));
    const std::size_t mark = arena->far_mark();
    transient = arena->take_far(64, true).value().lifetime;
    EXPECT_TRUE(transient.alive());
    arena->end_transients(mark);
    EXPECT_FALSE(transient.alive());
    EXPECT_EQ(arena->far_mark(), mark);
  }
  EXPECT_EQ(arena->far_mark(), 64u);
  EXPECT_TRUE(outer.lifetime.alive());
  Arena moved = std::move(*arena);
  EXPECT_EQ(moved.far_mark(), 64u);
  moved.reset();
  EXPECT_EQ(moved.far_mark(), 0u);
  EXPECT_FALSE(outer.lifetime.alive());
}

TEST(Arena, WarmTakesAndRewindsAllocateNothing) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  auto arena = Arena::create(1_MiB);
  ASSERT_OK(arena);
  EXPECT_EQ(allocations_of([&] {
              for (int i = 0; i < 100; ++i) {
                const Frame frame(*arena);
                (void)arena->take(1000);
              }
            }),
            0u);
}

// --- the host ---------------------------------------------------------------------------------------------------------------

TEST(Host, KnowsItsProcessors) {
  EXPECT_GE(cpu_count(), 1);
  EXPECT_LE(cpu_count(), static_cast<int>(std::thread::hardware_concurrency()) + 1);
  const CpuInfo info = cpu_info();
  EXPECT_TRUE((std::set<std::string>{"scalar", "avx2", "avx512"}.contains(info.isa))) << info.isa;
  if (const char* wanted = std::getenv("QORUS_ISA")) {
    if (std::string(wanted) == "scalar") EXPECT_STREQ(info.isa, "scalar");
    if (std::string(wanted) == "avx2") EXPECT_STRNE(info.isa, "avx512");
  }
}

TEST(Host, StopwatchRuns) {
  Stopwatch watch;
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_GE(watch.seconds(), 0.005);
  watch.restart();
  EXPECT_LT(watch.seconds(), 5.0);
}

struct Heard {
  std::string text;
  LogLevel level = LogLevel::debug;
};

TEST(Log, GoesToTheHostsSinkAndNowhereWithoutOne) {
  log(LogLevel::error, "nobody listens");
  Heard heard;
  set_log_sink({[](void* user, LogLevel level, std::string_view text) {
                  static_cast<Heard*>(user)->text = text;
                  static_cast<Heard*>(user)->level = level;
                },
                &heard});
  log(LogLevel::warning, "the loss is flat");
  EXPECT_EQ(heard.text, "the loss is flat");
  EXPECT_EQ(heard.level, LogLevel::warning);
  set_log_sink({});
  log(LogLevel::info, "again nobody");
  EXPECT_EQ(heard.text, "the loss is flat");
}

TEST(Log, NeverPairsOneSinksFunctionWithAnothersUser) {
  static int first = 0, second = 0;
  static std::atomic<int> wrong{0};
  std::atomic<bool> done{false};
  std::thread changer([&] {
    for (int i = 0; i < 20000; ++i) {
      set_log_sink({[](void* user, LogLevel, std::string_view) { wrong += user != &first; }, &first});
      set_log_sink({[](void* user, LogLevel, std::string_view) { wrong += user != &second; }, &second});
    }
    done = true;
  });
  while (!done) log(LogLevel::info, "x");
  changer.join();
  set_log_sink({});
  EXPECT_EQ(wrong.load(), 0);
}

}  // namespace
