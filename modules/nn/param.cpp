// Bodies of qorus.nn:param.
module qorus.nn;
import qorus.std;

namespace qorus::nn {

Result<Tensor> use(const Param& param, const Shape& shape, const Tensor& x, const char* layer) noexcept {
  Context* context = x.alive() ? x.context() : nullptr;
  if (param.bound()) return context ? param.tensor.in(*context) : param.tensor;
  if (!context || !context->declare)
    return fail(Errc::not_built, layer, "its parameters are not bound: nn::build the model first", x.shape().dims());
  if (!shape.valid()) return fail(Errc::invalid_size, layer, "a parameter would have no valid shape", x.shape().dims());
  if (auto known = context->declare(context->builder, &param, shape.dims()); !known) return fail(known.error());
  return Tensor(nullptr, DType::f32, Layout::dense(shape), {}).in(*context);
}

}  // namespace qorus::nn
