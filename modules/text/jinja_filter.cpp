// The filters of templates.
module;
#include <cstdint>
module qorus.text;
import qorus.std;
import :jinja;
import :pieces;
import :unicode;

namespace qorus::text {

Result<Value> Runner::filter(const Node& node, const Value& value, const Arguments& given) noexcept {
  const std::string_view name = node.text;
  if (name == "default" || name == "d") {
    const Value *otherwise = given.at(0, "default_value"), *also = given.at(1, "boolean");
    const bool takes = value.is(ValueKind::undefined) || (also && truth(*also) && !truth(value));
    return takes ? (otherwise ? *otherwise : of(std::string_view())) : value;
  }
  if (name == "tojson") {
    const Value *ascii = given.at(0, "ensure_ascii"), *indent = given.at(1, "indent"),
                *separators = given.at(2, "separators"), *sorted = given.at(3, "sort_keys");
    JsonStyle style{.sorted = sorted && truth(*sorted), .ascii = ascii && truth(*ascii)};
    if (separators && separators->is(ValueKind::list) && separators->count == 2) {
      style.comma = separators->elements[0].view();
      style.colon = separators->elements[1].view();
    }
    if (indent && indent->is(ValueKind::integer)) style.indent = std::clamp<std::int64_t>(indent->integer, 0, 64);
    List<char> out;
    auto done = append_json(out, value, style);
    if (!done && done.error().code == Errc::invalid_argument) return wrong(node, done.error().text);
    if (!done) return fail(done.error());
    return text({out.data(), out.size()});
  }
  if (name == "string") return printed(value);
  if (name == "safe" || name == "e" || name == "escape")
    return name == "safe" ? Result<Value>(value) : missing(node, "a filter that is not done", name);
  if (name == "length" || name == "count") {
    if (value.is(ValueKind::text)) {
      auto all = elements_of(node, value);
      return all ? Result<Value>(of(static_cast<std::int64_t>(all->size()))) : fail(all.error());
    }
    if (!value.is(ValueKind::list) && !value.is(ValueKind::dictionary) && !value.is(ValueKind::undefined))
      return wrong(node, "the length of what has none");
    return of(static_cast<std::int64_t>(value.is(ValueKind::undefined) ? 0 : value.count));
  }
  if (name == "abs" || name == "round" || name == "int" || name == "float") {
    double x = value.as_real();
    if (value.is(ValueKind::text)) {
      const std::string_view digits = value.view();
      if (std::from_chars(digits.data(), digits.data() + digits.size(), x).ec != std::errc()) x = 0;
    } else if (!value.number()) {
      return given.count && name != "round" ? Result<Value>(given.values[0]) : wrong(node, "a number is wanted", name);
    }
    if (name == "float") return of(x);
    if (value.is(ValueKind::integer) || value.is(ValueKind::boolean))
      return name == "abs"     ? of(value.as_integer() < 0
                                        ? static_cast<std::int64_t>(-static_cast<std::uint64_t>(value.as_integer()))
                                        : value.as_integer())
             : name == "round" ? of(x)
                               : of(value.as_integer());
    if (name == "abs") return of(std::abs(x));
    const Value* digits = given.at(0, "precision");
    const double scale = digits && digits->is(ValueKind::integer)
                             ? std::pow(10.0, static_cast<double>(std::clamp<std::int64_t>(digits->integer, -300, 300)))
                             : 1;
    if (name == "round") return of(std::nearbyint(x * scale) / scale);
    if (!(std::abs(x) < 9e18)) return wrong(node, "a number that does not fit 64 bits");
    return of(static_cast<std::int64_t>(x));
  }
  constexpr std::string_view texts[] = {"trim", "upper", "lower", "title", "capitalize", "replace", "indent"};
  if (std::find(std::begin(texts), std::end(texts), name) != std::end(texts))
    return text_filter(node, name, value, given);
  return list_filter(node, name, value, given);
}

Result<Value> Runner::text_filter(const Node& node, std::string_view name, const Value& value,
                                  const Arguments& given) noexcept {
  auto words = printed(value);
  if (!words) return words;
  const std::string_view from = words->view();
  if (name == "trim") return text_method(node, "strip", from, given);
  if (name == "replace") {
    const Value *old = given.at(0, "old"), *fresh = given.at(1, "new"), *limit = given.at(2, "count");
    if (!old || !fresh || !old->is(ValueKind::text)) return wrong(node, "replace takes two texts");
    auto to = printed(*fresh);
    if (!to) return to;
    if (old->size == 0) return missing(node, "replace of nothing", name);
    std::int64_t left = limit && limit->is(ValueKind::integer) && limit->integer >= 0 ? limit->integer : INT64_MAX;
    List<char> out;
    std::size_t at = 0;
    while (left-- > 0) {
      auto found = find(from, old->view(), at);
      if (!found) return fail(found.error());
      if (*found == from.npos) break;
      const std::string_view before = part_of(from, at, *found - at);
      at = *found + old->size;
      if (out.size() + before.size() + to->size > options_.memory)
        return fail(Errc::overflow, "chat template", "writes more text than it may");
      if (auto ok = out.append(std::span(before.data(), before.size())); !ok) return fail(ok.error());
      if (auto ok = out.append(std::span(to->text, to->size)); !ok) return fail(ok.error());
    }
    return text({out.data(), out.size()}, part_of(from, at));
  }
  if (name != "indent") return cased(from, name);
  const Value *width = given.at(0, "width"), *first = given.at(1, "first"), *blank = given.at(2, "blank");
  const std::size_t spaces = width && width->is(ValueKind::integer)
                                 ? static_cast<std::size_t>(std::clamp<std::int64_t>(width->integer, 0, 1000))
                                 : 4;
  List<char> out;
  bool begins = first && truth(*first);
  for (std::size_t i = 0; i < from.size(); ++i) {
    if (begins && (from[i] != '\n' || (blank && truth(*blank)))) {
      for (std::size_t s = 0; s < spaces; ++s) {
        if (auto ok = out.push(' '); !ok) return fail(ok.error());
      }
    }
    if (auto ok = out.push(from[i]); !ok) return fail(ok.error());
    begins = from[i] == '\n';
    if (out.size() > options_.memory) return fail(Errc::overflow, "chat template", "writes more text than it may");
  }
  return text({out.data(), out.size()});
}

Result<Value> Runner::list_filter(const Node& node, std::string_view name, const Value& value,
                                  const Arguments& given) noexcept {
  if (name == "items" || name == "dictsort") {
    if (value.is(ValueKind::undefined)) return of(std::span<const Value>());
    if (!value.is(ValueKind::dictionary)) return wrong(node, "items of what is no dictionary");
    auto made = items_of(value);
    if (!made || name == "items") return made;
    const Value *exact = given.at(0, "case_sensitive"), *by = given.at(1, "by"), *reversed = given.at(2, "reverse");
    const Value index = of(std::int64_t{by && by->view() == "value"});
    auto ordered = sorted(node, made->list(), &index, exact);
    if (!ordered) return fail(ordered.error());
    if (reversed && truth(*reversed)) std::reverse(ordered->begin(), ordered->end());
    return of(std::span<const Value>(*ordered));
  }
  constexpr std::string_view names[] = {"list",       "first",  "last",   "join", "selectattr",
                                        "rejectattr", "select", "reject", "map",  "sum",
                                        "unique",     "sort",   "min",    "max",  "reverse"};
  if (std::find(std::begin(names), std::end(names), name) == std::end(names))
    return missing(node, "a filter that is not done", name);
  auto elements = elements_of(node, value);
  if (!elements) return fail(elements.error());
  const std::span<const Value> all = *elements;
  if (auto ok = step(all.size()); !ok) return fail(ok.error());
  if (name == "list") return of(all);
  if (name == "first" || name == "last") return all.empty() ? Value{} : name == "first" ? all.front() : all.back();
  if (name == "join") {
    const Value *by = given.at(0, "d"), *attribute = given.at(1, "attribute");
    List<char> out;
    for (std::size_t i = 0; i < all.size(); ++i) {
      auto element = attribute ? item_of(node, all[i], *attribute) : Result<Value>(all[i]);
      if (!element) return element;
      const std::string_view between = by && i ? by->view() : std::string_view();
      if (auto ok = out.append(std::span(between.data(), between.size())); !ok) return fail(ok.error());
      if (auto ok = append_text(out, *element, false); !ok) return fail(ok.error());
      if (out.size() > options_.memory) return fail(Errc::overflow, "chat template", "writes more text than it may");
    }
    return text({out.data(), out.size()});
  }
  if (name == "selectattr" || name == "rejectattr" || name == "select" || name == "reject")
    return select(node, name, all, given);
  if (name == "map") return map(node, all, given);
  if (name == "sum") {
    Value sum = of(std::int64_t{0});
    Node plus = node;
    plus.op = static_cast<std::uint8_t>(Op::add);
    for (const Value& v : all) {
      auto more = arithmetic(plus, sum, v);
      if (!more) return more;
      sum = *more;
    }
    return sum;
  }
  if (name == "sort" || name == "min" || name == "max") {
    const bool sort = name == "sort";
    const Value* reversed = sort ? given.at(0, "reverse") : nullptr;
    auto made = sorted(node, all, given.at(sort ? 2 : 1, "attribute"), given.at(sort ? 1 : 0, "case_sensitive"));
    if (!made) return fail(made.error());
    if (!sort) return made->empty() ? Value{} : name == "min" ? made->front() : made->back();
    if (reversed && truth(*reversed)) std::reverse(made->begin(), made->end());
    return of(std::span<const Value>(*made));
  }
  auto kept = store_.array<Value>(all.size());
  if (!kept) return fail(kept.error());
  if (name == "reverse") {
    if (value.is(ValueKind::text)) return missing(node, "the reverse of a text", name);
    std::reverse_copy(all.begin(), all.end(), kept->begin());
    return of(std::span<const Value>(*kept));
  }
  auto keys = keys_of(node, all, given.at(1, "attribute"), given.at(0, "case_sensitive"));
  if (!keys) return fail(keys.error());
  std::size_t count = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Value& key = (*keys)[i];
    const auto known = [&](const Value& x) { return same(x, key, left_); };
    if (std::any_of(keys->begin(), keys->begin() + static_cast<std::ptrdiff_t>(count), known)) continue;
    if (auto ok = step(); !ok) return fail(ok.error());
    (*keys)[count] = key;
    (*kept)[count++] = all[i];
  }
  return of(std::span<const Value>(kept->first(count)));
}

