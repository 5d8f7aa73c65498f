// Bodies of qorus.data:characters.
module qorus.data;
import qorus.std;
import qorus.trust;

namespace qorus::data {
namespace {

constexpr const char* k_unknown = "a character that the alphabet lacks";

// f(line) for each line of a text that is not empty.
template <class F>
void each_line(std::string_view text, const F& f) noexcept {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line(text.data(), end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) f(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

struct Pair {
  Owned inputs, targets;
};
Result<Pair> pair_of(const Shape& inputs, DType in, const Shape& targets, DType out) noexcept {
  auto x = Owned::zeros(inputs, in);
  if (!x) return fail(x.error());
  auto y = Owned::zeros(targets, out);
  if (!y) return fail(y.error());
  return Pair{std::move(*x), std::move(*y)};
}

}  // namespace

Alphabet::Alphabet(std::string_view text, int first) noexcept : count_(std::clamp(first, 0, 256)) {
  ids_.fill(0);
  for (const char c : text) ids_[static_cast<unsigned char>(c)] = 1;
  for (std::size_t c = 0; c < ids_.size(); ++c) {
    if (ids_[c]) {
      characters_[static_cast<std::size_t>(count_)] = static_cast<char>(c);
      ids_[c] = static_cast<std::int16_t>(count_++);
    } else {
      ids_[c] = -1;
    }
  }
}

Result<List<char>> read_text(std::string_view path) noexcept {
  auto file = MappedFile::open(path);
  if (!file) return fail(file.error());
  const auto bytes = file->bytes();
  if (bytes.size() > limits::text_bytes) return fail(Errc::unsupported, "read_text", "longer than 1 GiB", path);
  List<char> text;
  if (auto copied = text.append({reinterpret_cast<const char*>(bytes.data()), bytes.size()}); !copied)
    return fail(copied.error());
  if (auto there = file->whole("read_text", path); !there) return fail(there.error());
  return text;
}

Result<Dataset> windows(std::string_view text, const Alphabet& alphabet, std::int64_t context,
                        std::int64_t step) noexcept {
  const auto length = static_cast<std::int64_t>(text.size());
  if (context < 1 || step < 1 || length < context + 1)
    return fail(Errc::invalid_size, "windows", "the text must be longer than one window", Dims{{context, length}, 2});
  const std::int64_t count = (length - context - 1) / step + 1;
  auto made = pair_of({count, context}, DType::i32, {count, context}, DType::i32);
  if (!made) return fail(made.error());
  std::int32_t *x = made->inputs.fill<std::int32_t>().data(), *y = made->targets.fill<std::int32_t>().data();
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t t = 0; t < context; ++t) {
      const int id = alphabet.id(text[static_cast<std::size_t>(i * step + t)]),
                next = alphabet.id(text[static_cast<std::size_t>(i * step + t + 1)]);
      if (id < 0 || next < 0) return fail(Errc::invalid_argument, "windows", k_unknown);
      *x++ = id;
      *y++ = next;
    }
  }
  return Dataset::create(std::move(made->inputs), std::move(made->targets), {.classes = alphabet.size()});
}

Result<Dataset> lines(std::string_view text, const Alphabet& alphabet, std::int32_t ignore) noexcept {
  std::int64_t count = 0, longest = 0;
  bool known = true;
  each_line(text, [&](std::string_view line) {
    ++count;
    longest = std::max(longest, static_cast<std::int64_t>(line.size()));
    for (const char c : line) known = known && alphabet.id(c) >= 0;
  });
  if (count == 0) return fail(Errc::invalid_size, "lines", "the text has no lines");
  if (!known) return fail(Errc::invalid_argument, "lines", k_unknown);
  const std::int64_t width = longest + 1;
  auto cells = (Checked(static_cast<std::uint64_t>(count)) * static_cast<std::uint64_t>(width)).get("lines");
  if (!cells) return fail(cells.error());
  auto made = pair_of({count, width}, DType::i32, {count, width}, DType::i32);
  if (!made) return fail(made.error());
  std::int32_t *x = made->inputs.fill<std::int32_t>().data(), *y = made->targets.fill<std::int32_t>().data();
  std::fill_n(y, *cells, ignore);
  each_line(text, [&](std::string_view line) {
    for (std::size_t t = 0; t < line.size(); ++t) {
      x[t + 1] = alphabet.id(line[t]);
      y[t] = x[t + 1];
    }
    y[line.size()] = 0;
    x += width;
    y += width;
  });
  return Dataset::create(std::move(made->inputs), std::move(made->targets));  // no classes: `ignore` is none
}

Result<Dataset> series(std::span<const float> values, std::int64_t context) noexcept {
  const auto length = static_cast<std::int64_t>(values.size());
  if (context < 1 || length < context + 1)
    return fail(Errc::invalid_size, "series", "must be longer than one window", Dims{{context, length}, 2});
  const std::int64_t count = length - context;
  auto made = pair_of({count, context, 1}, DType::f32, {count, 1}, DType::f32);
  if (!made) return fail(made.error());
  float *x = made->inputs.fill<float>().data(), *y = made->targets.fill<float>().data();
  for (std::int64_t i = 0; i < count; ++i) {
    std::copy_n(values.data() + i, context, x + i * context);
    y[i] = values[static_cast<std::size_t>(i + context)];
  }
  return Dataset::create(std::move(made->inputs), std::move(made->targets));
}

}  // namespace qorus::data
