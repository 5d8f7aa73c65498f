// Bodies of qorus.data:idx.
module qorus.data;
import qorus.std;
import :source;

namespace qorus::data {
namespace {

// The element types of the format, by their number in the third byte.
struct Element {
  std::uint8_t code;
  std::uint8_t width;  // bytes in the file
  DType dtype;         // in memory
};
constexpr Element k_elements[] = {{0x08, 1, DType::u8},  {0x09, 1, DType::i32}, {0x0b, 2, DType::i32},
                                  {0x0c, 4, DType::i32}, {0x0d, 4, DType::f32}, {0x0e, 8, DType::f32}};

template <class U>
U big_endian(const std::byte* bytes) noexcept {
  U value = 0;
  for (std::size_t i = 0; i < sizeof(U); ++i) value = static_cast<U>(value << 8 | static_cast<std::uint8_t>(bytes[i]));
  return value;
}

struct Header {
  Element element{};
  Shape shape;
};

Result<Header> read_header(Source& source) noexcept {
  std::array<std::byte, 4> magic{};
  if (auto ok = source.read(magic); !ok) return fail(ok.error());
  if (magic[0] != std::byte{0} || magic[1] != std::byte{0})
    return source.corrupt("not an IDX file: it begins with 0 0");
  const auto code = static_cast<std::uint8_t>(magic[2]);
  const auto* element =
      std::find_if(std::begin(k_elements), std::end(k_elements), [&](const Element& e) { return e.code == code; });
  if (element == std::end(k_elements)) return source.corrupt("an element type that IDX does not have");
  const auto rank = static_cast<std::size_t>(magic[3]);
  if (rank < 1 || rank > k_max_rank) return fail(Errc::unsupported, "idx", "1 to 6 dimensions", source.path());
  std::array<std::int64_t, k_max_rank> extents{};
  for (std::size_t i = 0; i < rank; ++i) {
    std::array<std::byte, 4> extent{};
    if (auto ok = source.read(extent); !ok) return fail(ok.error());
    extents[i] = big_endian<std::uint32_t>(extent.data());
  }
  const Header header{*element, Shape(std::span(extents.data(), rank))};
  if (!header.shape.valid()) return fail(Errc::overflow, "idx", "more elements than can be addressed", source.path());
  return header;
}

// `count` elements from the file's form into i32 or f32.
void decode(const Element& element, const std::byte* from, std::size_t count, std::byte* to) noexcept {
  for (std::size_t i = 0; i < count; ++i, from += element.width, to += 4) {
    std::int32_t integer = 0;
    float real = 0;
    switch (element.code) {
      case 0x09: integer = std::to_integer<std::int32_t>(*from) - (*from > std::byte{127} ? 256 : 0); break;
      case 0x0b: integer = static_cast<std::int16_t>(big_endian<std::uint16_t>(from)); break;
      case 0x0c: integer = static_cast<std::int32_t>(big_endian<std::uint32_t>(from)); break;
      case 0x0d: real = std::bit_cast<float>(big_endian<std::uint32_t>(from)); break;
      default: real = static_cast<float>(std::bit_cast<double>(big_endian<std::uint64_t>(from))); break;
    }
    std::memcpy(to, element.dtype == DType::i32 ? static_cast<const void*>(&integer) : &real, 4);
  }
}

// The elements after the header, straight into a new tensor.
Result<Owned> read_elements(Source& source, const Header& header) noexcept {
  const std::size_t count = header.shape.numel();
  if (auto ok = source.expect(std::uint64_t{count} * header.element.width); !ok) return fail(ok.error());
  auto made = Owned::zeros(header.shape, header.element.dtype);
  if (!made) return fail(made.error().about(source.path()));
  if (header.element.dtype == DType::u8) {
    if (auto ok = source.read(std::as_writable_bytes(made->fill<std::uint8_t>())); !ok) return fail(ok.error());
  } else {
    std::byte* to = header.element.dtype == DType::i32 ? std::as_writable_bytes(made->fill<std::int32_t>()).data()
                                                       : std::as_writable_bytes(made->fill<float>()).data();
    std::byte chunk[8192];
    const std::size_t step = sizeof chunk / header.element.width;
    for (std::size_t i = 0; i < count; i += step) {
      const std::size_t some = std::min(step, count - i);
      if (auto ok = source.read({chunk, some * header.element.width}); !ok) return fail(ok.error());
      decode(header.element, chunk, some, to + i * 4);
    }
  }
  if (auto ok = source.finish(); !ok) return fail(ok.error());
  return made;
}

// The same numbers as another type.
template <class From, class To>
Result<Owned> converted(Owned from) noexcept {
  auto made = Owned::zeros(from.tensor().shape(), dtype_of<To>);
  if (made)
    std::transform(from.fill<From>().begin(), from.fill<From>().end(), made->template fill<To>().begin(),
                   [](From x) { return static_cast<To>(x); });
  return made;
}

Result<Dataset> pair_up(Owned images, Owned labels, std::string_view images_path, std::string_view labels_path,
                        int classes) noexcept {
  const Tensor x = images.tensor(), y = labels.tensor();
  if (x.dim(0) != y.dim(0)) {
    return tl::unexpected<Error>(Error{.code = Errc::invalid_size,
                                       .op = "idx",
                                       .text = "as many labels as images",
                                       .first = x.shape().dims(),
                                       .second = y.shape().dims()}
                                     .about(labels_path));
  }
  if (x.dim(0) == 0) return fail(Errc::invalid_size, "idx", "holds no examples", images_path);
  if (y.dtype() != DType::f32 && y.rank() != 1)
    return fail(Errc::invalid_argument, "idx", "labels are a list [n]", labels_path);
  const Encoding encoding{.scale = x.dtype() == DType::u8 ? 1.0f / 255.0f : 1.0f, .classes = classes};
  Result<Owned> inputs =
      x.dtype() == DType::i32 ? converted<std::int32_t, float>(std::move(images)) : Result<Owned>(std::move(images));
  if (!inputs) return fail(inputs.error());
  Result<Owned> targets = y.dtype() == DType::u8 ? converted<std::uint8_t, std::int32_t>(std::move(labels))
                                                 : Result<Owned>(std::move(labels));
  if (!targets) return fail(targets.error());
  auto made = Dataset::create(std::move(*inputs), std::move(*targets), encoding);
  if (!made) return fail(made.error().about(labels_path));
  return made;
}

using Path = std::array<char, k_max_path + 1>;

// folder/name, with .gz if only that is there. Errors: invalid_argument (too long), not_found.
Result<Source> open_in(std::string_view folder, std::string_view name, Text& shown) noexcept {
  Path path{};
  std::size_t size = 0;
  for (const std::string_view part : {folder, std::string_view("/"), name, std::string_view(".gz")}) {
    if (part.size() > k_max_path - size) return fail(Errc::invalid_argument, "mnist", "the path is too long", folder);
    size += part.copy(path.data() + size, part.size());
  }
  shown = {};
  const std::string_view raw(path.data(), size - 3);
  auto source = Source::open(raw);
  if (source || source.error().code != Errc::not_found) {
    shown += raw;
    return source;
  }
  auto packed = Source::open({path.data(), size});
  if (packed || packed.error().code != Errc::not_found) {
    shown += std::string_view(path.data(), size);
    return packed;
  }
  return source;
}

Result<Dataset> mnist_part(std::string_view folder, std::string_view images_name,
                           std::string_view labels_name) noexcept {
  Text images_path, labels_path;
  auto images_file = open_in(folder, images_name, images_path);
  if (!images_file) return fail(images_file.error());
  auto labels_file = open_in(folder, labels_name, labels_path);
  if (!labels_file) return fail(labels_file.error());
  const auto images_header = read_header(*images_file);
  if (!images_header) return fail(images_header.error());
  const auto labels_header = read_header(*labels_file);
  if (!labels_header) return fail(labels_header.error());
  if (images_header->element.dtype != DType::u8 || images_header->shape.rank() != 3) {
    return images_file->corrupt("images are bytes [n, height, width]");
  }
  if (labels_header->element.dtype != DType::u8 || labels_header->shape.rank() != 1)
    return labels_file->corrupt("labels are bytes [n]");
  auto images = read_elements(*images_file, *images_header);
  if (!images) return fail(images.error());
  auto labels = read_elements(*labels_file, *labels_header);
  if (!labels) return fail(labels.error());
  const auto values = labels->fill<std::uint8_t>();
  if (std::any_of(values.begin(), values.end(), [](std::uint8_t label) { return label > 9; })) {
    return labels_file->corrupt("a label is not below 10");
  }
  return pair_up(std::move(*images), std::move(*labels), images_path.view(), labels_path.view(), 10);
}

}  // namespace

Result<Owned> read_idx(std::string_view path) noexcept {
  auto source = Source::open(path);
  if (!source) return fail(source.error());
  const auto header = read_header(*source);
  if (!header) return fail(header.error());
  return read_elements(*source, *header);
}

Result<Dataset> idx(std::string_view images_path, std::string_view labels_path) noexcept {
  auto images = read_idx(images_path);
  if (!images) return fail(images.error());
  auto labels = read_idx(labels_path);
  if (!labels) return fail(labels.error());
  return pair_up(std::move(*images), std::move(*labels), images_path, labels_path, 0);
}

Result<Split> mnist(std::string_view folder) noexcept {
  auto train = mnist_part(folder, "train-images-idx3-ubyte", "train-labels-idx1-ubyte");
  if (!train) return fail(train.error());
  auto test = mnist_part(folder, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte");
  if (!test) return fail(test.error());
  return Split{std::move(*train), std::move(*test)};
}

}  // namespace qorus::data