// What values are ordered by: an attribute or themselves, without regard to case unless `exact` says so.
Result<std::span<Value>> Runner::keys_of(const Node& node, std::span<const Value> values, const Value* by,
                                         const Value* exact) noexcept {
  auto keys = store_.array<Value>(values.size());
  for (std::size_t i = 0; keys && i < values.size(); ++i) {
    auto key = by && !by->is(ValueKind::none) ? item_of(node, values[i], *by) : Result<Value>(values[i]);
    if (key && key->is(ValueKind::text) && !(exact && truth(*exact))) key = cased(key->view(), "lower");
    if (!key) return fail(key.error());
    (*keys)[i] = *key;
  }
  return keys;
}

// Merges runs of 1, 2, 4, …: equal ones keep their order, and what has no order (NaN) does no harm.
Result<std::span<Value>> Runner::sorted(const Node& node, std::span<const Value> values, const Value* by,
                                        const Value* exact) noexcept {
  auto keys = keys_of(node, values, by, exact);
  if (!keys) return keys;
  const std::size_t count = values.size();
  auto turn = store_.array<std::uint32_t>(count), other = store_.array<std::uint32_t>(count);
  if (!turn || !other) return fail(Errc::overflow, "chat template", "takes more memory than it may");
  for (std::size_t i = 0; i < count; ++i) (*turn)[i] = static_cast<std::uint32_t>(i);
  for (std::size_t run = 1; run < count; run *= 2) {
    for (std::size_t first = 0; first < count; first += 2 * run) {
      const std::size_t middle = std::min(first + run, count), end = std::min(middle + run, count);
      for (std::size_t a = first, b = middle, to = first; to < end; ++to) {
        bool right = a == middle;
        if (!right && b < end) {
          auto sign = order((*keys)[(*turn)[b]], (*keys)[(*turn)[a]], left_);
          if (!sign) return wrong(node, sign.error().text);
          if (auto ok = step(); !ok) return fail(ok.error());
          right = *sign < 0;
        }
        (*other)[to] = (*turn)[right ? b++ : a++];
      }
    }
    std::swap(*turn, *other);
  }
  auto made = store_.array<Value>(count);
  for (std::size_t i = 0; made && i < count; ++i) (*made)[i] = values[(*turn)[i]];
  return made;
}

