// How a tensor reads when printed: nested rows, the middle of a long axis left out.
module;
#include <cmath>
module qorus.tensor;
import qorus.std;

namespace qorus {
namespace {

constexpr std::int64_t k_shown = 8;  // of an axis that is longer: half from each end

// Appends while there is room, and counts regardless.
struct Writer {
  std::span<char> out;
  std::size_t length = 0;

  void put(std::string_view text) noexcept {
    for (const char c : text) {
      if (length + 1 < out.size()) out[length] = c;
      ++length;
    }
  }
};

float from_half(std::uint16_t bits) noexcept {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float sign = bits >> 15 ? -1.0f : 1.0f;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  return sign * (exponent ? std::ldexp(1.0f + static_cast<float>(fraction) / 1024, exponent - 15)
                          : std::ldexp(static_cast<float>(fraction) / 1024, -14));
}

void put_element(Writer& writer, const std::byte* place, DType dtype) noexcept {
  char digits[32];  // to_chars, unlike printf, writes the same in every locale
  char* end = digits;
  const auto real = [&](float value) {
    end = std::to_chars(digits, std::end(digits), value, std::chars_format::general, 5).ptr;
  };
  const auto integer = [&](int value) { end = std::to_chars(digits, std::end(digits), value).ptr; };
  switch (dtype) {
    case DType::f32: {
      float value;
      std::memcpy(&value, place, 4);
      real(value);
      break;
    }
    case DType::i32: {
      std::int32_t value;
      std::memcpy(&value, place, 4);
      integer(value);
      break;
    }
    case DType::f16:
    case DType::bf16: {
      std::uint16_t bits;
      std::memcpy(&bits, place, 2);
      const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
      float value;
      std::memcpy(&value, &wide, 4);
      real(dtype == DType::f16 ? from_half(bits) : value);
      break;
    }
    case DType::i8: integer(static_cast<std::int8_t>(*place)); break;
    case DType::u8: integer(static_cast<int>(*place)); break;
    default: break;  // block formats are not put element by element
  }
  writer.put({digits, static_cast<std::size_t>(end - digits)});
}

void put_axis(Writer& writer, const Tensor& tensor, int axis, const std::byte* place) noexcept {
  if (axis == tensor.rank()) return put_element(writer, place, tensor.dtype());
  const std::int64_t extent = tensor.dim(axis);
  const auto step = tensor.stride(axis) * static_cast<std::int64_t>(size_of(tensor.dtype()));
  const bool innermost = axis + 1 == tensor.rank();
  writer.put("[");
  for (std::int64_t i = 0; i < extent; ++i) {
    if (i > 0) {
      writer.put(innermost ? ", " : ",\n");
      for (int d = 0; !innermost && d <= axis; ++d) writer.put(" ");
    }
    if (extent > k_shown && i == k_shown / 2) {
      writer.put("...");
      i = extent - k_shown / 2 - 1;
      continue;
    }
    put_axis(writer, tensor, axis + 1, place + i * step);
  }
  writer.put("]");
}

}  // namespace

std::size_t format(const Tensor& tensor, std::span<char> out) noexcept {
  Writer writer{out};
  if (auto ok = tensor.check("format"); !ok) {
    writer.put(ok.error().message().view());
  } else {
    const bool planned = tensor.context() && tensor.context()->planning;
    if (tensor.data() && !planned && !is_block(tensor.dtype())) put_axis(writer, tensor, 0, tensor.data());
    writer.put(" ");
    writer.put(to_string(tensor.dtype()));
    writer.put(" [");
    char digits[24];
    for (int d = 0; d < tensor.rank(); ++d) {
      if (d > 0) writer.put(",");
      writer.put(
          {digits, static_cast<std::size_t>(std::to_chars(digits, std::end(digits), tensor.dim(d)).ptr - digits)});
    }
    writer.put("]");
  }
  if (!out.empty()) out[std::min(writer.length, out.size() - 1)] = 0;
  return writer.length;
}

}  // namespace qorus
