// Bodies of qorus.ops:operand.
module qorus.ops;
import qorus.std;

namespace qorus {

Status join_context(const char* op, const Operand& operand, Context*& context) noexcept {
  if (!operand.ok()) return fail(operand.error());
  if (auto ok = operand->check(op); !ok) return fail(ok.error());
  Context* own = operand->context();
  if (own && context && own != context) {
    return fail(Errc::invalid_argument, op, "the operands belong to two workspaces", operand->shape().dims());
  }
  if (own) context = own;
  return {};
}

Result<Context*> joined_context(const char* op, Context* context) noexcept {
  if (!context) return fail(Errc::no_workspace, op, "no operand came from tape.input or frame.input");
  if (context->failure.code != Errc::ok) return fail(context->failure);
  return context;
}

Result<Context*> common_context(const char* op, std::initializer_list<const Operand*> operands) noexcept {
  Context* context = nullptr;
  for (const Operand* operand : operands) {
    if (auto ok = join_context(op, *operand, context); !ok) return fail(ok.error());
  }
  return joined_context(op, context);
}

Result<Context*> float_context(const char* op, std::initializer_list<const Operand*> operands) noexcept {
  auto context = common_context(op, operands);
  if (!context) return context;
  for (const Operand* operand : operands) {
    if (auto ok = (*operand)->check(DType::f32, op); !ok) return fail(ok.error());
  }
  return context;
}

}  // namespace qorus
