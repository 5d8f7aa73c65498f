// Scratch memory: one slab of address space, bumped and rewound, never freed piecewise. The system commits a page when it is
// first touched, so a generous arena costs address space, not memory.
export module qorus.memory:arena;
import qorus.std;
import :error;
import :size;
import :block;

export namespace qorus {

// A piece of an arena: where it is and how long it lives.
struct Slice {
  std::byte* data = nullptr;
  std::size_t size = 0;
  Lifetime lifetime;
};

struct ArenaCounters {
  std::size_t capacity = 0, in_use = 0, high_water = 0;  // bytes
  std::uint64_t takes = 0, rewinds = 0;
};

class Arena;

// A rewind scope. All that was taken from the arena while it was the innermost frame is stale when it ends.
class Frame {
 public:
  explicit Frame(Arena& arena) noexcept;
  ~Frame();
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;

 private:
  Arena* arena_;
  std::size_t mark_;
};

// One thread at a time. Movable while no frame is open.
class Arena {
 public:
  Arena() noexcept = default;
  // Reserves `bytes` of address space. Errors: out_of_memory, overflow.
  [[nodiscard]] static Result<Arena> create(std::size_t bytes) noexcept;
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();

  // `bytes` of uninitialised memory, 64-byte aligned, valid until the innermost frame ends. Errors: out_of_memory.
  [[nodiscard]] Result<Slice> take(std::size_t bytes) noexcept;
  // Whether the system should back it with huge pages: fewer faults and misses where all of it is used, waste where little is.
  void prefer_huge_pages(bool huge) noexcept;
  // Drops all and ends every lifetime; no frame may be open.
  void reset() noexcept;
  // Drops all that was taken after mark() gave `mark`, lifetimes untouched: for a caller that knows nobody else has any of it.
  void shrink_to(std::size_t mark) noexcept;
  [[nodiscard]] std::size_t mark() const noexcept { return used_; }
  [[nodiscard]] const ArenaCounters& counters() const noexcept { return counters_; }

 private:
  friend class Frame;
  static constexpr int k_max_depth = 32;

  std::byte* data_ = nullptr;
  std::size_t size_ = 0, used_ = 0;
  int depth_ = 0;  // frames open; deeper ones than k_max_depth share the last block
  Block* blocks_[k_max_depth] = {};
  ArenaCounters counters_;
};

}  // namespace qorus
