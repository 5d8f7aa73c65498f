// The copy of a model's weights that products read: in the types of its files, laid out once, when the model is opened.
module;
#include <cstddef>
export module qorus.llm:packing;
import qorus.nn;

export namespace qorus::llm {

// One reservation of memory for all of them, of the bytes that they have in the files. Movable; what it laid out stays in place.
class PackedWeights {
 public:
  PackedWeights() noexcept = default;
  // For weights of so many bytes, as their files hold them. Laying out runs on all processors. Errors: overflow, out_of_memory.
  [[nodiscard]] static Result<PackedWeights> create(std::size_t bytes) noexcept;
  // Whether products read this type as it is stored, once it is laid out.
  [[nodiscard]] static bool takes(const Tensor& stored) noexcept;
  // Lays out the tensor of a parameter. Errors: out_of_memory.
  [[nodiscard]] Status pack(nn::Param& param) noexcept;
  // No more will come: ends the workers.
  void finish() noexcept { workspace_ = Workspace(); }

 private:
  Arena arena_;
  Workspace workspace_;
};

}  // namespace qorus::llm