// selectattr(attribute, test, argument), select(test, argument), and the other way round.
Result<Value> Runner::select(const Node& node, std::string_view name, std::span<const Value> values,
                             const Arguments& given) noexcept {
  const bool attribute = name.ends_with("attr"), keep = name.starts_with("select");
  if (attribute && given.count == 0) return wrong(node, "an attribute is wanted", name);
  const Value *which = given.at(attribute ? 1 : 0), *argument = given.at(attribute ? 2 : 1);
  auto kept = store_.array<Value>(values.size());
  if (!kept) return fail(kept.error());
  std::size_t count = 0;
  for (const Value& v : values) {
    auto subject = attribute ? item_of(node, v, given.values[0]) : Result<Value>(v);
    if (!subject) return subject;
    std::string_view word = which ? which->view() : std::string_view();
    const std::pair<std::string_view, std::string_view> signs[] = {{"==", "eq"}, {"!=", "ne"}, {"<", "lt"},
                                                                   {">", "gt"},  {"<=", "le"}, {">=", "ge"}};
    for (const auto& s : signs) {
      if (s.first == word) word = s.second;
    }
    auto is = which ? test(node, word, *subject, argument) : Result<bool>(truth(*subject));
    if (!is) return fail(is.error());
    if (*is == keep) (*kept)[count++] = v;
  }
  return of(std::span<const Value>(kept->first(count)));
}

// map(attribute="x", default=…), map("filter", arguments…).
Result<Value> Runner::map(const Node& node, std::span<const Value> values, const Arguments& given) noexcept {
  auto made = store_.array<Value>(values.size());
  if (!made) return fail(made.error());
  const Value* attribute = given.count ? nullptr : given.at(0, "attribute");
  const Value* otherwise = given.at(Arguments::k_most, "default");
  if (!attribute && (given.count == 0 || !given.values[0].is(ValueKind::text)))
    return wrong(node, "map needs an attribute or a filter");
  Node inner = node;
  Arguments rest;
  if (!attribute) {
    inner.text = given.values[0].view();
    if (inner.text == "map") return missing(node, "a map of maps", "map");
    for (std::size_t i = 1; i < given.count; ++i) rest.values[rest.count++] = given.values[i];
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    auto value = attribute ? item_of(node, values[i], *attribute) : filter(inner, values[i], rest);
    if (!value) return value;
    (*made)[i] = value->is(ValueKind::undefined) && otherwise ? *otherwise : *value;
  }
  return of(std::span<const Value>(*made));
}

}  // namespace qorus::text
