// What templates call: functions, methods of texts and dictionaries, tests.
module;
#include <string.h>
#include <cstdint>
#include <ctime>
module qorus.text;
import qorus.std;
import qorus.trust;
import :jinja;
import :pieces;
import :unicode;

namespace qorus::text {

Result<Value> Runner::call(const Node& node, const Value* caller) noexcept {
  const Node& target = at(node.a);
  auto given = arguments_of(node.b);
  if (!given) return fail(given.error());
  if (target.kind == NodeKind::attribute) {
    auto self = evaluate(target.a);
    if (!self) return self;
    const Value* own = member(*self, target.text);
    if (!own) return call_method(target, target.text, *self, *given);
    if (own->is(ValueKind::function)) return call_function(node, own->count, *given);
    if (own->is(ValueKind::macro)) return call_macro(node, *own, *given, caller);
    // A dictionary's member may have a method's name: what is called is the method.
    return call_method(target, target.text, *self, *given);
  }
  auto value = evaluate(node.a);
  if (!value) return value;
  if (value->is(ValueKind::function)) return call_function(node, value->count, *given);
  if (value->is(ValueKind::macro)) return call_macro(node, *value, *given, caller);
  if (value->is(ValueKind::undefined)) return missing(node, "a function that is not known", target.text);
  return wrong(node, "a call of what is no function", target.text);
}

Result<Value> Runner::call_function(const Node& node, std::uint32_t which, const Arguments& given) noexcept {
  if (which == k_raise) {
    const Value* message = given.at(0, "message");
    return wrong(node, "the template refuses", message ? message->view() : std::string_view());
  }
  if (which == k_cycle) {
    const Value* loop = nullptr;
    for (const Variable& v : variables_.span()) {
      if (v.name == "loop") loop = &v.value;
    }
    const Value* index = loop ? member(*loop, "index0") : nullptr;
    if (!index || given.count == 0) return wrong(node, "cycle outside a loop, or of nothing");
    return given.values[static_cast<std::size_t>(index->integer) % given.count];
  }
  if (which == k_now) {
    const Value* format = given.at(0, "format");
    if (!format || !format->is(ValueKind::text) || format->size > 200)
      return wrong(node, "strftime_now needs a format");
    const std::time_t now = options_.now >= 0 ? static_cast<std::time_t>(options_.now) : std::time(nullptr);
    std::tm parts{};
    (void)localtime_r(&now, &parts);
    char terminated[201] = {}, made[1000];
    std::copy_n(format->text, format->size, terminated);
    return text({made, std::strftime(made, sizeof made, terminated, &parts)});
  }
  if (which == k_range) {
    std::int64_t bounds[3] = {0, 0, 1};
    for (std::size_t i = 0; i < given.count; ++i) {
      if (i > 2 || !given.values[i].is(ValueKind::integer)) return wrong(node, "range takes up to three whole numbers");
      bounds[given.count == 1 ? 1 : i] = given.values[i].integer;
    }
    const std::int64_t first = bounds[0], last = bounds[1], stride = bounds[2];
    const auto inside = [](std::int64_t x) { return x > -(std::int64_t{1} << 40) && x < std::int64_t{1} << 40; };
    if (given.count == 0 || stride == 0 || !inside(first) || !inside(last) || !inside(stride))
      return wrong(node, "a range that is none");
    const std::int64_t count = std::max<std::int64_t>(
        stride > 0 ? (last - first + stride - 1) / stride : (first - last - stride - 1) / -stride, 0);
    if (count > limits::template_range)
      return fail(Errc::overflow, "chat template", "a range of more than 100000 numbers");
    auto all = store_.array<Value>(static_cast<std::size_t>(count));
    if (!all) return fail(all.error());
    if (auto ok = step(static_cast<std::uint64_t>(count) / 16); !ok) return fail(ok.error());
    for (std::int64_t i = 0; i < count; ++i) (*all)[static_cast<std::size_t>(i)] = of(first + i * stride);
    return of(std::span<const Value>(*all));
  }
  // namespace and dict: members by name, after those of a dictionary.
  const auto base = given.count ? given.values[0].pairs() : std::span<const Pair>();
  auto members = store_.array<Pair>(base.size() + given.named);
  if (!members) return fail(members.error());
  std::copy(base.begin(), base.end(), members->begin());
  for (std::size_t i = 0; i < given.named; ++i)
    (*members)[base.size() + i] = {of(given.names[given.count + i]), given.values[given.count + i]};
  const Value dictionary = of(std::span<const Pair>(*members));
  if (which == k_dict) return dictionary;
  auto place = store_.array<Value>(1);
  if (!place) return fail(place.error());
  (*place)[0] = dictionary;
  Value made;
  made.kind = ValueKind::space;
  made.space = place->data();
  return made;
}

Result<Value> Runner::items_of(const Value& value) noexcept {
  const auto pairs = value.pairs();
  auto all = store_.array<Value>(pairs.size());
  if (!all) return fail(all.error());
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    auto two = store_.array<Value>(2);
    if (!two) return fail(two.error());
    (*two)[0] = pairs[i].key;
    (*two)[1] = pairs[i].value;
    (*all)[i] = of(std::span<const Value>(*two));
    (*all)[i].tuple = true;
  }
  return of(std::span<const Value>(*all));
}

