// A model's structure as JSON: what a layer is (kind, settings, the layers in it), not its parameters' values. Any layer can take
// part: `settings(self, f)` names its numbers, `fields()` its parts; neither is needed. Reading is strict and bounded: at most
// 1 MiB of text, 32 levels, 65,536 values, 65,536 layers once repeats are made.
export module qorus.nn:description;
import qorus.std;
import qorus.ops;
import :param;

export namespace qorus::nn {

// Puts JSON together. The first failure (out_of_memory) is kept.
class Writer {
 public:
  void open(std::string_view name, char bracket) noexcept;  // '{' or '['; an empty name: an element
  void close(char bracket) noexcept;
  void value(std::string_view name, std::string_view text) noexcept;
  void value(std::string_view name, bool flag) noexcept;
  void value(std::string_view name, std::int64_t number) noexcept;
  void value(std::string_view name, double number) noexcept;
  template <class T>
  void setting(std::string_view name, T number) noexcept {
    if constexpr (std::is_same_v<T, bool>) {
      value(name, number);
    } else if constexpr (std::is_floating_point_v<T>) {
      value(name, static_cast<double>(number));
    } else {
      value(name, static_cast<std::int64_t>(number));
    }
  }
  [[nodiscard]] Result<List<char>> finish() noexcept;

 private:
  void put(std::string_view more) noexcept;
  void begin(std::string_view name) noexcept;
  List<char> text_;
  Status status_;
  bool first_ = true;
};

// One value of a JSON text.
struct Described {
  enum class Kind : std::uint8_t { null, flag, number, text, list, object };
  Kind kind = Kind::null;
  std::string_view key, text;         // views of the text
  double number = 0;                  // flag: 0 or 1
  std::uint32_t child = 0, next = 0;  // index of the first element, of the next one; 0: none
};
class Description {
 public:
  // Errors: corrupt (no JSON), unsupported (escapes in strings, beyond the bounds), out_of_memory. `text` outlives this.
  [[nodiscard]] static Result<Description> parse(std::string_view text) noexcept;
  [[nodiscard]] const Described& root() const noexcept { return values_[1]; }
  [[nodiscard]] const Described* find(const Described& object, std::string_view key) const noexcept;
  [[nodiscard]] const Described* first(const Described& list) const noexcept { return at(list.child); }
  [[nodiscard]] const Described* after(const Described& element) const noexcept { return at(element.next); }

 private:
  friend class DescriptionParser;
  [[nodiscard]] const Described* at(std::uint32_t i) const noexcept { return i ? &values_[i] : nullptr; }
  List<Described> values_;  // 0 is none
};

// Sets `value` if the object has it. Errors: corrupt (of another kind, no whole number, out of range).
[[nodiscard]] Status read_number(const Description& from, const Described& object, std::string_view name, double& value,
                                 double low, double high, bool whole) noexcept;
template <class T>
[[nodiscard]] Status read_setting(const Description& from, const Described& object, std::string_view name,
                                  T& value) noexcept {
  auto number = static_cast<double>(value);
  constexpr bool real = std::is_floating_point_v<T>, flag = std::is_same_v<T, bool>;
  constexpr double most = real ? 3e38 : flag ? 1 : std::is_enum_v<T> ? 255 : 1e15;
  if (auto ok = read_number(from, object, name, number, std::is_unsigned_v<T> || flag || std::is_enum_v<T> ? 0 : -most,
                            most, !real);
      !ok)
    return ok;
  value = static_cast<T>(number);
  return {};
}

template <class L>
concept Described_ = requires(L& layer) { L::settings(layer, [](std::string_view, auto&) {}); };

// The inside of a layer's object: settings, then the layers that are its fields. Containers write their own.
template <class L>
void describe_inside(const L& layer, Writer& out) noexcept;

// {"kind": …, settings…, parts…}
template <class L>
void describe(std::string_view name, const L& layer, Writer& out) noexcept {
  out.open(name, '{');
  describe_inside(layer, out);
  out.close('}');
}

template <class L>
void describe_inside(const L& layer, Writer& out) noexcept {
  if constexpr (requires { layer.describe(out); }) {
    layer.describe(out);
  } else {
    if constexpr (requires { L::k_name; }) {
      out.value("kind", L::k_name);
    } else {
      out.value("kind", std::string_view("layer"));
    }
    if constexpr (Described_<const L>)
      L::settings(layer, [&](std::string_view name, const auto& value) { out.setting(name, value); });
    if constexpr (requires { L::fields(); }) {
      const auto part = [&](const auto& field) {
        using Part = std::remove_cvref_t<decltype(layer.*field.member)>;
        if constexpr (!std::is_same_v<Part, Param>) nn::describe(field.name, layer.*field.member, out);
      };
      std::apply([&](const auto&... field) { (part(field), ...); }, L::fields());
    }
  }
}

// Settings and parts of a layer from its object.
template <class L>
[[nodiscard]] Status restore(L& layer, const Description& from, const Described& object) noexcept {
  Status status;
  if constexpr (Described_<L>) {
    L::settings(layer, [&](std::string_view name, auto& value) {
      if (status) status = read_setting(from, object, name, value);
    });
  }
  if constexpr (requires { L::fields(); }) {
    const auto part = [&](const auto& field) {
      using Part = std::remove_cvref_t<decltype(layer.*field.member)>;
      if constexpr (!std::is_same_v<Part, Param>) {
        const Described* inside = status ? from.find(object, field.name) : nullptr;
        if (inside) status = restore(layer.*field.member, from, *inside);
      }
    };
    std::apply([&](const auto&... field) { (part(field), ...); }, L::fields());
  }
  return status;
}

// The structure of any layer or model's layers. Errors: out_of_memory.
template <class L>
[[nodiscard]] Result<List<char>> to_json(const L& layer) noexcept {
  Writer out;
  if constexpr (requires {
                  layer.layers();
                  layer.input_shape();
                }) {
    describe({}, layer.layers(), out);
  } else {
    describe({}, layer, out);
  }
  return out.finish();
}

}  // namespace qorus::nn
