// Where a model's weights lie: f32 as the file has them, in its mapping; what products read in another type laid out for them, once,
// when the model is opened, in memory of as many bytes, and let go of in the mapping; vectors in another type as f32 copies.
module;
#include <cstddef>
export module qorus.llm:weights;
import qorus.nn;
import qorus.io;

export namespace qorus::llm {

// Movable; the tensors that it gave stay valid.
class Weights {
 public:
  Weights() noexcept = default;
  // For weights of so many bytes, as their files hold them. Laying out runs on all processors. Errors: out_of_memory.
  [[nodiscard]] static Result<Weights> create(std::size_t bytes) noexcept;
  // Makes `stored`, a view of the file, the parameter's tensor: as it is, but in f32 if it has less than two axes.
  // Errors: out_of_memory, and those of ops::cast.
  [[nodiscard]] Status bind(nn::Param& param, const Tensor& stored) noexcept;
  // Lays out what products need of a bound parameter that has the packs mark. The file's bytes are not read any more then, but for the rows
  // that an embedding looks up. Gives whether it did. Errors: out_of_memory.
  [[nodiscard]] Result<bool> pack(nn::Param& param) noexcept;
  // No more will come: ends the workers.
  void finish() noexcept { workspace_ = Workspace(); }

 private:
  Arena packed_;
  List<Owned> copies_;
  Workspace workspace_;
};

}  // namespace qorus::llm
