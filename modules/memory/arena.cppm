// Scratch memory: one slab of address space, bumped and rewound, never freed piecewise. The system commits a page when it is
// first touched, so a generous arena costs address space, not memory. What comes and goes while other things stay is taken at its far end.
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
  std::size_t mark_, far_mark_;
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
  // The same at the far end, which grows downwards: last taken, first dropped. A slice there is stale once all of it is dropped, a
  // transient one after end_transients, which drops what was taken since the mark. Errors: out_of_memory.
  [[nodiscard]] Result<Slice> take_far(std::size_t bytes, bool transient = false) noexcept;
  void shrink_far_to(std::size_t mark) noexcept;
  void end_transients(std::size_t mark) noexcept;
  [[nodiscard]] std::size_t far_mark() const noexcept { return far_; }
  [[nodiscard]] const Block* far_block() const noexcept { return far_block_; }
  [[nodiscard]] const Block* transient_block() const noexcept { return transient_block_; }
  [[nodiscard]] const ArenaCounters& counters() const noexcept { return counters_; }

 private:
  friend class Frame;
  // Moves one of the two ends, used_ or far_, by so many bytes, aligned, and counts them. Errors: out_of_memory.
  [[nodiscard]] Status grow(std::size_t& end, std::size_t bytes) noexcept;
  static constexpr int k_max_depth = 32;

  std::byte* data_ = nullptr;
  std::size_t size_ = 0, used_ = 0, far_ = 0;
  int depth_ = 0;  // frames open; deeper ones than k_max_depth share the last block
  Block* blocks_[k_max_depth] = {};
  Block *far_block_ = nullptr, *transient_block_ = nullptr;
  ArenaCounters counters_;
};

}  // namespace qorus