// What a loop goes over: elements, keys, characters.
Result<std::span<const Value>> Runner::elements_of(const Node& node, const Value& value) noexcept {
  if (value.is(ValueKind::list)) return value.list();
  if (value.is(ValueKind::undefined)) return std::span<const Value>();
  if (value.is(ValueKind::dictionary)) {
    auto keys = store_.array<Value>(value.count);
    if (!keys) return fail(keys.error());
    for (std::size_t i = 0; i < value.count; ++i) (*keys)[i] = value.members[i].key;
    return std::span<const Value>(*keys);
  }
  if (!value.is(ValueKind::text)) return wrong(node, "a loop over what has no elements");
  if (auto ok = step(value.size / 4); !ok) return fail(ok.error());
  auto all = store_.array<Value>(value.size);
  if (!all) return fail(all.error());
  std::size_t count = 0;
  const char *at = value.text, *end = value.text + value.size;
  while (at < end) {
    const std::size_t size = std::max<std::size_t>(utf8_size(at, end), 1);
    (*all)[count++] = of(std::string_view(at, size));
    at += size;
  }
  return std::span<const Value>(all->first(count));
}

Result<Value> Runner::call_method(const Node& node, std::string_view name, const Value& self,
                                  const Arguments& given) noexcept {
  if (self.is(ValueKind::undefined)) return wrong(node, "a method of what is not defined", name);
  if (self.is(ValueKind::text)) return text_method(node, name, self.view(), given);
  if (self.is(ValueKind::dictionary) || self.is(ValueKind::space)) {
    if (name == "items") return items_of(self);
    if (name == "get") {
      const Value *key = given.at(0), *otherwise = given.at(1, "default");
      if (!key) return wrong(node, "get needs a key");
      const Value* found = member(self, key->view());
      return found && key->is(ValueKind::text) ? *found : otherwise ? *otherwise : nothing();
    }
    if (name == "keys" || name == "values") {
      const auto pairs = self.pairs();
      auto all = store_.array<Value>(pairs.size());
      if (!all) return fail(all.error());
      for (std::size_t i = 0; i < pairs.size(); ++i) (*all)[i] = name == "keys" ? pairs[i].key : pairs[i].value;
      return of(std::span<const Value>(*all));
    }
  }
  if (self.is(ValueKind::list) && (name == "index" || name == "count")) {
    const Value* wanted = given.at(0);
    if (!wanted) return wrong(node, "a value is wanted", name);
    const auto list = self.list();
    if (auto ok = step(list.size()); !ok) return fail(ok.error());
    const auto is = [&](const Value& v) { return same(v, *wanted, left_); };
    if (name == "count") return of(static_cast<std::int64_t>(std::count_if(list.begin(), list.end(), is)));
    const auto found = std::find_if(list.begin(), list.end(), is);
    if (found == list.end()) return wrong(node, "index of what is not in the list");
    return of(static_cast<std::int64_t>(found - list.begin()));
  }
  return missing(node, "a method that is not done", name);
}

