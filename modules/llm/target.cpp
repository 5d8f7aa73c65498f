// Bodies of Target, and what checkpoints of llama2.c want.
module qorus.llm;
import qorus.std;
import :convert_plan;
import :convert_steps;

namespace qorus::llm {
namespace {

constexpr const char* k_op = "convert";

template <class T>
Status put_in(std::optional<T>& place, Result<T> made) noexcept {
  if (!made) return fail(made.error());
  place.emplace(std::move(*made));
  return {};
}

}  // namespace

Result<Target> Target::create(Container container, std::string_view path) noexcept {
  Target made;
  Status done;
  switch (container) {
    case Container::gguf: done = put_in(made.gguf_, io::GgufWriter::create(path)); break;
    case Container::native: done = put_in(made.native_, formats::NativeWriter::create(path)); break;
    case Container::safetensors: done = put_in(made.safetensors_, formats::SafetensorsWriter::create(path)); break;
    case Container::npz: done = put_in(made.npz_, formats::NpzWriter::create(path)); break;
    case Container::llama2c: done = put_in(made.plain_, AtomicFile::create(path)); break;
  }
  if (!done) return fail(done.error());
  return made;
}

io::GgufMetadata* Target::metadata() noexcept {
  if (gguf_) return &*gguf_;
  if (native_) return &*native_;
  return npz_ ? &npz_metadata_ : nullptr;
}

Status Target::declare(const Step& step) noexcept {
  if (gguf_) return gguf_->declare(step.name.view(), step.dtype, step.shape);
  if (native_) return native_->declare(step.name.view(), step.dtype, step.shape);
  return safetensors_ ? safetensors_->declare(step.name.view(), step.dtype, step.shape) : Status();
}

Status Target::begin(const Context& context) noexcept {
  if (gguf_) return gguf_->begin();
  if (native_) native_->use(context);
  if (native_) return native_->begin();
  if (safetensors_) {
    if (auto put = safetensors_->put("format", "pt"); !put) return put;  // transformers asks for it
    return safetensors_->begin();
  }
  if (!npz_) return {};
  if (auto good = npz_metadata_.close(); !good) return good;
  const std::uint64_t count = npz_metadata_.count();
  if (count == 0) return {};
  const auto bytes = npz_metadata_.bytes();
  const auto size = static_cast<std::int64_t>(bytes.size() + sizeof count);
  if (auto done = npz_->begin(k_npz_metadata, DType::u8, Shape{size}); !done) return done;
  if (auto done = npz_->write(std::as_bytes(std::span(&count, 1))); !done) return done;
  return npz_->write(bytes);
}

Status Target::next(const Step& step) noexcept {
  return npz_ ? npz_->begin(step.name.view(), step.dtype, step.shape) : Status();
}

Status Target::write(std::span<const std::byte> bytes) noexcept {
  if (gguf_) return gguf_->write(bytes);
  if (native_) return native_->write(bytes);
  if (safetensors_) return safetensors_->write(bytes);
  return npz_ ? npz_->write(bytes) : plain_->write(bytes);
}

Status Target::commit() noexcept {
  if (gguf_) return gguf_->commit();
  if (native_) return native_->commit();
  if (safetensors_) return safetensors_->commit();
  return npz_ ? npz_->commit() : plain_->commit();
}

// --- llama2.c ---

Status order_for_llama2c(const Config& c, List<Step>& steps) noexcept {
  const bool plain = c.architecture->gguf == "llama" && c.experts == 0 && c.head_dim * c.heads == c.d_model &&
                     c.rope.scaling.kind == RopeScaling::Kind::none && c.rope.base == 10000 &&
                     c.rope.dim == c.head_dim && std::fabs(c.norm_eps - 1e-5f) < 1e-8f && c.window == 0;
  if (!plain)
    return fail(Errc::unsupported, k_op,
                "llama2.c holds Llama models of the first kind: rope base 10000, norms' eps 1e-5");
  List<Step> ordered;
  const auto take = [&](const Text& name, bool needed) -> Status {
    for (Step& step : steps) {
      if (step.name.view() != name.view()) continue;
      step.dtype = DType::f32;
      return ordered.push(std::move(step));
    }
    return needed ? fail(Errc::not_found, k_op, "no such tensor", name.view()) : Status();
  };
  const auto whole = [&](const char* name, bool needed = true) { return take(Text() += name, needed); };
  if (auto done = whole("token_embd.weight"); !done) return done;
  for (const char* part :
       {"attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_down", "ffn_up"}) {
    for (std::int64_t layer = 0; layer < c.layers; ++layer) {
      Text name;
      ((((name += "blk.") += layer) += ".") += part) += ".weight";
      if (auto done = take(name, true); !done) return done;
    }
  }
  if (auto done = whole("output_norm.weight"); !done) return done;
  if (auto done = whole("output.weight", false); !done) return done;
  if (ordered.size() != steps.size())
    return fail(Errc::unsupported, k_op, "llama2.c's checkpoints hold no biases and no other tensors");
  steps = std::move(ordered);
  return {};
}

Status write_llama2c_header(Target& target, const Config& c, bool tied) noexcept {
  const std::array<std::int64_t, 7> numbers{c.d_model, c.d_ff, c.layers, c.heads, c.kv_heads, tied ? c.vocab : -c.vocab,
                                            c.context};
  std::array<std::int32_t, 7> header{};
  for (std::size_t i = 0; i < header.size(); ++i) header[i] = static_cast<std::int32_t>(numbers[i]);
  return target.write(std::as_bytes(std::span(header)));
}

Status write_llama2c_angles(Target& target, const Config& c) noexcept {
  const std::int64_t pairs = c.head_dim / 2;
  for (const bool sine : {false, true}) {
    for (std::int64_t position = 0; position < c.context; ++position) {
      for (std::int64_t i = 0; i < pairs; ++i) {
        const double angle = static_cast<double>(position) *
                             std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(c.head_dim));
        const auto value = static_cast<float>(sine ? std::sin(angle) : std::cos(angle));
        if (auto done = target.write(std::as_bytes(std::span(&value, 1))); !done) return done;
      }
    }
  }
  return {};
}

}  // namespace qorus::llm
