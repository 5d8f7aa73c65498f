// Operand: what every operation takes: a tensor, or the result of one. An error in an operand is the operation's error, so that
// expressions and pipes carry the first failure through.
export module qorus.ops:operand;
import qorus.std;
import qorus.tensor;

export namespace qorus {

// Refers to its source; used within one expression only.
class Operand {
 public:
  Operand(const Tensor& tensor) noexcept
      : tensor_(&tensor) {}                       // NOLINT(google-explicit-constructor): that is its purpose
  Operand(const Result<Tensor>& result) noexcept  // NOLINT(google-explicit-constructor)
      : tensor_(result ? &*result : nullptr), error_(result ? nullptr : &result.error()) {}

  [[nodiscard]] bool ok() const noexcept { return tensor_ != nullptr; }
  [[nodiscard]] const Error& error() const noexcept { return *error_; }
  [[nodiscard]] const Tensor& operator*() const noexcept { return *tensor_; }
  [[nodiscard]] const Tensor* operator->() const noexcept { return tensor_; }

 private:
  const Tensor* tensor_;
  const Error* error_ = nullptr;
};

// The workspace that the operands share, all of them alive and valid; the first of their errors otherwise.
// Errors: an operand's own, stale_tensor, invalid_size, no_workspace, invalid_argument (two workspaces).
[[nodiscard]] Result<Context*> common_context(const char* op, std::initializer_list<const Operand*> operands) noexcept;
// The same, and all are f32. Errors: also invalid_dtype.
[[nodiscard]] Result<Context*> float_context(const char* op, std::initializer_list<const Operand*> operands) noexcept;

}  // namespace qorus

// Within the module only.
namespace qorus {

// Takes one more operand into the workspace that the earlier ones share (null before the first). Errors: as common_context, but
// for no_workspace.
[[nodiscard]] Status join_context(const char* op, const Operand& operand, Context*& context) noexcept;
// That workspace, if there is one. Errors: no_workspace, and why it could not be made.
[[nodiscard]] Result<Context*> joined_context(const char* op, Context* context) noexcept;

// The operand as an input of the workspace, if it came without one: a copy of it has to go somewhere.
[[nodiscard]] inline Tensor placed(const Operand& operand, Context& context) noexcept {
  return operand->context() ? *operand : operand->in(context);
}

}  // namespace qorus
