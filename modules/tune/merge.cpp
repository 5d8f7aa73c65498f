// Bodies of qorus.tune:merge.
module qorus.tune;
import qorus.std;
import :merge;

namespace qorus::tune {
namespace {

constexpr const char* k_op = "merge";
constexpr std::size_t k_piece = 1 << 20;  // elements at a time, about

// Writes the tensors of a GGUF file under its metadata, some of them changed.
class Rewriter {
 public:
  Rewriter(const io::Gguf& file, const MergeOptions& options) noexcept
      : file_(file), options_(options), workspace_({.scratch = 96_MiB, .threads = options.threads}) {}

  // The type in which a changed tensor is written. Errors: unsupported.
  [[nodiscard]] Result<DType> type_of(const Tensor& stored) noexcept {
    const DType own = stored.dtype();
    if (stored.rank() < 2) return own;
    const DType wanted = options_.given ? options_.dtype : own;
    const bool whole = static_cast<std::size_t>(stored.dim(-1)) % block_size(wanted) == 0;
    if (options_.given && !formats::can_encode(wanted))
      return fail(Errc::unsupported, k_op, "a type that is not made", to_string(wanted));
    if (whole && (own == DType::f32 || wanted != own || formats::can_encode(own))) return wanted;
    if (options_.given) return DType::f32;
    return static_cast<std::size_t>(stored.dim(-1)) % block_size(DType::q8_0) == 0 ? DType::q8_0 : DType::f32;
  }

  // changes(name) tells whether a tensor does; make(name, stored, first, count, frame) gives its rows [first, first + count) in f32 then.
  template <class Changes, class Make>
  [[nodiscard]] Result<Merged> run(std::string_view out, const Changes& changes, const Make& make) noexcept {
    if (auto ready = workspace_.status(); !ready) return fail(ready.error());
    auto writer = io::GgufWriter::create(out);
    if (!writer) return fail(writer.error());
    for (const io::GgufEntry& entry : file_.metadata()) {
      if (auto done = writer->put(entry); !done) return fail(done.error());
    }
    Merged merged;
    List<DType> types;
    for (const io::TensorEntry& entry : file_.entries()) {
      auto stored = file_.tensor(entry.name);
      if (!stored) return fail(stored.error());
      const bool changed = changes(entry.name);
      auto type = changed ? type_of(*stored) : Result<DType>(stored->dtype());
      if (!type) return fail(type.error().about(entry.name));
      if (auto kept = types.push(*type); !kept) return fail(kept.error());
      if (auto done = writer->declare(entry.name, *type, stored->shape()); !done) return fail(done.error());
      ++merged.tensors;
      merged.changed += changed;
      merged.others += changed && *type != stored->dtype();
    }
    if (auto done = writer->begin(); !done) return fail(done.error());
    for (std::size_t i = 0; i < types.size(); ++i) {
      const std::string_view name = file_.entries()[i].name;
      auto stored = file_.tensor(name);
      if (!stored) return fail(stored.error());
      auto done = changes(name) ? write_changed(*writer, name, *stored, types[i], make)
                                : writer->write({stored->data(), row_bytes(stored->dtype(), stored->numel())});
      if (!done) return fail(done.error().about(name));
    }
    if (auto done = writer->commit(); !done) return fail(done.error());
    return merged;
  }

 private:
  template <class Make>
  [[nodiscard]] Status write_changed(io::GgufWriter& writer, std::string_view name, const Tensor& stored, DType dtype,
                                     const Make& make) noexcept {
    const auto columns = static_cast<std::size_t>(std::max<std::int64_t>(stored.dim(-1), 1));
    const std::size_t rows = stored.numel() / columns, step = std::max<std::size_t>(k_piece / columns, 1);
    for (std::size_t first = 0; first < rows; first += step) {
      const std::size_t count = std::min(step, rows - first);
      auto frame = workspace_.frame();
      auto floats = make(name, stored, static_cast<std::int64_t>(first), static_cast<std::int64_t>(count), frame);
      if (!floats) return fail(floats.error());
      const formats::Sink sink{&writer, [](void* self, std::span<const std::byte> bytes) {
                                 return static_cast<io::GgufWriter*>(self)->write(bytes);
                               }};
      if (auto done = formats::recode(workspace_, *floats, dtype, {}, sink); !done) return done;
    }
    return {};
  }

