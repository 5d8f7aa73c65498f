// Runs a template: statements, names, macros.
module qorus.text;
import qorus.std;
import :jinja;
import :pieces;
import :unicode;

namespace qorus::text {

Status Runner::step(std::uint64_t count) noexcept {
  const bool enough = count <= left_;
  left_ = enough ? left_ - count : 0;
  return enough ? Status{} : Status(fail(Errc::overflow, "chat template", "takes more steps than it may"));
}
tl::unexpected<Error> Runner::wrong(const Node& node, const char* why, std::string_view about) const noexcept {
  const Dims line{.extent = {static_cast<std::int64_t>(node.line)}, .rank = 1};
  return tl::unexpected<Error>(fail(Errc::invalid_argument, "chat template", why, line).value().about(about));
}
tl::unexpected<Error> Runner::missing(const Node& node, const char* what, std::string_view name) const noexcept {
  const Dims line{.extent = {static_cast<std::int64_t>(node.line)}, .rank = 1};
  return tl::unexpected<Error>(fail(Errc::unsupported, "chat template", what, line).value().about(name));
}
Result<Value> Runner::text(std::string_view a, std::string_view b) noexcept {
  if (auto ok = step((a.size() + b.size()) / 64); !ok) return fail(ok.error());
  auto made = store_.text(a, b);
  return made ? Result<Value>(of(*made)) : fail(made.error());
}
Status Runner::put(List<char>& out, std::string_view text) noexcept {
  written_ += text.size();
  if (written_ > options_.memory) return fail(Errc::overflow, "chat template", "writes more text than it may");
  return out.append(std::span(text.data(), text.size()));
}
Result<Value> Runner::printed(const Value& value) noexcept {
  if (value.is(ValueKind::text)) return value;
  List<char> out;
  if (auto done = append_text(out, value, false); !done) return fail(done.error());
  return text({out.data(), out.size()});
}

Status Runner::run(List<char>& out) noexcept {
  globals_ = variables_.size();
  auto done = statements(program_.body, out);
  if (done && left_ == 0) return step();
  return done ? Status{} : Status(fail(done.error()));
}

Result<Runner::Flow> Runner::statements(NodeId first, List<char>& out) noexcept {
  if (depth_ >= k_deepest) return fail(Errc::overflow, "chat template", "nested too deep");
  ++depth_;
  Result<Flow> flow = Flow::on;
  for (NodeId id = first; id && flow && *flow == Flow::on; id = at(id).next) {
    auto ok = step();
    flow = ok ? statement(at(id), out) : Result<Flow>(fail(ok.error()));
  }
  --depth_;
  return flow;
}

Result<Runner::Flow> Runner::statement(const Node& node, List<char>& out) noexcept {
  const auto done = [](const Status& status) -> Result<Flow> {
    if (!status) return fail(status.error());
    return Flow::on;
  };
  switch (node.kind) {
    case NodeKind::data: return done(put(out, node.text));
    case NodeKind::output: {
      auto value = evaluate(node.a);
      if (!value) return fail(value.error());
      auto text = printed(*value);
      return text ? done(put(out, text->view())) : fail(text.error());
    }
    case NodeKind::branch: {
      auto condition = evaluate(node.a);
      if (!condition) return fail(condition.error());
      return statements(truth(*condition) ? node.b : node.c, out);
    }
    case NodeKind::loop: return run_loop(node, out);
    case NodeKind::group: return statements(node.a, out);
    case NodeKind::stop: return Flow::stop;
    case NodeKind::next: return Flow::next;
    case NodeKind::macro: {
      Value v;
      v.kind = ValueKind::macro;
      v.count = static_cast<std::uint32_t>(&node - program_.nodes.data());
      return done(assign(node.text, v));
    }
    case NodeKind::assign: return done(run_assign(node));
    case NodeKind::call_block: {
      Value caller;
      caller.kind = ValueKind::macro;
      caller.count = node.b;
      caller.tuple = true;
      caller.integer = static_cast<std::int64_t>(static_cast<std::uint64_t>(floor_) << 32 | variables_.size());
      auto value = call(at(node.a), &caller);
      return value ? done(put(out, value->view())) : fail(value.error());
    }
    default: break;
  }
  // The text of a body, filtered, printed or kept.
  List<char> inner;
  auto flow = statements(node.b, inner);
  if (!flow) return flow;
  auto value = text({inner.data(), inner.size()});
  if (!value) return fail(value.error());
  const NodeId subject = node.kind == NodeKind::filter_block ? node.c : at(node.c).b,
               filtered = node.kind == NodeKind::filter_block ? node.a : at(node.c).a;
  if (filtered) {
    // The filters' first operand is a constant of its own, which stands for the text.
    subject_ = &at(subject);
    subject_value_ = *value;
    value = evaluate(filtered);
    subject_ = nullptr;
    if (!value) return fail(value.error());
  }
  if (node.kind == NodeKind::assign_block) return done(assign_to(node.a, *value));
  auto made = printed(*value);
  return made ? done(put(out, made->view())) : fail(made.error());
}

Status Runner::run_assign(const Node& node) noexcept {
  auto value = evaluate(node.b);
  return value ? assign_to(node.a, *value) : Status(fail(value.error()));
}

Status Runner::assign_to(NodeId target, const Value& value) noexcept {
  const Node& node = at(target);
  if (node.kind == NodeKind::name) return assign(node.text, value);
  if (node.kind == NodeKind::tuple) {
    auto parts = elements_of(node, value);
    if (!parts) return fail(parts.error());
    std::size_t i = 0;
    for (NodeId id = node.a; id; id = at(id).next, ++i) {
      if (i >= parts->size()) return wrong(node, "fewer values than names");
      if (auto done = assign_to(id, (*parts)[i]); !done) return done;
    }
    return i == parts->size() ? Status{} : Status(wrong(node, "more values than names"));
  }
  auto base = evaluate(node.a);
  if (!base) return fail(base.error());
  if (!base->is(ValueKind::space)) return wrong(node, "only a namespace's attributes can be set", node.text);
  Value& members = *base->space;
  for (std::size_t i = 0; i < members.count; ++i) {
    if (members.members[i].key.view() != node.text) continue;
    const_cast<Pair&>(members.members[i]).value = value;  // of our store; a namespace is the one value that changes
    return {};
  }
  auto grown = store_.array<Pair>(members.count + 1);
  if (!grown) return fail(grown.error());
  std::copy_n(members.members, members.count, grown->begin());
  grown->back() = {of(node.text), value};
  members = of(std::span<const Pair>(*grown));
  return {};
}

// In the innermost scope; of the whole template where there is none.
Status Runner::assign(std::string_view name, const Value& value) noexcept {
  for (std::size_t i = variables_.size(); i-- > scope_;) {
    if (variables_[i].name != name) continue;
    variables_[i].value = value;
    return {};
  }
  if (auto done = variables_.push({name, value}); !done) return done;
  if (!in_scope_) globals_ = variables_.size();
  return {};
}

Result<Value> Runner::look_up(const Node& node) noexcept {
  if (auto ok = step(variables_.size() / 32); !ok) return fail(ok.error());
  for (std::size_t i = variables_.size(); i-- > floor_;) {
    if (variables_[i].name == node.text) return variables_[i].value;
  }
  for (std::size_t i = std::min<std::size_t>(outer_.last, floor_); i-- > outer_.first;) {
    if (variables_[i].name == node.text) return variables_[i].value;
  }
  for (std::size_t i = globals_; i-- > 0;) {
    if (variables_[i].name == node.text) return variables_[i].value;
  }
  static constexpr std::pair<std::string_view, std::uint32_t> functions[] = {{"range", k_range},
                                                                             {"namespace", k_namespace},
                                                                             {"dict", k_dict},
                                                                             {"raise_exception", k_raise},
                                                                             {"strftime_now", k_now}};
  for (const auto& f : functions) {
    if (f.first != node.text) continue;
    Value v;
    v.kind = ValueKind::function;
    v.count = f.second;
    return v;
  }
  return Value{};
}

Result<Runner::Flow> Runner::run_loop(const Node& node, List<char>& out) noexcept {
  const Node& parts = at(node.b);
  auto over = evaluate(parts.a);
  if (!over) return fail(over.error());
  auto all = elements_of(node, *over);
  if (!all) return fail(all.error());
  const std::size_t mark = variables_.size(), scope = scope_;
  const bool inside = in_scope_;
  scope_ = mark;
  in_scope_ = true;
  const auto leave = [&] {
    (void)variables_.resize(mark);  // fewer: nothing can fail
  };
  // Those that the condition lets through, first: the loop's numbers are theirs.
  std::span<const Value> chosen = *all;
  Result<Flow> flow = Flow::on;
  if (parts.b) {
    auto kept = store_.array<Value>(all->size());
    std::size_t count = 0;
    for (std::size_t i = 0; kept && flow && i < all->size(); ++i) {
      leave();
      auto done = assign_to(node.a, (*all)[i]);
      auto condition = done ? evaluate(parts.b) : Result<Value>(fail(done.error()));
      if (!condition) flow = fail(condition.error());
      if (condition && truth(*condition)) (*kept)[count++] = (*all)[i];
    }
    if (!kept) flow = fail(kept.error());
    if (kept) chosen = kept->first(count);
  }
  for (std::size_t i = 0; flow && *flow != Flow::stop && i < chosen.size(); ++i) {
    leave();
    flow = run_pass(node, chosen, i, out);
  }
  leave();
  scope_ = scope;
  in_scope_ = inside;
  if (!flow) return flow;
  return chosen.empty() ? statements(parts.c, out) : Result<Flow>(Flow::on);
}

Result<Runner::Flow> Runner::run_pass(const Node& node, std::span<const Value> all, std::size_t index,
                                      List<char>& out) noexcept {
  if (auto ok = step(); !ok) return fail(ok.error());
  const auto size = static_cast<std::int64_t>(all.size()), i = static_cast<std::int64_t>(index);
  Value cycle;
  cycle.kind = ValueKind::function;
  cycle.count = k_cycle;
  auto loop = store_.array<Pair>(10);
  if (!loop) return fail(loop.error());
  const Pair members[] = {{of(std::string_view("index")), of(i + 1)},
                          {of(std::string_view("index0")), of(i)},
                          {of(std::string_view("first")), of(i == 0)},
                          {of(std::string_view("last")), of(i + 1 == size)},
                          {of(std::string_view("length")), of(size)},
                          {of(std::string_view("revindex")), of(size - i)},
                          {of(std::string_view("revindex0")), of(size - i - 1)},
                          {of(std::string_view("cycle")), cycle},
                          {of(std::string_view("previtem")), index ? all[index - 1] : Value{}},
                          {of(std::string_view("nextitem")), index + 1 < all.size() ? all[index + 1] : Value{}}};
  std::copy(std::begin(members), std::end(members), loop->begin());
  if (auto done = assign("loop", of(std::span<const Pair>(*loop))); !done) return fail(done.error());
  if (auto done = assign_to(node.a, all[index]); !done) return fail(done.error());
  return statements(node.c, out);
}

// A macro sees its parameters, its own variables and those of the whole template; a call block's body also those around it.
Result<Value> Runner::call_macro(const Node& node, const Value& callee, const Arguments& given,
                                 const Value* caller) noexcept {
  const Node& macro = at(callee.count);
  const std::size_t mark = variables_.size(), floor = floor_, scope = scope_;
  const Range outer = outer_;
  const bool inside = in_scope_;
  List<char> out;
  Status status;
  std::size_t i = 0;
  List<Variable> own;
  for (NodeId id = macro.a; id && status; id = at(id).next, ++i) {
    const Value* value = given.at(i, at(id).text);
    auto otherwise = value || !at(id).a ? Result<Value>(Value{}) : evaluate(at(id).a);
    if (!otherwise) return otherwise;
    status = own.push({at(id).text, value ? *value : *otherwise});
  }
  if (given.count > i) return wrong(node, "more arguments than the macro has", macro.text);
  if (caller && status) status = own.push({"caller", *caller});
  for (const Variable& v : own.span()) {
    if (status) status = variables_.push(v);
  }
  floor_ = scope_ = mark;
  outer_ = callee.tuple
               ? Range{static_cast<std::uint32_t>(callee.integer >> 32), static_cast<std::uint32_t>(callee.integer)}
               : Range{};
  in_scope_ = true;
  constexpr int k_frames = 25;  // of the stack that an expression takes: macros count more
  depth_ += k_frames;
  Result<Flow> flow = Flow::on;
  if (status) flow = statements(macro.b, out);
  depth_ -= k_frames;
  (void)variables_.resize(mark);
  floor_ = floor;
  scope_ = scope;
  outer_ = outer;
  in_scope_ = inside;
  if (!status) return fail(status.error());
  if (!flow) return fail(flow.error());
  return text({out.data(), out.size()});
}

}  // namespace qorus::text
