// Element types.
module;
#include <cstddef>
#include <cstdint>
#include <string_view>
export module qorus.tensor:dtype;

export namespace qorus {

enum class DType : std::uint8_t { f32, f16, bf16, i32, i8, u8 };

// Bytes of one element.
[[nodiscard]] constexpr std::size_t size_of(DType type) noexcept {
  switch (type) {
    case DType::f32:
    case DType::i32: return 4;
    case DType::f16:
    case DType::bf16: return 2;
    case DType::i8:
    case DType::u8: return 1;
  }
  return 1;
}

[[nodiscard]] constexpr std::string_view to_string(DType type) noexcept {
  constexpr std::string_view names[] = {"f32", "f16", "bf16", "i32", "i8", "u8"};
  return names[static_cast<int>(type)];
}

// The C++ type that a host program keeps such elements in. f16 and bf16 have none: cast them to f32.
template <class T>
inline constexpr bool k_is_element = false;
template <>
inline constexpr bool k_is_element<float> = true;
template <>
inline constexpr bool k_is_element<std::int32_t> = true;
template <>
inline constexpr bool k_is_element<std::int8_t> = true;
template <>
inline constexpr bool k_is_element<std::uint8_t> = true;

template <class T>
concept Element = k_is_element<T>;

template <Element T>
inline constexpr DType dtype_of = DType::f32;
template <>
inline constexpr DType dtype_of<std::int32_t> = DType::i32;
template <>
inline constexpr DType dtype_of<std::int8_t> = DType::i8;
template <>
inline constexpr DType dtype_of<std::uint8_t> = DType::u8;

}  // namespace qorus