  const io::Gguf& file_;
  const MergeOptions& options_;
  Workspace workspace_;
};

// Rows of a matrix.
Tensor rows_of(const Tensor& matrix, std::int64_t first, std::int64_t count) noexcept {
  Layout layout = matrix.layout();
  layout.offset = first * layout.stride[0];
  layout.shape = matrix.shape().with(0, count);
  return matrix.seen_as(layout);
}

// Parameters whose rows, one after the other, are a tensor of the file.
struct Sources {
  Tensor parts[3];
  std::size_t count = 0;
};

// Those of a tensor by its name: its own, or those of the matrices that it holds together.
Sources sources_of(const nn::Parameters& trained, std::string_view name, std::int64_t rows) noexcept {
  Sources sources;
  std::int64_t found = 0;
  const auto take = [&](std::string_view wanted) {
    auto parameter = trained.parameter(wanted);
    if (!parameter || sources.count == 3) return;
    sources.parts[sources.count++] = *parameter;
    found += parameter->dim(0);
  };
  constexpr struct {
    std::string_view whole, parts[3];
  } k_joints[] = {{".attn_qkv.", {".attn_q.", ".attn_k.", ".attn_v."}}, {".ffn_up.", {".ffn_gate.", ".ffn_up."}}};
  take(name);
  if (sources.count && found == rows) return sources;
  for (const auto& joint : k_joints) {
    const std::size_t at = name.find(joint.whole);
    if (at == name.npos) continue;
    sources = {};
    found = 0;
    for (const std::string_view part : joint.parts) {
      if (part.empty()) continue;
      Text own;
      own += std::string_view(name.data(), at);
      own += part;
      own += std::string_view(name.data() + at + joint.whole.size(), name.size() - at - joint.whole.size());
      take(own.view());
    }
  }
  if (found != rows) sources.count = 0;
  return sources;
}

}  // namespace

Result<Merged> merge(std::string_view base, std::string_view path, std::string_view out,
                     const MergeOptions& options) noexcept {
  auto file = io::read_gguf(base);
  if (!file) return fail(file.error());
  auto config = llm::read_config(*file);
  if (!config) return fail(config.error());
  auto adapter = llm::read_adapter(path, *config);
  if (!adapter) return fail(adapter.error());
  const auto find = [&](std::string_view name) -> const llm::AdapterPart* {
    for (const llm::AdapterPart& part : std::as_const(adapter->parts).span()) {
      if (part.weight.view() == name) return &part;
    }
    return nullptr;
  };
  for (const llm::AdapterPart& part : std::as_const(adapter->parts).span()) {
    const io::TensorEntry* entry = file->find(part.weight.view());
    if (!entry)
      return fail(Errc::not_found, k_op, "the adapter is for a matrix that the model does not have",
                  part.weight.view());
    const Shape theirs{part.b.tensor().dim(0), part.a.tensor().dim(1)};
    if (entry->shape != theirs)
      return fail(fail(Errc::invalid_size, k_op, "the first is the model's matrix, the second what the adapter is for",
                       entry->shape.dims(), theirs.dims())
                      .value()
                      .about(part.weight.view()));
  }
  Rewriter rewriter(*file, options);
  return rewriter.run(
      out, [&](std::string_view name) { return find(name) != nullptr; },
      [&](std::string_view name, const Tensor& stored, std::int64_t first, std::int64_t count, Scope& frame) {
        const llm::AdapterPart& part = *find(name);
        const Tensor a = part.a.tensor();
        const float scale =
            options.scale * (adapter->alpha != 0 ? adapter->alpha / static_cast<float>(a.dim(0)) : 1.0f);
        auto b = frame.input(rows_of(part.b.tensor(), first, count)) * scale;
        return ops::cast(frame.input(rows_of(stored, first, count)), DType::f32) + ops::matmul(b, frame.input(a));
      });
}

Result<Merged> write_tuned(const Tuner& tuner, std::string_view base, std::string_view out,
                           const MergeOptions& options) noexcept {
  if (!tuner.full()) return fail(Errc::invalid_argument, k_op, "only adapters were trained");
  auto file = io::read_gguf(base);
  if (!file) return fail(file.error());
  const nn::Parameters& trained = tuner.parameters();
  Rewriter rewriter(*file, options);
  const auto sources = [&](std::string_view name) {
    const io::TensorEntry* entry = file->find(name);
    return sources_of(trained, name, entry && entry->shape.rank() > 0 ? entry->shape[0] : 0);
  };
  return rewriter.run(
      out, [&](std::string_view name) { return sources(name).count > 0; },
      [&](std::string_view name, const Tensor& stored, std::int64_t first, std::int64_t count, Scope& frame) {
        const Sources from = sources(name);
        if (stored.rank() == 1) {  // all of it: a step has more elements than any vector
          const Result<Tensor> one = frame.input(from.parts[0]);
          if (from.count == 1) return one;
          return from.count == 2 ? ops::concat({one, frame.input(from.parts[1])}, 0)
                                 : ops::concat({one, frame.input(from.parts[1]), frame.input(from.parts[2])}, 0);
        }
        // Rows of several matrices: those of one at a time, put together.
        auto made = Fresh::make(frame.context(), stored.shape().with(0, count));
        if (!made) return Result<Tensor>(fail(made.error()));
        const std::int64_t columns = stored.dim(1);
        std::int64_t begin = 0;
        for (std::size_t i = 0; i < from.count; ++i) {
          const Tensor& part = from.parts[i];
          const std::int64_t low = std::max(begin, first), high = std::min(begin + part.dim(0), first + count);
          if (low < high)
            std::copy_n(part.f32() + (low - begin) * columns, (high - low) * columns,
                        made->f32() + (low - first) * columns);
          begin += part.dim(0);
        }
        return Result<Tensor>(std::move(*made).freeze());
      });
}

}  // namespace qorus::tune
