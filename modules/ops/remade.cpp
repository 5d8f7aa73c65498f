// rematerialize, with_transients, and what qorus.ops:remade has beside the rules (which a program that only infers does not link). A result
// that is made again lies at the far end of the arena from where it is made until it was used, and once more, in the backward, from the node
// that was recorded when it was given up until the node that made it. Such spans are nested or apart, in the backward as in the forward, so
// that its place is free both times.
module qorus.ops;
import qorus.std;
import :remade;
import :rules;

namespace qorus {
namespace {

void backward_none(const void* /*saved*/, Grads& /*grads*/) noexcept {}
constexpr Rule k_given_up{"given up", backward_none};

}  // namespace

Result<Tensor> rematerialize(const Tensor& x, const void* make, LayerCall make_call, const void* use,
                             LayerCall use_call) noexcept {
  if (!recorded(x)) {
    auto y = make_call(make, x);
    return y ? use_call(use, *y) : y;
  }
  Context& context = *x.context();
  Renewal renewal{.arena = context.scratch, .far_mark = context.scratch->far_mark()};
  const Remade& made = renewal.made;
  Remade* const outer = std::exchange(context.remade, &renewal.made);
  const auto y = make_call(make, x);
  context.remade = outer;
  auto z = y ? use_call(use, *y) : y;
  Status status;
  if (z && made.node) {
    const bool own = z->data() < made.place || z->data() >= made.place + made.bytes;
    auto node = own ? context.record(context, Node{.rule = custom_rule(k_given_up)}, &renewal, sizeof renewal)
                    : fail(Errc::unsupported, "rematerialize", "what is to be used is itself the result");
    if (!node) status = fail(node.error());
  } else if (z && made.place) {
    status = fail(Errc::unsupported, "rematerialize", "the operation is not on the tape, although it said so");
  }
  // Unless transient results lie beyond it, with which it will go.
  const bool last = context.scratch->far_mark() == renewal.far_mark + align_up(made.bytes);
  if (last || !context.transients) context.scratch->shrink_far_to(renewal.far_mark);
  if (!status) return fail(status.error());
  return z;
}

Result<Tensor> with_transients(const Tensor& x, const void* body, LayerCall call) noexcept {
  if (!recorded(x) || x.context()->transients) return call(body, x);
  Context& context = *x.context();
  Arena& scratch = *context.scratch;
  const std::size_t mark = scratch.far_mark();
  context.transients = true;
  auto y = call(body, x);
  context.transients = false;
  scratch.end_transients(mark);
  return y;
}

bool gives_up(const Node& node) noexcept { return node.rule.custom == &k_given_up; }

Node* before(const Node& node, Renewal*& innermost) noexcept {
  if (innermost && innermost->made.node == &node) {
    innermost->arena->shrink_far_to(innermost->resumed);
    innermost = innermost->outer;
  }
  return node.previous;
}

}  // namespace qorus
