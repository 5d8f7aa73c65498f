// A language model's head and its loss in one.
module qorus.tune:head;
import qorus.std;
import qorus.llm;

namespace qorus::tune {

// The mean over the rows whose target is not negative of -ln softmax(cap(x weight^T))[target], with cap(z) = cap tanh(z / cap) where cap is
// above 0. Some rows at a time, so that the logits of all never exist at once; the weight is read as it is stored, and has no gradient.
// x: [rows, in], weight: [out, in], target: [rows] i32; a scalar, 0 where no row counts. The gradient, [rows, in], is made on the way. Agrees
// with frozen_linear, tanh and cross_entropy. Errors: an operand's own, stale_tensor, invalid_size, invalid_argument (a target outside
// the vocabulary), out_of_memory.
[[nodiscard]] Result<Tensor> head_loss(const Operand& x, const Operand& weight, const Operand& target,
                                       float cap) noexcept;

}  // namespace qorus::tune
