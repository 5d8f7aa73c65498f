// Bodies of qorus.nn:loss.
module qorus.nn;

namespace qorus {

Result<Tensor> Loss::operator()(const Operand& prediction, const Operand& target) const noexcept {
  switch (kind) {
    case Kind::cross_entropy: return ops::cross_entropy(prediction, target, cross_entropy);
  }
  return fail(Errc::invalid_argument, "loss", "no such loss");
}

}  // namespace qorus
