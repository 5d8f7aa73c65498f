// What a model remembers of the tokens so far: keys and values of every layer and position.
export module qorus.llm:cache;
import qorus.std;
import qorus.ops;
import :config;

export namespace qorus::llm {

// Keys and values of several sequences in one block: [sequence, layer, keys and values, kv_head, position, head_dim]. f32, or f16, or
// q8_0: then what is read back is what the format could keep.
class KvCache {
 public:
  KvCache() noexcept = default;
  // Errors: overflow, out_of_memory, invalid_dtype (not one of the three, or q8_0 with heads that are not whole blocks).
  [[nodiscard]] static Result<KvCache> create(const Config& config, std::int64_t positions, int sequences = 1,
                                              DType dtype = DType::f32) noexcept;
  [[nodiscard]] std::int64_t size(int sequence = 0) const noexcept {  // positions taken
    return sizes_[static_cast<std::size_t>(sequence)];
  }
  [[nodiscard]] std::int64_t capacity() const noexcept { return capacity_; }  // positions in all, of each sequence
  [[nodiscard]] int sequences() const noexcept { return static_cast<int>(sizes_.size()); }
  [[nodiscard]] DType dtype() const noexcept { return dtype_; }
  [[nodiscard]] std::size_t bytes_per_position() const noexcept;  // of one sequence, all layers
  // Writes the keys and values [1, kv_heads, n, head_dim] of one layer at the positions after size(): the one place that changes it.
  // Errors: invalid_size (no room, or another shape), stale_tensor, out_of_memory (of the workspace).
  [[nodiscard]] Status append(int sequence, std::int64_t layer, const Tensor& keys, const Tensor& values) noexcept;
  void advance(int sequence, std::int64_t positions) noexcept {  // once all layers have theirs
    sizes_[static_cast<std::size_t>(sequence)] += positions;
  }
  void truncate(int sequence, std::int64_t positions) noexcept;
  // Makes the first positions of one sequence those of another, which ends there.
  void copy(int from, int to, std::int64_t positions) noexcept;
  // The first `positions` of one layer: [1, kv_heads, positions, head_dim], as they are stored.
  [[nodiscard]] Tensor keys(int sequence, std::int64_t layer, std::int64_t positions) const noexcept {
    return view(sequence, 2 * layer, positions);
  }
  [[nodiscard]] Tensor values(int sequence, std::int64_t layer, std::int64_t positions) const noexcept {
    return view(sequence, 2 * layer + 1, positions);
  }
  // Calls f(bytes) -> Status for each stretch of what the first positions of a sequence hold, always in the same order; for saving
  // and restoring.
  template <class F>
  [[nodiscard]] Status each_stretch(int sequence, std::int64_t positions, F&& f) noexcept {
    for (std::int64_t half = 0; half < 2 * layers_ * kv_heads_; ++half) {
      if (auto done = f(place(sequence, half / kv_heads_, half % kv_heads_, 0),
                        row_bytes_ * static_cast<std::size_t>(positions));
          !done)
        return done;
    }
    return {};
  }

 private:
  [[nodiscard]] Tensor view(int sequence, std::int64_t half, std::int64_t positions) const noexcept;
  [[nodiscard]] std::byte* place(int sequence, std::int64_t half, std::int64_t head,
                                 std::int64_t position) const noexcept;
  Arena arena_;  // address space: memory is taken as it fills
  Slice rows_;
  DType dtype_ = DType::f32;
  std::int64_t layers_ = 0, kv_heads_ = 0, head_dim_ = 0, capacity_ = 0;
  std::size_t row_bytes_ = 0;  // of one head's key
  List<std::int64_t> sizes_;
};

}  // namespace qorus::llm
