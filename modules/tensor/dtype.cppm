// Element types.
export module qorus.tensor:dtype;
import qorus.std;

export namespace qorus {

// Plain types first, then the block formats of GGUF files: so many elements in a row share scales and are stored as one block.
enum class DType : std::uint8_t {
  f32,
  f16,
  bf16,
  i32,
  i8,
  u8,  // one element is size_of bytes
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq4_nl,
  iq4_xs  // one block is block_bytes bytes
};
inline constexpr int k_dtype_count = 18;

[[nodiscard]] constexpr bool is_block(DType type) noexcept { return type >= DType::q4_0; }

// How many elements are stored together: 1, or a block's 32 or 256.
[[nodiscard]] constexpr std::size_t block_size(DType type) noexcept {
  constexpr std::uint16_t sizes[] = {1, 1, 1, 1, 1, 1, 32, 32, 32, 32, 32, 256, 256, 256, 256, 256, 32, 256};
  return sizes[static_cast<int>(type)];
}
// Bytes of those.
[[nodiscard]] constexpr std::size_t block_bytes(DType type) noexcept {
  constexpr std::uint8_t bytes[] = {4, 2, 2, 4, 1, 1, 18, 20, 22, 24, 34, 84, 110, 144, 176, 210, 18, 136};
  return bytes[static_cast<int>(type)];
}
// Bytes of n elements in a row: n a multiple of block_size(type).
[[nodiscard]] constexpr std::size_t row_bytes(DType type, std::size_t n) noexcept {
  return (is_block(type) ? n / block_size(type) : n) * block_bytes(type);
}
// Bytes of one element of a plain type; 0 for a block format, whose elements have no bytes of their own.
[[nodiscard]] constexpr std::size_t size_of(DType type) noexcept { return is_block(type) ? 0 : block_bytes(type); }

[[nodiscard]] constexpr std::string_view to_string(DType type) noexcept {
  constexpr std::string_view names[] = {"f32",  "f16",  "bf16", "i32",  "i8",   "u8",   "q4_0", "q4_1",   "q5_0",
                                        "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs"};
  return names[static_cast<int>(type)];
}

// The C++ type that a host program keeps such elements in. f16, bf16 and the block formats have none: cast them to f32.
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
