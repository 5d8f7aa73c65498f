// Bodies of qorus.nn:experts.
module qorus.nn;
import qorus.std;

namespace qorus::nn {

Result<Tensor> Experts::operator()(const Tensor& x) const noexcept {
  if (x.rank() < 1) return fail(Errc::invalid_size, "experts", "needs at least one axis", x.shape().dims());
  const std::int64_t width = x.dim(-1);
  auto tokens = ops::reshape(x, {-1, width});
  auto p = ops::softmax(tokens | router);
  auto routing = ops::route(p, {.top_k = options.top_k, .capacity = options.capacity});
  if (!routing) return fail(routing.error());
  auto weight = ops::gather(p, routing->choice, 1);
  if (options.normalize) weight = weight / ops::sum(weight, 1, true);
  if (options.capacity > 0) weight = weight * routing->kept;
  auto rows = ops::take(tokens, routing->token);
  const auto expert = [&](const Result<Tensor>& in, const Param& param, std::int64_t out, std::int64_t from) {
    return ops::expert_linear(in, use(param, Shape{experts * out, from}, x, "experts"), routing->ends);
  };
  auto inner = ops::gated(expert(rows, gate_proj, d_ff, width), expert(rows, up_proj, d_ff, width), Activation::silu);
  auto results = ops::take(expert(inner, down_proj, width, d_ff), routing->place);  // [tokens, top_k, d_model]
  auto y = ops::sum(results * ops::unsqueeze(weight, 2), 1);
  if (options.balance > 0 && x.context() && x.context()->training) {
    auto penalty = ops::sum(ops::mean(p, 0) * routing->load) * (options.balance * static_cast<float>(experts));
    y = ops::with_penalty(y, penalty);
  }
  return ops::reshape(y, std::span<const std::int64_t>(x.shape().extents()));
}

}  // namespace qorus::nn