Result<Value> Runner::cased(std::string_view from, std::string_view how) noexcept {
  List<char> out;
  bool begins = true;
  const char *at = from.data(), *const end = at + from.size();
  while (at != end) {
    const Char c = read(at, end);
    const bool up = how == "upper" || (begins && (how == "title" || how == "capitalize"));
    constexpr std::uint32_t k_sharp_s = 0xdf;  // the one letter in use that becomes two
    const std::string_view two = how == "upper" ? "SS" : "Ss";
    auto added = c.code == k_no_char         ? out.push(*at)
                 : up && c.code == k_sharp_s ? out.append(std::span(two.data(), two.size()))
                                             : append_char(out, up ? upper(c.code) : lower(c.code));
    if (!added) return fail(added.error());
    begins = how == "title" && !c.is(k_letter);
    at += c.size;
  }
  return text({out.data(), out.size()});
}

// In time linear in both, which string_view::find is not.
Result<std::size_t> Runner::find(std::string_view from, std::string_view what, std::size_t at) noexcept {
  if (auto ok = step((what.size() + 64) / 64); !ok) return fail(ok.error());
  const std::string_view rest = part_of(from, at);
  const void* place = nullptr;
  if (what.empty())
    place = rest.data();
  else if (rest.size() >= what.size())
    place = ::memmem(rest.data(), rest.size(), what.data(), what.size());
  const std::size_t found =
      place ? static_cast<std::size_t>(static_cast<const char*>(place) - rest.data()) : rest.size();
  if (auto ok = step(found / 64); !ok) return fail(ok.error());
  return place || what.empty() ? at + found : from.npos;
}

Result<Value> Runner::split(std::string_view from, const Arguments& given) noexcept {
  const Value *by = given.at(0, "sep"), *limit = given.at(1, "maxsplit");
  const bool blanks = !by || by->is(ValueKind::none);
  const std::string_view separator = blanks ? std::string_view() : by->view();
  std::int64_t left = limit && limit->is(ValueKind::integer) && limit->integer >= 0 ? limit->integer : INT64_MAX;
  List<Value> parts;
  constexpr std::string_view k_blanks = " \t\r\n\v\f";
  if (auto ok = step(from.size() / 16); !ok) return fail(ok.error());
  for (;;) {
    if (blanks) from.remove_prefix(std::min(from.find_first_not_of(k_blanks), from.size()));
    if (blanks && from.empty()) break;
    auto end = left-- <= 0 ? Result<std::size_t>(from.npos)
               : blanks    ? from.find_first_of(k_blanks)
                           : find(from, separator);
    if (!end) return fail(end.error());
    if (auto ok = parts.push(of(part_of(from, 0, *end))); !ok) return fail(ok.error());
    if (*end == from.npos) break;
    from.remove_prefix(*end + (blanks ? 1 : separator.size()));
  }
  auto all = store_.array<Value>(parts.size());
  if (!all) return fail(all.error());
  std::copy(parts.begin(), parts.end(), all->begin());
  return of(std::span<const Value>(*all));
}

Result<Value> Runner::text_method(const Node& node, std::string_view name, std::string_view self,
                                  const Arguments& given) noexcept {
  const Value* first = given.at(0);
  const std::string_view argument = first ? first->view() : std::string_view();
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    const std::string_view away = argument.empty() ? " \t\r\n\v\f" : argument;
    if (name != "rstrip") self.remove_prefix(std::min(self.find_first_not_of(away), self.size()));
    if (name != "lstrip") self = part_of(self, 0, self.find_last_not_of(away) + 1);
    return of(self);
  }
  if (name == "startswith" || name == "endswith") {
    const auto is = [&](std::string_view s) { return name == "startswith" ? self.starts_with(s) : self.ends_with(s); };
    if (first && first->is(ValueKind::list))
      return of(std::any_of(first->list().begin(), first->list().end(), [&](const Value& v) { return is(v.view()); }));
    return of(is(argument));
  }
  if (name == "split") {
    if (first && first->is(ValueKind::text) && argument.empty()) return wrong(node, "split by an empty text");
    return split(self, given);
  }
  if (name == "splitlines") {
    Arguments by;
    by.values[by.count++] = of(std::string_view("\n"));
    if (self.ends_with('\n')) self.remove_suffix(1);
    return split(self, by);
  }
  if (name == "upper" || name == "lower" || name == "title" || name == "capitalize") return cased(self, name);
  if (name == "find" || name == "count") {
    if (argument.empty()) return missing(node, "a method without a text", name);
    auto found = find(self, argument);
    if (found && name == "find") {
      if (*found == self.npos) return of(std::int64_t{-1});
      auto before = elements_of(node, of(part_of(self, 0, *found)));  // characters
      return before ? Result<Value>(of(static_cast<std::int64_t>(before->size()))) : fail(before.error());
    }
    std::int64_t count = 0;
    for (; found && *found != self.npos; found = find(self, argument, *found + argument.size())) ++count;
    return found ? Result<Value>(of(count)) : fail(found.error());
  }
  if (name == "removeprefix" || name == "removesuffix") {
    if (name == "removeprefix" && self.starts_with(argument)) self.remove_prefix(argument.size());
    if (name == "removesuffix" && self.ends_with(argument)) self.remove_suffix(argument.size());
    return of(self);
  }
  // The rest are filters as well.
  if (name == "replace") return text_filter(node, name, of(self), given);
  if (name == "join") {
    Arguments by;
    by.values[by.count++] = of(self);
    return list_filter(node, name, first ? *first : Value{}, by);
  }
  return missing(node, "a method that is not done", name);
}

