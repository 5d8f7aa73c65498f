// Sealed files: safetensors that carry a checksum of every tensor and of their texts, and end with a trailer. Other tools read them
// as the safetensors they are; we can tell a damaged one.
//
// The metadata has, for each tensor, "crc32.NAME": its CRC-32 (zlib's) in eight hexadecimal digits. The last tensor, "sealed.trailer", is
// U8 [16]: "QSEALED1", u32 CRC-32 of all metadata (each key, a zero, each value, a zero, keys in rising order), u32 number of tensors before
// it; little-endian. It is written last, so a file without it was not finished.
export module qorus.io:sealed;
import qorus.std;
import qorus.tensor;
import :safetensors;

export namespace qorus::io {

// CRC-32 as in zlib, gzip and PNG.
[[nodiscard]] std::uint32_t crc32(std::span<const std::byte> bytes) noexcept;

// write_safetensors with checksums and trailer. Errors: as there; invalid_argument (a name or key of this format's own).
[[nodiscard]] Status write_sealed(std::string_view path, std::span<const NamedTensor> tensors,
                                  std::span<const TextPair> metadata = {}) noexcept;

// read_safetensors, and every byte checked against its checksum. Errors: as there; corrupt (no trailer: not a sealed file, or not finished; a
// checksum that does not fit, with the tensor's name).
[[nodiscard]] Result<SafeTensors> read_sealed(std::string_view path) noexcept;

}  // namespace qorus::io
