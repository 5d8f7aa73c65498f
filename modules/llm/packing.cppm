// The copy of a model's weights that products read: in the types of its files, laid out once, behind the back of whoever opened it.
export module qorus.llm:packing;
import qorus.std;
import qorus.nn;

export namespace qorus::llm {

// Whether a weight is laid out yet: once more of them are than its number says. A default one is.
struct Laying {
  const std::atomic<std::size_t>* done = nullptr;
  std::size_t number = 0;
  [[nodiscard]] inline bool over() const noexcept { return !done || done->load(std::memory_order_acquire) > number; }
};

// One reservation of memory for all of them: the bytes that they have in the files, a tenth less for f16 and bf16. Movable; what it lays out
// stays in place. The tensors that it was given must outlive it.
class PackedWeights {
 public:
  struct Work;
  PackedWeights() noexcept = default;
  // For weights of so many bytes, as their files hold them. Errors: overflow, out_of_memory.
  [[nodiscard]] static Result<PackedWeights> create(std::size_t bytes) noexcept;
  PackedWeights(PackedWeights&& other) noexcept
      : arena_(std::move(other.arena_)), work_(std::exchange(other.work_, nullptr)) {}
  PackedWeights& operator=(PackedWeights&& other) noexcept {
    std::swap(arena_, other.arena_);
    std::swap(work_, other.work_);
    return *this;
  }
  ~PackedWeights();  // waits for the tensor at work; the rest is not laid out

  // Whether products read this type as it is stored, once it is laid out.
  [[nodiscard]] static bool takes(const Tensor& stored) noexcept;
  // Gives a parameter the place where its tensor will be laid out. `mapped`: of a mapped file, whose pages are let go then.
  // Errors: out_of_memory.
  [[nodiscard]] Status pack(nn::Param& param, bool mapped) noexcept;
  // Those since the last call are one layer's. Errors: out_of_memory.
  [[nodiscard]] Status end_layer() noexcept;
  // No more will come: a thread of its own begins to lay them out, in this order, with all processors. Errors: out_of_memory.
  [[nodiscard]] Status start() noexcept;
  // Returns when a layer is laid out, or with -1 all of it. Any thread may call it. Errors: those of laying out (out_of_memory).
  [[nodiscard]] Status wait(std::ptrdiff_t layer) const noexcept;
  // That of a parameter that was given a place here.
  [[nodiscard]] Laying laying_of(const nn::Param& param) const noexcept;

  // While one exists that is not empty, no further tensor is laid out, unless somebody waits for it: the processors and the memory are left
  // to who reads the weights as they are stored.
  class Pause {
   public:
    explicit Pause(Work* work) noexcept : work_(work) {}
    Pause(Pause&& other) noexcept : work_(std::exchange(other.work_, nullptr)) {}
    Pause& operator=(Pause&&) = delete;
    ~Pause();
    explicit operator bool() const noexcept { return work_ != nullptr; }

   private:
    Work* work_;
  };
  // The first call of all gives one, if not all is laid out by then; later ones an empty one.
  [[nodiscard]] Pause pause_once() const noexcept;

 private:
  Arena arena_;
  Work* work_ = nullptr;
};

}  // namespace qorus::llm