Result<bool> Runner::test(const Node& node, std::string_view name, const Value& v, const Value* argument) noexcept {
  const ValueKind k = v.kind;
  if (name == "defined") return k != ValueKind::undefined;
  if (name == "undefined") return k == ValueKind::undefined;
  if (name == "none") return k == ValueKind::none;
  if (name == "string") return k == ValueKind::text;
  if (name == "number") return v.number();
  if (name == "integer") return k == ValueKind::integer;
  if (name == "float") return k == ValueKind::real;
  if (name == "boolean") return k == ValueKind::boolean;
  if (name == "mapping") return k == ValueKind::dictionary;
  if (name == "sequence") return k == ValueKind::list || k == ValueKind::text || k == ValueKind::dictionary;
  if (name == "iterable")
    return k == ValueKind::list || k == ValueKind::text || k == ValueKind::dictionary || k == ValueKind::undefined;
  if (name == "callable") return k == ValueKind::macro || k == ValueKind::function;
  if (name == "true") return k == ValueKind::boolean && v.boolean;
  if (name == "false") return k == ValueKind::boolean && !v.boolean;
  if (name == "lower" || name == "upper") {
    auto made = cased(v.view(), name);
    if (!made) return fail(made.error());
    return made->view() == v.view() &&
           std::any_of(v.view().begin(), v.view().end(), [](char c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; });
  }
  if (name == "odd" || name == "even") {
    if (k != ValueKind::integer) return wrong(node, "odd or even is a whole number", name);
    return (v.integer % 2 != 0) == (name == "odd");
  }
  if (!argument) return missing(node, "a test that is not done", name);
  if (name == "equalto" || name == "eq" || name == "sameas") return same(v, *argument, left_);
  if (name == "ne") return !same(v, *argument, left_);
  if (name == "divisibleby") {
    if (k != ValueKind::integer || !argument->is(ValueKind::integer) || argument->integer == 0)
      return wrong(node, "whole numbers are divisible by others", name);
    return argument->integer == -1 || v.integer % argument->integer == 0;
  }
  if (name == "in") {
    if (argument->is(ValueKind::text)) {
      if (k != ValueKind::text) return wrong(node, "in a text there are only texts");
      return find(argument->view(), v.view()).transform([](std::size_t at) { return at != std::string_view::npos; });
    }
    if (argument->is(ValueKind::undefined)) return false;
    if (argument->is(ValueKind::dictionary) || argument->is(ValueKind::space))
      return k == ValueKind::text && member(*argument, v.view()) != nullptr;
    if (!argument->is(ValueKind::list)) return wrong(node, "in what has no elements");
    if (auto ok = step(argument->count); !ok) return fail(ok.error());
    return std::any_of(argument->list().begin(), argument->list().end(),
                       [&](const Value& x) { return same(x, v, left_); });
  }
  const std::pair<std::string_view, int> orders[] = {{"lt", -1},         {"lessthan", -1}, {"gt", 1},
                                                     {"greaterthan", 1}, {"le", -2},       {"ge", 2}};
  for (const auto& o : orders) {
    if (o.first != name) continue;
    auto sign = order(v, *argument, left_);
    if (!sign) return wrong(node, sign.error().text);
    return o.second == -1 ? *sign < 0 : o.second == 1 ? *sign > 0 : o.second == -2 ? *sign <= 0 : *sign >= 0;
  }
  return missing(node, "a test that is not done", name);
}

}  // namespace qorus::text
