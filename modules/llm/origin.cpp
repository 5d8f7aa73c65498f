// Bodies of Origin: the file that a conversion reads.
module qorus.llm;
import qorus.std;
import :convert_plan;

namespace qorus::llm {

Container container_of(std::string_view path) noexcept {
  if (path.ends_with(".gguf")) return Container::gguf;
  if (path.ends_with(".qorus")) return Container::native;
  if (path.ends_with(".npz")) return Container::npz;
  return path.ends_with(".bin") ? Container::llama2c : Container::safetensors;
}

Result<DType> dtype_of_safetensors(const io::TensorEntry& entry) noexcept {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::i32, DType::i8, DType::u8}) {
    if (io::safetensors_type(dtype) == entry.type) return dtype;
  }
  return fail(Errc::unsupported, "convert", "tensors do not have this element type", entry.name);
}

Result<Origin> Origin::open(std::string_view path) noexcept {
  Origin made;
  auto file = MappedFile::open(path);
  // A folder is Errc::io, and none of the system's errors.
  if (!file && (file.error().code != Errc::io || file.error().system != 0)) return fail(file.error());
  const std::string_view content =
      file ? std::string_view(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()) : "";
  if (content.starts_with("PK\x03\x04")) {
    made.kind_ = Kind::npz;
    auto npz = io::Npz::open(path);
    if (!npz) return fail(npz.error());
    made.npz_ = std::move(*npz);
    auto bytes = made.npz_.read(k_npz_metadata);
    if (!bytes && bytes.error().code == Errc::not_found) return made;
    if (!bytes) return fail(bytes.error());
    made.npz_bytes_ = std::move(*bytes);
    const Tensor tensor = made.npz_bytes_.tensor();
    std::uint64_t entries = 0;
    if (tensor.dtype() != DType::u8 || tensor.numel() < sizeof entries)
      return fail(Errc::corrupt, "convert", "its metadata is broken", path);
    std::memcpy(&entries, tensor.data(), sizeof entries);
    auto metadata = io::gguf_of(MappedFile(), path, std::span(tensor.data(), tensor.numel()).subspan(sizeof entries),
                                entries, {}, 32);
    if (!metadata) return fail(metadata.error());
    made.npz_metadata_ = std::move(*metadata);
    made.npz_told_ = true;
    return made;
  }
  auto weights = Weights::open(path);
  const Errc why = weights ? Errc::ok : weights.error().code;
  const bool unread = why == Errc::io || why == Errc::out_of_memory;
  if (!weights && !unread && path.ends_with(".safetensors") && file) {  // without a config.json: only tensors
    auto plain = io::read_safetensors(path);
    if (!plain) return fail(plain.error());
    made.kind_ = Kind::safetensors;
    made.plain_ = std::move(*plain);
    return made;
  }
  if (!weights) return fail(weights.error());
  made.weights_ = std::move(*weights);
  made.kind_ = made.weights_.kind() == Weights::Kind::gguf      ? Kind::gguf
               : made.weights_.kind() == Weights::Kind::llama2c ? Kind::llama2c
                                                                : Kind::hugging_face;
  return made;
}

const io::Gguf* Origin::metadata() const noexcept {
  if (kind_ == Kind::gguf) return &weights_.gguf();
  return npz_told_ ? &npz_metadata_ : nullptr;
}

bool Origin::is_model() const noexcept {
  if (kind_ == Kind::llama2c || kind_ == Kind::hugging_face) return true;
  const io::Gguf* told = metadata();
  return told && architecture_of_gguf(told->text("general.architecture", "").value_or(""));
}

Result<Config> Origin::config() const noexcept {
  auto config = kind_ == Kind::npz ? read_config(npz_metadata_) : weights_.config();
  if (!config) return config;
  Owned kept;
  auto embedding = tensor("token_embd.weight", false, kept);
  if (!embedding) return fail(embedding.error());
  if (embedding->rank() != 2)
    return fail(Errc::invalid_size, "convert", "an embedding is [vocabulary, d_model]", embedding->shape().dims());
  config->vocab = embedding->dim(0);
  if (auto good = check_config(*config); !good) return fail(good.error());
  return config;
}

Result<Tensor> Origin::tensor(std::string_view name, bool by_file, Owned& kept) const noexcept {
  const auto keep_copy = [&](Result<Owned> copy) -> Result<Tensor> {
    if (!copy) return fail(copy.error());
    kept = std::move(*copy);
    return kept.tensor();
  };
  const auto from = [&](const io::SafeTensors& file) -> Result<Tensor> {
    auto view = file.tensor(name);
    return view || view.error().code != Errc::misaligned ? view : keep_copy(file.copy(name));
  };
  if (kind_ == Kind::gguf) return weights_.gguf().tensor(name);
  if (kind_ == Kind::npz) return keep_copy(npz_.read(name));
  if (kind_ == Kind::safetensors) return from(plain_);
  if (kind_ == Kind::llama2c || !by_file) {
    auto view = weights_.tensor(name);
    return view || view.error().code != Errc::misaligned ? view : keep_copy(weights_.copy(name));
  }
  for (const io::SafeTensors& shard : weights_.shards()) {
    if (shard.find(name)) return from(shard);
  }
  return fail(Errc::not_found, "convert", "no file has such a tensor", name);
}

}  // namespace qorus::llm
