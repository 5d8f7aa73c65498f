// Bodies of qorus.formats:safetensors_writer.
module qorus.formats;
import qorus.std;

namespace qorus::formats {
namespace {

constexpr const char* k_op = "write_safetensors";

}  // namespace

Result<SafetensorsWriter> SafetensorsWriter::create(std::string_view path) noexcept {
  auto file = AtomicFile::create(path);
  if (!file) return fail(file.error());
  return SafetensorsWriter(std::move(*file));
}

Status SafetensorsWriter::put(std::string_view key, std::string_view text) noexcept {
  if (begun_) return fail(Errc::invalid_argument, k_op, "a text after begin", key);
  io::JsonText into(texts_);
  (into << (texts_.empty() ? "" : ",")).quoted(key) << ":";
  return into.quoted(text).status();
}

Status SafetensorsWriter::declare(std::string_view name, DType dtype, const Shape& shape) noexcept {
  if (begun_ || name.empty() || name == "__metadata__")
    return fail(Errc::invalid_argument, k_op, "no name for a tensor, or too late", name);
  const std::string_view type = io::safetensors_type(dtype);
  if (type.empty()) return fail(Errc::invalid_dtype, k_op, "the format has no such element type", name);
  const Checked end = Checked(end_) + Checked(shape.numel()) * size_of(dtype);
  if (!shape.valid() || !end.ok()) return fail(Errc::overflow, k_op, "the sum of all sizes does not fit 64 bits", name);
  io::JsonText into(table_);
  (into << (table_.empty() ? "" : ",")).quoted(name) << R"(:{"dtype":")" << type << R"(","shape":[)";
  for (int d = 0; d < shape.rank(); ++d) into << (d ? "," : "") << static_cast<std::uint64_t>(shape[d]);
  into << R"(],"data_offsets":[)" << end_ << "," << end.value_or(0) << "]}";
  end_ = end.value_or(0);
  return into.status();
}

Status SafetensorsWriter::begin() noexcept {
  if (begun_) return fail(Errc::invalid_argument, k_op, "begun before");
  begun_ = true;
  List<char> header;
  io::JsonText into(header);
  into << "{";
  if (!texts_.empty())
    into << R"("__metadata__":{)" << std::string_view(texts_.data(), texts_.size()) << (table_.empty() ? "}" : "},");
  into << std::string_view(table_.data(), table_.size()) << "}";
  while (into.status() && (sizeof(std::uint64_t) + header.size()) % k_alignment != 0) into << " ";
  if (!into.status()) return into.status();
  const std::uint64_t length = header.size();
  if (auto done = file_.write(std::as_bytes(std::span(&length, 1))); !done) return done;
  return file_.write(std::string_view(header.data(), header.size()));
}

Status SafetensorsWriter::write(std::span<const std::byte> bytes) noexcept {
  if (!begun_ || bytes.size() > end_ - done_)
    return fail(Errc::invalid_argument, k_op, "more bytes than were declared");
  done_ += bytes.size();
  return file_.write(bytes);
}

Status SafetensorsWriter::commit() noexcept {
  if (!begun_ || done_ != end_) return fail(Errc::invalid_argument, k_op, "not complete");
  return file_.commit();
}

}  // namespace qorus::formats
