// Lifetimes that can be checked: every piece of memory that tensors may point into has a Block, and a Block is never freed,
// only given a new generation. So a tensor that outlived its memory finds out by one load, and reads nothing that is gone.
export module qorus.memory:block;
import qorus.std;
import :error;

export namespace qorus {

// One trainable parameter's place in its block, in floats.
struct Leaf {
  std::size_t offset = 0, count = 0;
};

// The identity of a piece of memory. Immortal: taken from and returned to a pool that the process keeps.
struct Block {
  std::atomic<std::uint64_t> generation{1};
  // What a block of parameters says about itself; null and 0 for all others.
  const float* base = nullptr;
  std::size_t floats = 0;
  const Leaf* leaves = nullptr;
  std::uint32_t leaf_count = 0;
  Block* next_free = nullptr;
};

// A block as it was at some moment. The default one belongs to no block and never ends (borrowed memory: the caller's word).
struct Lifetime {
  const Block* block = nullptr;
  std::uint64_t generation = 0;

  [[nodiscard]] bool alive() const noexcept {
    return block == nullptr || block->generation.load(std::memory_order_acquire) == generation;
  }
};

// Takes a block from the pool. Allocates only when the pool is empty. Errors: out_of_memory. Thread-safe.
[[nodiscard]] Result<Block*> acquire_block() noexcept;
// Ends every lifetime of the block and returns it to the pool. Null is allowed. Thread-safe.
void release_block(Block* block) noexcept;

[[nodiscard]] inline Lifetime lifetime_of(const Block* block) noexcept {
  return block ? Lifetime{block, block->generation.load(std::memory_order_relaxed)} : Lifetime{};
}

// An owning handle on aligned memory and its block: zero-filled, 64-byte aligned, movable, freed at the end of its life.
// Every tensor that points into it is stale from then on. Allocates once; a large one takes pages as they are touched. Errors: out_of_memory.
class Slab {
 public:
  Slab() noexcept = default;
  [[nodiscard]] static Result<Slab> create(std::size_t bytes) noexcept;
  Slab(Slab&& other) noexcept;
  Slab& operator=(Slab&& other) noexcept;
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  ~Slab();

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] Block* block() const noexcept { return block_; }
  [[nodiscard]] Lifetime lifetime() const noexcept { return lifetime_of(block_); }
  // Ends the lifetime of every tensor that points here and begins a new one: before the memory is written again.
  void renew() noexcept {
    if (block_) block_->generation.fetch_add(1, std::memory_order_acq_rel);
  }
  // Forgets bytes begin to end-1, whose values are unspecified then: the system gets the whole pages among them back.
  void discard(std::size_t begin, std::size_t end) noexcept;

 private:
  void* taken_ = nullptr;  // what the memory lies in, as it was allocated
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  Block* block_ = nullptr;
};

}  // namespace qorus
