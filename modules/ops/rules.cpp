// The table of rules, in the order of RuleId, and what they share.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :loops;
import :rules;

namespace qorus {
namespace {

constexpr Rule k_rules[] = {
    {"watch", nullptr},
    {"view", rules::view},
    {"copy", rules::copy},
    {"unary", rules::unary},
    {"binary", rules::binary},
    {"select", rules::select},
    {"clamp", rules::clamp},
    {"reduce", rules::reduce},
    {"extreme", rules::reduce},
    {"matmul", rules::matmul},
    {"linear", rules::linear},
    {"gated", rules::gated, rules::remake_gated},
    {"gated_linear", rules::gated_linear},
    {"softmax", rules::softmax},
    {"log_softmax", rules::log_softmax},
    {"cross_entropy", rules::cross_entropy},
    {"linear_cross_entropy", rules::linear_cross_entropy},
    {"concat", rules::concat},
    {"pad", rules::pad},
    {"take", rules::take},
    {"gather", rules::gather},
    {"scatter_add", rules::scatter_add},
    {"cast", rules::cast},
    {"dropout", rules::dropout},
    {"cumsum", rules::cumsum},
    {"pointwise_loss", rules::pointwise_loss},
    {"nll", rules::nll},
    {"layer_norm", rules::layer_norm, rules::remake_norm},
    {"rms_norm", rules::rms_norm, rules::remake_norm},
    {"attention", rules::attention, rules::remake_attention},
    {"rope", rules::rope},
    {"recurrent", rules::recurrent},
    {"conv", rules::conv},
    {"conv_transpose", rules::conv_transpose},
    {"max_pool", rules::max_pool},
    {"avg_pool", rules::avg_pool},
    {"channel_norm", rules::channel_norm},
    {"expert_linear", rules::expert_linear},
    {"penalty", rules::penalty},
};
static_assert(sizeof k_rules / sizeof k_rules[0] == static_cast<std::size_t>(RuleId::count_));

}  // namespace

const Rule& rule_of(const RuleRef& ref) noexcept {
  return ref.custom ? *static_cast<const Rule*>(ref.custom) : k_rules[ref.builtin];
}

bool pass_relu(Grads& grads, const float* y, std::size_t n) noexcept {
  float* const place = grads.out_in_place();
  if (!place) return false;
  parallel_elements(grads.context(), n, [&](std::size_t begin, std::size_t end) {
    kernels::training().unary_bwd(kernels::Unary::relu, y + begin, y + begin, place + begin, place + begin, end - begin,
                                  0, false);
  });
  return true;
}

}  // namespace qorus
