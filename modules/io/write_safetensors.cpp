// Writing of qorus.io:safetensors.
module qorus.io;
import qorus.std;
import :json;

namespace qorus::io {
namespace {

constexpr const char* k_op = "write_safetensors";

Status check(std::span<const NamedTensor> tensors) noexcept {
  List<std::string_view> names;
  for (const NamedTensor& named : tensors) {
    if (auto ok = named.tensor.check(k_op); !ok) return fail(ok.error().about(named.name));
    if (is_block(named.tensor.dtype()))
      return fail(Errc::invalid_dtype, k_op, "the format has no such element type", named.name);
    if (named.name == "__metadata__")
      return fail(Errc::invalid_argument, k_op, "this name is the format's own", named.name);
    if (auto ok = names.push(named.name); !ok) return ok;
  }
  std::sort(names.begin(), names.end());
  const auto* twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) return fail(Errc::invalid_argument, k_op, "two tensors have this name", *twice);
  return {};
}

// Wide elements first, each group as given.
Result<List<std::uint32_t>> order_of(std::span<const NamedTensor> tensors) noexcept {
  List<std::uint32_t> order;
  for (const std::size_t width : {4u, 2u, 1u}) {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (size_of(tensors[i].tensor.dtype()) != width) continue;
      if (auto ok = order.push(static_cast<std::uint32_t>(i)); !ok) return fail(ok.error());
    }
  }
  return order;
}

Status write_header(List<char>& bytes, std::span<const NamedTensor> tensors, std::span<const std::uint32_t> order,
                    std::span<const TextPair> metadata) noexcept {
  JsonText header(bytes);
  std::string_view separator = "{";
  if (!metadata.empty()) {
    header << "{\"__metadata__\":";
    for (const TextPair& pair : metadata) {
      (header << separator).quoted(pair.key) << ":";
      header.quoted(pair.value);
      separator = ",";
    }
    header << "}";
    separator = ",";
  }
  Checked offset = 0;
  for (const std::uint32_t i : order) {
    const Tensor& tensor = tensors[i].tensor;
    (header << separator).quoted(tensors[i].name)
        << ":{\"dtype\":\"" << safetensors_type(tensor.dtype()) << "\",\"shape\":[";
    for (int d = 0; d < tensor.rank(); ++d) header << (d ? "," : "") << static_cast<std::uint64_t>(tensor.dim(d));
    const Checked end = offset + Checked(tensor.numel()) * size_of(tensor.dtype());
    if (!end.ok()) return fail(Errc::overflow, k_op, "the sum of all sizes does not fit 64 bits");
    header << "],\"data_offsets\":[" << offset.value_or(0) << "," << end.value_or(0) << "]}";
    offset = end;
    separator = ",";
  }
  header << (separator == "{" ? "{}" : "}");
  while (header.status() && (bytes.size() + sizeof(std::uint64_t)) % k_alignment != 0) header << " ";
  return header.status();
}

Status write_tensor(AtomicFile& file, const Tensor& tensor) noexcept {
  const std::size_t bytes = tensor.numel() * size_of(tensor.dtype());
  if (tensor.contiguous()) return file.write(std::span(tensor.data(), bytes));
  const auto dense = keep(tensor);
  if (!dense) return fail(dense.error());
  return file.write(std::span(dense->tensor().data(), bytes));
}

}  // namespace

std::string_view safetensors_type(DType dtype) noexcept {
  switch (dtype) {
    case DType::f32: return "F32";
    case DType::f16: return "F16";
    case DType::bf16: return "BF16";
    case DType::i32: return "I32";
    case DType::i8: return "I8";
    case DType::u8: return "U8";
    default: return {};  // a block format
  }
}

Status write_safetensors(std::string_view path, std::span<const NamedTensor> tensors,
                         std::span<const TextPair> metadata) noexcept {
  if (auto ok = check(tensors); !ok) return ok;
  const auto order = order_of(tensors);
  if (!order) return fail(order.error());
  List<char> header;
  if (auto ok = write_header(header, tensors, order->span(), metadata); !ok) return ok;
  auto file = AtomicFile::create(path);
  if (!file) return fail(file.error());
  const std::uint64_t length = header.size();
  if (auto ok = file->write(std::as_bytes(std::span(&length, 1))); !ok) return ok;
  if (auto ok = file->write(std::string_view(header.data(), header.size())); !ok) return ok;
  for (const std::uint32_t i : *order) {
    if (auto ok = write_tensor(*file, tensors[i].tensor); !ok) return ok;
  }
  return file->commit();
}

}  // namespace qorus::io
