// Runs a template: expressions.
module qorus.text;
import qorus.std;
import :jinja;
import :pieces;
import :unicode;

namespace qorus::text {

Result<Value> Runner::evaluate(NodeId id) noexcept {
  if (auto ok = step(); !ok) return fail(ok.error());
  if (depth_ >= k_deepest) return fail(Errc::overflow, "chat template", "nested too deep");
  ++depth_;
  auto made = evaluate_node(at(id));
  --depth_;
  return made;
}

Result<Value> Runner::evaluate_node(const Node& node) noexcept {
  const auto two = [&](auto&& f) -> Result<Value> {
    auto a = evaluate(node.a);
    if (!a) return a;
    return f(*a);
  };
  switch (node.kind) {
    case NodeKind::constant: return &node == subject_ ? subject_value_ : *node.value;
    case NodeKind::name: return look_up(node);
    case NodeKind::list:
    case NodeKind::tuple: return evaluate_list(node);
    case NodeKind::dictionary: return evaluate_dictionary(node);
    case NodeKind::binary: return evaluate_binary(node);
    case NodeKind::compare: return evaluate_compare(node);
    case NodeKind::slice: return evaluate_slice(node);
    case NodeKind::call: return call(node);
    case NodeKind::both: return two([&](const Value& a) { return truth(a) ? evaluate(node.b) : Result<Value>(a); });
    case NodeKind::either: return two([&](const Value& a) { return truth(a) ? Result<Value>(a) : evaluate(node.b); });
    case NodeKind::choice:
      return two([&](const Value& a) {
        return truth(a) ? evaluate(node.b) : node.c ? evaluate(node.c) : Result<Value>(Value{});
      });
    case NodeKind::attribute: return two([&](const Value& a) { return attribute_of(node, a, node.text); });
    case NodeKind::item:
      return two([&](const Value& a) {
        return evaluate(node.b).and_then([&](const Value& key) { return item_of(node, a, key); });
      });
    case NodeKind::filter:
      return two([&](const Value& a) {
        return arguments_of(node.b).and_then([&](const Arguments& given) { return filter(node, a, given); });
      });
    case NodeKind::test:
      return two([&](const Value& a) {
        return arguments_of(node.b).and_then([&](const Arguments& given) {
          return test(node, node.text, a, given.at(0)).transform([&](bool is) { return of(is != node.flag); });
        });
      });
    case NodeKind::unary:
      return two([&](const Value& a) -> Result<Value> {
        const Op op = static_cast<Op>(node.op);
        if (op == Op::not_) return of(!truth(a));
        if (!a.number()) return wrong(node, "a sign before what is no number");
        if (a.is(ValueKind::real)) return of(op == Op::negate ? -a.real : a.real);
        return of(op == Op::negate ? static_cast<std::int64_t>(-static_cast<std::uint64_t>(a.as_integer()))
                                   : a.as_integer());
      });
    default: return wrong(node, "no expression");
  }
}

Result<Value> Runner::evaluate_list(const Node& node) noexcept {
  std::size_t count = 0;
  for (NodeId id = node.a; id; id = at(id).next) ++count;
  auto all = store_.array<Value>(count);
  if (!all) return fail(all.error());
  std::size_t i = 0;
  for (NodeId id = node.a; id; id = at(id).next, ++i) {
    auto value = evaluate(id);
    if (!value) return value;
    (*all)[i] = *value;
  }
  Value made = of(std::span<const Value>(*all));
  made.tuple = node.kind == NodeKind::tuple;
  return made;
}

Result<Value> Runner::evaluate_dictionary(const Node& node) noexcept {
  std::size_t count = 0, used = 0;
  for (NodeId id = node.a; id; id = at(id).next) ++count;
  auto all = store_.array<Pair>(count);
  if (!all) return fail(all.error());
  for (NodeId id = node.a; id; id = at(id).next) {
    auto key = evaluate(at(id).a);
    if (!key) return key;
    if (!key->is(ValueKind::text)) return missing(node, "keys that are no texts", {});
    auto value = evaluate(at(id).b);
    if (!value) return value;
    std::size_t i = 0;
    while (i < used && (*all)[i].key.view() != key->view()) ++i;
    (*all)[i] = {*key, *value};
    used = std::max(used, i + 1);
    if (auto ok = step(i / 16); !ok) return fail(ok.error());
  }
  return of(std::span<const Pair>(all->first(used)));
}

Result<Value> Runner::evaluate_binary(const Node& node) noexcept {
  auto a = evaluate(node.a);
  if (!a) return a;
  auto b = evaluate(node.b);
  if (!b) return b;
  if (static_cast<Op>(node.op) == Op::join) {
    auto left = printed(*a), right = printed(*b);
    if (!left || !right) return left ? right : left;
    return text(left->view(), right->view());
  }
  return arithmetic(node, *a, *b);
}

namespace {

// Rounded down, as Python has it.
std::int64_t floor_divide(std::int64_t a, std::int64_t b) noexcept {
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

}  // namespace

Result<Value> Runner::arithmetic(const Node& node, const Value& a, const Value& b) noexcept {
  const Op op = static_cast<Op>(node.op);
  if (op == Op::add && a.is(ValueKind::text) && b.is(ValueKind::text)) return text(a.view(), b.view());
  if (op == Op::add && a.is(ValueKind::list) && b.is(ValueKind::list)) {
    auto all = store_.array<Value>(std::size_t{a.count} + b.count);
    if (!all) return fail(all.error());
    if (auto ok = step(all->size() / 16); !ok) return fail(ok.error());
    std::copy_n(b.elements, b.count, std::copy_n(a.elements, a.count, all->begin()));
    return of(std::span<const Value>(*all));
  }
  if (op == Op::multiply && (a.is(ValueKind::text) || b.is(ValueKind::text))) {
    const Value &words = a.is(ValueKind::text) ? a : b, &times = a.is(ValueKind::text) ? b : a;
    if (!times.is(ValueKind::integer)) return wrong(node, "a text times what is no whole number");
    const auto count = static_cast<std::uint64_t>(std::max<std::int64_t>(times.integer, 0));
    auto size = (Checked(words.size) * count).get("chat template");
    if (!size || *size > options_.memory) return fail(Errc::overflow, "chat template", "writes more text than it may");
    if (auto ok = step(*size / 64); !ok) return fail(ok.error());
    auto place = store_.array<char>(*size);
    if (!place) return fail(place.error());
    for (std::size_t i = 0; i < *size; i += words.size) std::copy_n(words.text, words.size, place->data() + i);
    return of(std::string_view(place->data(), *size));
  }
  if (!a.number() || !b.number()) return wrong(node, "values that this operator does not have");
  if (op == Op::divide || a.is(ValueKind::real) || b.is(ValueKind::real) || op == Op::power) {
    const double x = a.as_real(), y = b.as_real();
    if (op == Op::power) {
      const double power = std::pow(x, y);
      const bool whole = !a.is(ValueKind::real) && !b.is(ValueKind::real) && y >= 0 && std::abs(power) < 9e15;
      return whole ? of(static_cast<std::int64_t>(power)) : of(power);
    }
    if (y == 0 && op != Op::add && op != Op::subtract && op != Op::multiply) return wrong(node, "division by zero");
    if (op == Op::modulo) return of(x - std::floor(x / y) * y);
    return of(op == Op::add        ? x + y
              : op == Op::subtract ? x - y
              : op == Op::multiply ? x * y
              : op == Op::whole    ? std::floor(x / y)
                                   : x / y);
  }
  const std::int64_t x = a.as_integer(), y = b.as_integer();
  std::int64_t z = 0;
  if (op == Op::whole || op == Op::modulo) {
    if (y == 0) return wrong(node, "division by zero");
    if (y == -1)
      return of(op == Op::modulo ? std::int64_t{0} : static_cast<std::int64_t>(-static_cast<std::uint64_t>(x)));
    return of(op == Op::whole ? floor_divide(x, y) : x - floor_divide(x, y) * y);
  }
  const bool over = op == Op::add        ? __builtin_add_overflow(x, y, &z)
                    : op == Op::subtract ? __builtin_sub_overflow(x, y, &z)
                                         : __builtin_mul_overflow(x, y, &z);
  return over ? Result<Value>(wrong(node, "a number that does not fit 64 bits")) : of(z);
}

Result<Value> Runner::evaluate_compare(const Node& node) noexcept {
  auto left = evaluate(node.a);
  for (NodeId id = node.b; left && id; id = at(id).next) {
    auto right = evaluate(at(id).a);
    if (!right) return right;
    const Op op = static_cast<Op>(at(id).op);
    bool holds = false;
    if (op == Op::equal || op == Op::unequal) {
      holds = same(*left, *right, left_) == (op == Op::equal);
    } else if (op == Op::in || op == Op::not_in) {
      auto inside = test(node, "in", *left, &*right);
      if (!inside) return fail(inside.error());
      holds = *inside == (op == Op::in);
    } else {
      auto sign = order(*left, *right, left_);
      if (!sign) return wrong(node, sign.error().text);
      holds = op == Op::less         ? *sign < 0
              : op == Op::greater    ? *sign > 0
              : op == Op::less_equal ? *sign <= 0
                                     : *sign >= 0;
    }
    if (!holds) return of(false);
    left = right;
  }
  return left ? Result<Value>(of(true)) : left;
}

Result<Value> Runner::evaluate_slice(const Node& node) noexcept {
  auto base = evaluate(node.a);
  if (!base) return base;
  const Node& group = at(node.b);
  const NodeId ids[] = {group.a, group.b, group.c};
  std::int64_t bound[3] = {0, 0, 1};
  bool given[3] = {};
  for (int i = 0; i < 3; ++i) {
    if (!ids[i]) continue;
    auto value = evaluate(ids[i]);
    if (!value) return value;
    if (value->is(ValueKind::none)) continue;
    if (!value->is(ValueKind::integer)) return wrong(node, "a slice's bounds are whole numbers");
    bound[i] = value->integer;
    given[i] = true;
  }
  // Texts are sliced by characters.
  List<std::size_t> starts;
  if (base->is(ValueKind::text)) {
    const char *at = base->text, *end = base->text + base->size;
    for (; at < end; at += std::max<std::size_t>(utf8_size(at, end), 1)) {
      if (auto ok = starts.push(static_cast<std::size_t>(at - base->text)); !ok) return fail(ok.error());
    }
    if (auto ok = step(starts.size() / 16); !ok) return fail(ok.error());
  } else if (!base->is(ValueKind::list)) {
    return wrong(node, "a slice of what is neither text nor list");
  }
  const bool words = base->is(ValueKind::text);
  const auto size = static_cast<std::int64_t>(words ? starts.size() : base->count);
  const std::int64_t stride = bound[2];
  if (stride == 0) return wrong(node, "a slice's step must not be 0");
  const auto clamp = [&](std::int64_t x, std::int64_t low, std::int64_t high) {
    return std::clamp(x < 0 ? x + size : x, low, high);
  };
  const std::int64_t low = stride > 0 ? 0 : -1, high = stride > 0 ? size : size - 1;
  const std::int64_t first = given[0] ? clamp(bound[0], low, high) : stride > 0 ? 0 : size - 1;
  const std::int64_t last = given[1] ? clamp(bound[1], low, high) : stride > 0 ? size : -1;
  if (words && stride == 1) {
    const auto place = [&](std::int64_t i) { return i < size ? starts[static_cast<std::size_t>(i)] : base->size; };
    return of(first < last ? part_of(base->view(), place(first), place(last) - place(first)) : std::string_view());
  }
  List<char> out;
  List<Value> kept;
  for (std::int64_t i = first; stride > 0 ? i < last : i > last; i += std::clamp(stride, -size - 1, size + 1)) {
    const auto n = static_cast<std::size_t>(i);
    const std::size_t end = words && n + 1 < starts.size() ? starts[n + 1] : base->size;
    auto ok = words ? out.append(std::span(base->text + starts[n], end - starts[n])) : kept.push(base->elements[n]);
    if (!ok) return fail(ok.error());
  }
  if (words) return text({out.data(), out.size()});
  auto all = store_.array<Value>(kept.size());
  if (!all) return fail(all.error());
  std::copy(kept.begin(), kept.end(), all->begin());
  return of(std::span<const Value>(*all));
}

Result<Value> Runner::item_of(const Node& node, const Value& base, const Value& key) noexcept {
  if (key.is(ValueKind::text)) {
    if (base.is(ValueKind::undefined)) return wrong(node, "a member of what is not defined", key.view());
    if (auto ok = step(base.pairs().size() / 16); !ok) return fail(ok.error());
    const Value* found = member(base, key.view());
    return found ? *found : Value{};
  }
  if (base.is(ValueKind::undefined)) return wrong(node, "an element of what is not defined");
  if (!key.is(ValueKind::integer)) return Value{};
  if (base.is(ValueKind::text)) {
    std::int64_t index = key.integer;
    List<std::size_t> starts;
    const char *at = base.text, *end = base.text + base.size;
    for (; at < end; at += std::max<std::size_t>(utf8_size(at, end), 1)) {
      if (auto ok = starts.push(static_cast<std::size_t>(at - base.text)); !ok) return fail(ok.error());
    }
    if (auto ok = step(starts.size() / 16); !ok) return fail(ok.error());
    if (index < 0) index += static_cast<std::int64_t>(starts.size());
    if (index < 0 || index >= static_cast<std::int64_t>(starts.size())) return Value{};
    const auto i = static_cast<std::size_t>(index);
    const std::size_t next = i + 1 < starts.size() ? starts[i + 1] : base.size;
    return of(part_of(base.view(), starts[i], next - starts[i]));
  }
  const auto list = base.list();
  const std::int64_t index = key.integer < 0 ? key.integer + static_cast<std::int64_t>(list.size()) : key.integer;
  if (index < 0 || index >= static_cast<std::int64_t>(list.size())) return Value{};
  return list[static_cast<std::size_t>(index)];
}

Result<Value> Runner::attribute_of(const Node& node, const Value& base, std::string_view name) noexcept {
  if (base.is(ValueKind::undefined)) return wrong(node, "an attribute of what is not defined", name);
  if (auto ok = step(base.pairs().size() / 16); !ok) return fail(ok.error());
  if (const Value* found = member(base, name)) return *found;
  return Value{};
}

Result<Arguments> Runner::arguments_of(NodeId first) noexcept {
  Arguments made;
  for (NodeId id = first; id; id = at(id).next) {
    const Node& node = at(id);
    if (node.text.empty() && made.named) return wrong(node, "an argument without a name after one with a name");
    auto value = evaluate(node.a);
    if (!value) return fail(value.error());
    auto all =
        node.flag ? elements_of(node, *value) : Result<std::span<const Value>>(std::span<const Value>(&*value, 1));
    if (!all) return fail(all.error());
    for (const Value& v : *all) {
      if (made.count + made.named == Arguments::k_most) return missing(node, "so many arguments", {});
      made.values[made.count + made.named] = v;
      made.names[made.count + made.named] = node.text;
      ++(node.text.empty() ? made.count : made.named);
    }
  }
  return made;
}

}  // namespace qorus::text
