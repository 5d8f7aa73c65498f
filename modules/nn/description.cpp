// Bodies of qorus.nn:description: writing and reading of JSON.
module qorus.nn;
import qorus.std;
import qorus.trust;

namespace qorus::nn {

void Writer::put(std::string_view more) noexcept {
  if (status_) status_ = text_.append(std::span<const char>(more.data(), more.size()));
}
void Writer::begin(std::string_view name) noexcept {
  if (!first_) put(", ");
  first_ = false;
  if (name.empty()) return;
  put("\"");
  put(name);
  put("\": ");
}
void Writer::open(std::string_view name, char bracket) noexcept {
  begin(name);
  put({&bracket, 1});
  first_ = true;
}
void Writer::close(char bracket) noexcept {
  put({&bracket, 1});
  first_ = false;
}
void Writer::value(std::string_view name, std::string_view text) noexcept {
  begin(name);
  put("\"");
  for (const char c : text) {  // names are what reading takes: no quotes, no escapes
    const char plain = c == '"' || c == '\\' || static_cast<unsigned char>(c) < ' ' ? '_' : c;
    put({&plain, 1});
  }
  put("\"");
}
void Writer::value(std::string_view name, bool flag) noexcept {
  begin(name);
  put(flag ? "true" : "false");
}
void Writer::value(std::string_view name, std::int64_t number) noexcept {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, number);
  begin(name);
  put({digits, static_cast<std::size_t>(end.ptr - digits)});
}
void Writer::value(std::string_view name, double number) noexcept {
  char digits[40];
  const auto end =
      std::to_chars(digits, digits + sizeof digits, static_cast<float>(std::isfinite(number) ? number : 0));
  begin(name);
  put({digits, static_cast<std::size_t>(end.ptr - digits)});
}
Result<List<char>> Writer::finish() noexcept {
  if (!status_) return fail(status_.error());
  return std::move(text_);
}

class DescriptionParser {
 public:
  explicit DescriptionParser(std::string_view text) noexcept : at_(text.data()), end_(text.data() + text.size()) {}

  Result<Description> run() noexcept {
    if (end_ - at_ > limits::layers_bytes) return too_much();
    if (auto none = made_.values_.push({}); !none) return fail(none.error());
    if (auto root = value({}, 0); !root) return fail(root.error());
    skip();
    if (at_ != end_) return wrong();
    return std::move(made_);
  }

 private:
  static tl::unexpected<Error> wrong() noexcept { return fail(Errc::corrupt, "from_json", "this is not JSON"); }
  static tl::unexpected<Error> too_much() noexcept {
    return fail(Errc::unsupported, "from_json", "too long, too deep or too many values");
  }
  void skip() noexcept {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
  }
  bool take(char c) noexcept {
    skip();
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }
  bool word(std::string_view wanted) noexcept {
    if (static_cast<std::size_t>(end_ - at_) < wanted.size() || std::string_view(at_, wanted.size()) != wanted)
      return false;
    at_ += wanted.size();
    return true;
  }
  Result<std::string_view> string() noexcept {
    if (!take('"')) return wrong();
    const char* begin = at_;
    while (at_ != end_ && *at_ != '"') {
      if (*at_ == '\\') return fail(Errc::unsupported, "from_json", "names have no escapes");
      if (static_cast<unsigned char>(*at_) < ' ') return wrong();
      ++at_;
    }
    if (at_ == end_) return wrong();
    return std::string_view(begin, static_cast<std::size_t>(at_++ - begin));
  }
  Status number(Described& made) noexcept {
    const auto [after, failure] = std::from_chars(at_, end_, made.number);
    if (failure != std::errc() || !std::isfinite(made.number)) return wrong();
    at_ = after;
    made.kind = Described::Kind::number;
    return {};
  }
  // The value's index.
  Result<std::uint32_t> value(std::string_view key, int depth) noexcept {
    if (depth > limits::layers_depth || made_.values_.size() > limits::layers_values) return too_much();
    skip();
    if (at_ == end_) return wrong();
    const auto index = static_cast<std::uint32_t>(made_.values_.size());
    Described made{.key = key};
    if (auto room = made_.values_.push(made); !room) return fail(room.error());
    if (*at_ == '{' || *at_ == '[') {
      made.kind = *at_ == '{' ? Described::Kind::object : Described::Kind::list;
      if (auto inside = elements(made, depth); !inside) return fail(inside.error());
    } else if (*at_ == '"') {
      auto text = string();
      if (!text) return fail(text.error());
      made.kind = Described::Kind::text;
      made.text = *text;
    } else if (*at_ == 't' || *at_ == 'f') {
      made.kind = Described::Kind::flag;
      made.number = *at_ == 't' ? 1 : 0;
      if (!word(made.number != 0 ? "true" : "false")) return wrong();
    } else if (*at_ == 'n') {
      if (!word("null")) return wrong();
    } else if (auto ok = number(made); !ok) {
      return fail(ok.error());
    }
    made_.values_[index] = made;
    return index;
  }
  Status elements(Described& made, int depth) noexcept {
    const bool object = *at_ == '{';
    const char closing = object ? '}' : ']';
    ++at_;
    if (take(closing)) return {};
    std::uint32_t last = 0;
    do {
      std::string_view key;
      if (object) {
        auto name = string();
        if (!name) return fail(name.error());
        if (!take(':')) return wrong();
        key = *name;
      }
      auto next = value(key, depth + 1);
      if (!next) return fail(next.error());
      (last ? made_.values_[last].next : made.child) = *next;
      last = *next;
    } while (take(','));
    return take(closing) ? Status{} : Status(wrong());
  }

  Description made_;
  const char *at_, *end_;
};

Result<Description> Description::parse(std::string_view text) noexcept { return DescriptionParser(text).run(); }

const Described* Description::find(const Described& object, std::string_view key) const noexcept {
  if (object.kind != Described::Kind::object) return nullptr;
  for (const Described* value = first(object); value; value = after(*value)) {
    if (value->key == key) return value;
  }
  return nullptr;
}

Status read_number(const Description& from, const Described& object, std::string_view name, double& value, double low,
                   double high, bool whole) noexcept {
  const Described* found = from.find(object, name);
  if (!found) return {};
  const bool number = found->kind == Described::Kind::number || found->kind == Described::Kind::flag;
  if (!number || !(found->number >= low && found->number <= high) ||
      (whole && found->number != std::floor(found->number)))
    return fail(Errc::corrupt, "from_json", "a setting is of another kind or out of range", name);
  value = found->number;
  return {};
}

}  // namespace qorus::nn
