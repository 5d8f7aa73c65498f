// Bodies of qorus.formats:quantize.
module qorus.formats;
import qorus.std;

namespace qorus::formats {
namespace {

constexpr const char* k_op = "quantize";
constexpr std::string_view k_file_type = "general.file_type", k_version = "general.quantization_version";

bool is_whole_number(DType dtype) noexcept { return dtype == DType::i32 || dtype == DType::i8 || dtype == DType::u8; }

class Quantizer {
 public:
  Quantizer(const QuantizeOptions& options, io::Gguf file, io::GgufWriter writer) noexcept
      : options_(options), file_(std::move(file)), writer_(std::move(writer)), facts_(ModelFacts::of(file_)) {}

  [[nodiscard]] Result<Quantized> run(std::string_view to) noexcept {
    if (auto ready = workspace_.status(); !ready) return fail(ready.error());
    if (auto done = put_metadata(); !done) return fail(done.error());
    if (auto done = declare(); !done) return fail(done.error());
    if (auto done = writer_.begin(); !done) return fail(done.error());
    for (std::size_t i = 0; i < types_.size(); ++i) {
      const std::string_view name = file_.entries()[i].name;
      if (auto done = write_tensor(name, types_[i]); !done) return fail(done.error().about(name));
      if (options_.progress && !options_.progress(options_.user, name, i + 1, types_.size()))
        return fail(Errc::invalid_argument, k_op, "stopped on the way", to);
    }
    if (auto there = file_.whole(); !there) return fail(there.error().about(to));
    if (auto done = writer_.commit(); !done) return fail(done.error());
    return result_;
  }

 private:
  [[nodiscard]] Status put_metadata() noexcept {
    for (const io::GgufEntry& entry : file_.metadata()) {
      if (entry.key == k_file_type || entry.key == k_version) continue;
      if (auto done = writer_.put(entry); !done) return done;
    }
    const DType dtype = options_.scheme ? options_.scheme->dtype : options_.dtype;
    const std::uint32_t type = options_.scheme ? options_.scheme->file_type : file_type_of(dtype);
    if (auto done = writer_.put(k_file_type, type); !done) return done;
    return is_block(dtype) ? writer_.put(k_version, std::uint32_t{2}) : Status{};
  }

  // What a tensor becomes.
  [[nodiscard]] DType target_of(std::string_view name, const Tensor& tensor) const noexcept {
    if (is_whole_number(tensor.dtype())) return tensor.dtype();
    DType wanted = options_.dtype;
    if (options_.scheme) {
      wanted = options_.scheme->choose(facts_, name, tensor.shape(), tensor.dtype(), options_.importance != nullptr);
    }
    if (options_.choose) wanted = options_.choose(options_.user, name, tensor.shape(), wanted);
    const bool fits = tensor.rank() >= 2 && static_cast<std::size_t>(tensor.dim(-1)) % block_size(wanted) == 0;
    if (fits) return wanted;
    return is_block(tensor.dtype()) ? DType::f32 : tensor.dtype();
  }

  [[nodiscard]] Status declare() noexcept {
    for (const io::TensorEntry& entry : file_.entries()) {
      auto tensor = file_.tensor(entry.name);
      if (!tensor) return fail(tensor.error());
      const DType dtype = target_of(entry.name, *tensor);
      if (dtype != tensor->dtype() && !can_encode(dtype))
        return fail(Errc::unsupported, k_op, "a type that cannot be made", entry.name);
      if (auto pushed = types_.push(dtype); !pushed) return pushed;
      if (auto done = writer_.declare(entry.name, dtype, tensor->shape()); !done) return done;
      ++result_.tensors;
      result_.converted += dtype != tensor->dtype();
      result_.bytes_before += entry.bytes;
      result_.bytes_after += row_bytes(dtype, tensor->numel());
    }
    return {};
  }

  [[nodiscard]] Status write_tensor(std::string_view name, DType dtype) noexcept {
    auto tensor = file_.tensor(name);
    if (!tensor) return fail(tensor.error());
    std::span<const float> importance;
    if (options_.importance) importance = options_.importance->find(name);
    if (options_.least_error && importance.empty() && tensor->rank() > 0 && is_block(dtype)) {
      const auto columns = static_cast<std::size_t>(tensor->dim(-1));
      const std::size_t count = tensor->rank() == 3 ? columns * static_cast<std::size_t>(tensor->dim(0)) : columns;
      if (auto room = ones_.resize(count); !room) return room;
      std::fill(ones_.begin(), ones_.end(), 1.0f);
      importance = ones_.span();
    }
    const Sink sink{&writer_, [](void* self, std::span<const std::byte> bytes) {
                      return static_cast<io::GgufWriter*>(self)->write(bytes);
                    }};
    auto done = recode(workspace_, *tensor, dtype, importance, sink);
    MappedFile::let_go({tensor->data(), row_bytes(tensor->dtype(), tensor->numel())});
    return done;
  }

  const QuantizeOptions& options_;
  io::Gguf file_;
  io::GgufWriter writer_;
  ModelFacts facts_;
  Workspace workspace_{{.scratch = 32_MiB, .threads = options_.threads}};
  List<DType> types_;
  List<float> ones_;
  Quantized result_;
};

}  // namespace

Result<Quantized> quantize(std::string_view from, std::string_view to, const QuantizeOptions& options) noexcept {
  auto file = io::read_gguf(from);
  if (!file) return fail(file.error());
  auto writer = io::GgufWriter::create(to);
  if (!writer) return fail(writer.error());
  return Quantizer(options, std::move(*file), std::move(*writer)).run(to);
}

}  // namespace qorus::formats
