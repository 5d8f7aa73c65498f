// Bodies of qorus.nn:compose.
module qorus.nn;
import qorus.std;

namespace qorus::nn {
namespace {

// Room for so many tensors in the workspace of x, for the frame's length.
Result<std::span<Tensor>> room_for(const Tensor& x, std::size_t count) noexcept {
  const Operand in = x;
  auto context = common_context("branches", {&in});
  if (!context) return fail(context.error());
  auto slice = (*context)->scratch->take(count * sizeof(Tensor));
  if (!slice) return fail(slice.error());
  auto* first = reinterpret_cast<Tensor*>(slice->data);
  for (std::size_t i = 0; i < count; ++i) new (first + i) Tensor();
  return std::span(first, count);
}

std::string_view kind_of(Join join) noexcept {
  constexpr std::string_view names[] = {"concat", "branch", "gate", "parallel"};
  return names[static_cast<std::size_t>(join)];
}

}  // namespace

Result<Tensor> JoinInputs::operator()(std::span<const Tensor> xs) const noexcept {
  if (xs.empty() || join == Join::parallel)
    return fail(Errc::invalid_argument, "join", "needs at least one input, and a way to join them");
  if (join == Join::concat) return ops::concat(xs, axis);
  Result<Tensor> y = xs[0];
  for (const Tensor& x : xs.subspan(1)) y = join == Join::sum ? ops::add(y, x) : ops::mul(y, x);
  return y;
}

Branches::Branches(const Branches& other) noexcept : join_(other.join_), axis_(other.axis_), status_(other.status_) {
  for (const Any& part : other.parts_) add(part);
}

Branches& Branches::add(Any layer) noexcept {
  if (status_) status_ = parts_.push(std::move(layer));
  return *this;
}

Result<Tensor> Branches::operator()(const Tensor& x) const noexcept {
  if (!status_) return fail(status_.error());
  const auto count = static_cast<std::int64_t>(parts_.size());
  if (count == 0) return fail(Errc::invalid_argument, "branches", "needs at least one");
  auto results = room_for(x, parts_.size());
  if (!results) return fail(results.error());
  const bool cuts = join_ == Join::parallel;
  if (cuts && (axis_ >= x.rank() || axis_ < -x.rank() || x.dim(axis_) % count != 0))
    return fail(Errc::invalid_size, "branches", "the axis must fall into as many equal pieces as there are branches",
                x.shape().dims(), Shape{count}.dims());
  const std::int64_t piece = cuts ? x.dim(axis_) / count : 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    auto in = cuts ? ops::slice(x, axis_, i * piece, (i + 1) * piece) : Result<Tensor>(x);
    auto y = in ? parts_[at](*in) : in;
    if (!y) return y;
    (*results)[at] = *y;
  }
  return JoinInputs{cuts ? Join::concat : join_, axis_}(*results);
}

void Branches::describe(Writer& out) const noexcept {
  out.value("kind", kind_of(join_));
  out.setting("axis", axis_);
  out.open("layers", '[');
  for (const Any& part : parts_) nn::describe({}, part, out);
  out.close(']');
}

Graph::Graph(const Graph& other) noexcept : inputs_(other.inputs_), status_(other.status_) {
  for (const Part& part : other.parts_) {
    if (status_) status_ = parts_.push(part);
  }
  if (status_) status_ = edges_.append(other.edges_.span());
}

Graph::Node Graph::input() noexcept {
  if (!parts_.empty()) status_ = fail(Errc::invalid_argument, "graph", "inputs come before the first layer");
  return {inputs_++};
}

Graph::Node Graph::add(Any layer, std::span<const Node> from, std::string_view name) noexcept {
  const auto index = static_cast<std::uint32_t>(inputs_ + parts_.size());
  Part part{.layer = std::move(layer),
            .name = {},
            .first = static_cast<std::uint32_t>(edges_.size()),
            .count = static_cast<std::uint32_t>(from.size())};
  part.name += name;
  for (const Node& node : from) {
    if (node.index >= index) status_ = fail(Errc::invalid_argument, "graph", "a layer reads earlier nodes only");
    if (status_) status_ = edges_.push(node.index);
  }
  if (status_) status_ = parts_.push(std::move(part));
  return {index};
}

Result<Tensor> Graph::operator()(std::span<const Tensor> inputs) const noexcept {
  if (!status_) return fail(status_.error());
  if (inputs.size() != inputs_ || parts_.empty())
    return fail(Errc::invalid_argument, "graph", "needs a layer, and as many tensors as it has inputs");
  auto room = room_for(inputs[0], inputs_ + parts_.size() + edges_.size());
  if (!room) return fail(room.error());
  const std::span<Tensor> values = room->first(inputs_ + parts_.size()), operands = room->subspan(values.size());
  for (std::size_t i = 0; i < inputs_; ++i) values[i] = inputs[i];
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const Part& part = parts_[i];
    const std::span<Tensor> in = operands.subspan(part.first, part.count);
    for (std::size_t e = 0; e < in.size(); ++e) in[e] = values[edges_[part.first + e]];
    auto y = part.layer(in);
    if (!y) return y;
    values[inputs_ + i] = *y;
  }
  return values.back();
}

void Graph::describe(Writer& out) const noexcept {
  out.value("kind", k_name);
  out.setting("inputs", inputs_);
  out.open("nodes", '[');
  for (const Part& part : parts_) {
    out.open({}, '{');
    part.layer.describe(out);
    if (part.name.size) out.value("name", part.name.view());
    out.open("from", '[');
    for (std::uint32_t e = 0; e < part.count; ++e) out.value({}, static_cast<std::int64_t>(edges_[part.first + e]));
    out.close(']');
    out.close('}');
  }
  out.close(']');
}

}  // namespace qorus::nn
