// Bodies of qorus.nn:models.
module qorus.nn;
import qorus.std;

namespace qorus::nn {

Result<Tensor> ResNetBlock::operator()(const Tensor& x) const noexcept {
  auto y = conv1(x).and_then([&](const Tensor& t) { return norm1.with(t, Activation::relu); });
  y = y.and_then([&](const Tensor& t) { return conv2(t); }).and_then([&](const Tensor& t) { return norm2(t); });
  if (!y) return y;
  Result<Tensor> around = x;
  if (stride > 1) {
    for (int axis = 2; axis < 4; ++axis) around = ops::slice(around, axis, 0, x.dim(axis), stride);
  }
  if (const std::int64_t more = y->dim(1) - x.dim(1); more > 0) around = ops::pad(around, {{1, 0, more}});
  return ops::add_relu(y, around);
}

}  // namespace qorus::nn
