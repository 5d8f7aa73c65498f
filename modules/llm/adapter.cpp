// Bodies of qorus.llm:adapter.
module qorus.llm;
import qorus.std;

namespace qorus::llm {
namespace {

constexpr const char* k_op = "adapter";

// A copy in f32.
Result<Owned> to_floats(const Tensor& stored) noexcept {
  Workspace workspace{{.scratch = stored.numel() * sizeof(float) + 1_MiB, .threads = 1}};
  auto frame = workspace.frame();
  return ops::cast(frame.input(stored), DType::f32).and_then(keep);
}

Status push_part(Adapter& adapter, std::string_view weight, const Tensor& a, const Tensor& b,
                 std::string_view path) noexcept {
  if (a.rank() != 2 || b.rank() != 2 || a.dim(0) != b.dim(1) || a.dim(0) < 1)
    return fail(fail(Errc::corrupt, k_op, "a: [rank, in] and b: [out, rank] must agree on the rank", a.shape().dims(),
                     b.shape().dims())
                    .value()
                    .about(weight));
  AdapterPart part;
  part.weight += weight;
  for (const auto& [from, to] : {std::pair(&a, &part.a), std::pair(&b, &part.b)}) {
    auto floats = to_floats(*from);
    if (!floats) return fail(floats.error().about(path));
    *to = std::move(*floats);
  }
  return adapter.parts.push(std::move(part));
}

Result<Adapter> read_gguf_adapter(std::string_view path, const Config& config) noexcept {
  auto file = io::read_gguf(path);
  if (!file) return fail(file.error());
  const auto type = file->text("general.type", ""), kind = file->text("adapter.type", ""),
             architecture = file->text("general.architecture", "");
  if (!type || !kind || !architecture || *type != "adapter")
    return fail(Errc::not_found, k_op, "the file is no adapter: general.type does not say so", path);
  if (*kind != "lora") return fail(Errc::unsupported, k_op, "of adapters only those of type lora", *kind);
  if (*architecture != config.architecture->gguf)
    return fail(Errc::invalid_argument, k_op, "the adapter is for another architecture", *architecture);
  Adapter adapter;
  const auto alpha = file->f32("adapter.lora.alpha", 0);
  if (!alpha || !std::isfinite(*alpha)) return fail(Errc::corrupt, k_op, "adapter.lora.alpha is no number", path);
  adapter.alpha = *alpha;
  std::size_t used = 0;
  constexpr std::string_view k_a = ".lora_a", k_b = ".lora_b";
  for (const io::TensorEntry& entry : file->entries()) {
    if (!entry.name.ends_with(k_a)) continue;
    const std::string_view weight(entry.name.data(), entry.name.size() - k_a.size());
    Text other;
    (other += weight) += k_b;
    auto a = file->tensor(entry.name), b = file->tensor(other.view());
    if (!a) return fail(a.error());
    if (!b) return fail(Errc::corrupt, k_op, "half a pair: there is no .lora_b for it", entry.name);
    auto done = push_part(adapter, weight, *a, *b, path);
    if (done && reordered(config, weight) && !in_neighbours(config))
      done = reorder_pairs(adapter.parts.back().b, config.head_dim, false);
    if (!done) return fail(done.error());
    used += 2;
  }
  if (used != file->entries().size() || used == 0)
    return fail(Errc::unsupported, k_op, "the file holds tensors that are no pairs .lora_a and .lora_b", path);
  return adapter;
}

struct PeftNumbers {
  double rank = 0, alpha = 0;
};

Result<PeftNumbers> read_peft_config(std::string_view folder) noexcept {
  const FilePath path = path_in(folder, "adapter_config.json");
  auto file = MappedFile::open(path.view());
  if (!file) return fail(file.error());
  text::JsonTree tree;
  if (auto parsed = tree.parse({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()}); !parsed)
    return fail(parsed.error().about(path.view()));
  const text::JsonValue root = tree.root();
  if (root["peft_type"].string() != "LORA")
    return fail(Errc::unsupported, k_op, "of PEFT's adapters only LORA", root["peft_type"].string());
  for (const char* key : {"rank_pattern", "alpha_pattern", "modules_to_save"}) {
    if (root[key].size() > 0) return fail(Errc::unsupported, k_op, "a setting that is not done", key);
  }
  if (root["use_dora"].flag(false)) return fail(Errc::unsupported, k_op, "a setting that is not done", "use_dora");
  PeftNumbers numbers{.rank = root["r"].number(0), .alpha = root["lora_alpha"].number(0)};
  if (!(numbers.rank >= 1) || !(numbers.alpha > 0))
    return fail(Errc::corrupt, k_op, "r and lora_alpha must be above 0", path.view());
  if (root["use_rslora"].flag(false)) numbers.alpha *= std::sqrt(numbers.rank);
  return numbers;
}

Result<Adapter> read_peft_adapter(std::string_view folder, const Config& config) noexcept {
  auto numbers = read_peft_config(folder);
  if (!numbers) return fail(numbers.error());
  const FilePath path = path_in(folder, "adapter_model.safetensors");
  auto file = io::read_safetensors(path.view());
  if (!file) return fail(file.error());
  Adapter adapter;
  adapter.alpha = static_cast<float>(numbers->alpha);
  std::size_t used = 0;
  const auto take = [&](std::string_view part) -> Status {
    Text ours;
    (ours += part) += ".weight";
    const Text theirs = hugging_face_name(*config.architecture, ours.view());
    if (theirs.size == 0) return {};
    const std::string_view stem(theirs.view().data(), theirs.size - std::string_view(".weight").size());
    for (const std::string_view prefix : {"", "transformer.", "language_model."}) {
      Text a, b;
      (((a += "base_model.model.") += prefix) += stem) += ".lora_A.weight";
      (((b += "base_model.model.") += prefix) += stem) += ".lora_B.weight";
      if (!file->find(a.view()) && !file->find(b.view())) continue;
      auto first = file->tensor(a.view()), second = file->tensor(b.view());
      if (!first) return fail(first.error());
      if (!second) return fail(second.error());
      used += 2;
      if (auto pushed = push_part(adapter, ours.view(), *first, *second, path.view()); !pushed) return pushed;
      if (!reordered(config, ours.view()) || !in_neighbours(config)) return {};
      return reorder_pairs(adapter.parts.back().b, config.head_dim, true);
    }
    return {};
  };
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    for (const char* part :
         {"attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "ffn_gate_up"}) {
      Text name;
      (((name += "blk.") += layer) += ".") += part;
      if (auto taken = take(name.view()); !taken) return fail(taken.error());
    }
  }
  if (auto taken = take("output"); !taken) return fail(taken.error());
  if (used != file->entries().size() || used == 0)
    return fail(Errc::unsupported, k_op, "the file holds tensors that this model has no place for", path.view());
  return adapter;
}

// A projection together with the rows of an adapter's matrix that are its own.
struct Place {
  Projection* projection;
  std::int64_t first;
};

Status bind(const Place& place, const AdapterPart& part, float scale) noexcept {
  Projection& p = *place.projection;
  if (p.lora_a.bound())
    return fail(Errc::invalid_argument, k_op, "the model has an adapter already", part.weight.view());
  const Tensor a = part.a.tensor(), b = part.b.tensor();
  p.lora_a.tensor = a;
  p.lora_b.tensor = Tensor(b.data() + place.first * b.dim(1) * static_cast<std::int64_t>(sizeof(float)), DType::f32,
                           Layout::dense(Shape{p.weight.tensor.dim(0), b.dim(1)}), b.lifetime());
  p.lora_scale = scale;
  return {};
}

}  // namespace

Status reorder_pairs(Owned& b, std::int64_t head_dim, bool to_neighbours) noexcept {
  const Tensor stored = b.tensor();
  if (stored.rank() != 2 || stored.dim(0) % head_dim != 0)
    return fail(Errc::invalid_size, k_op, "rows that are no whole heads", stored.shape().dims());
  auto made = Owned::zeros(stored.shape());
  if (!made) return fail(made.error());
  const std::span<float> to = made->fill<float>();
  const std::int64_t rank = stored.dim(1), half = head_dim / 2;
  for (std::int64_t row = 0; row < stored.dim(0); ++row) {
    const std::int64_t head = row / head_dim, at = row % head_dim;
    const std::int64_t turned = to_neighbours ? 2 * (at % half) + at / half : at % 2 * half + at / 2;
    std::copy_n(stored.f32() + row * rank, rank, to.begin() + (head * head_dim + turned) * rank);
  }
  b = std::move(*made);
  return {};
}

Result<Adapter> read_adapter(std::string_view path, const Config& config) noexcept {
  if (is_file(path_in(path, "adapter_config.json").view())) return read_peft_adapter(path, config);
  return read_gguf_adapter(path, config);
}

Status add_adapter(Network& network, const Adapter& adapter, float scale) noexcept {
  for (const AdapterPart& part : adapter.parts) {
    const std::string_view weight = part.weight.view();
    List<Place> places;
    std::int64_t rows = 0, in = 0;
    // A tensor that holds several matrices: queries, keys and values; or gate and up.
    const std::size_t dot = weight.find_last_of('.', weight.size() - std::string_view(".weight").size() - 1);
    const std::string_view layer(weight.data(), dot == weight.npos ? 0 : dot + 1);
    const std::string_view tail(weight.data() + layer.size(), weight.size() - layer.size());
    auto found = each_projection(network, [&](std::string_view name, Projection& p) -> Status {
      const std::string_view own(name.data() + std::min(layer.size(), name.size()),
                                 name.size() - std::min(layer.size(), name.size()));
      if (!name.starts_with(layer) || (layer.empty() && name != "output")) return {};
      const bool whole = tail.size() == own.size() + 7 && tail.starts_with(own);
      const bool joint =
          (tail == "attn_qkv.weight" && (own == "attn_q" || own == "attn_k" || own == "attn_v")) ||
          (tail == "ffn_gate_up.weight" && (own == "ffn_gate" || own == "ffn_up")) ||
          (tail == "ffn_up.weight" && own == "ffn_gate" && part.b.tensor().dim(0) == 2 * p.weight.tensor.dim(0));
      if (!whole && !joint) return {};
      if (auto kept = places.push({&p, rows}); !kept) return kept;
      rows += p.weight.tensor.dim(0);
      in = p.weight.tensor.dim(1);
      return {};
    });
    if (!found) return found;
    if (places.empty())
      return fail(Errc::not_found, k_op, "the adapter is for a matrix that the model does not have", weight);
    const Tensor a = part.a.tensor(), b = part.b.tensor();
    if (a.dim(1) != in || b.dim(0) != rows) {
      const Shape ours{rows, in}, theirs{b.dim(0), a.dim(1)};
      return fail(fail(Errc::invalid_size, k_op, "the first is the model's matrix, the second what the adapter is for",
                       ours.dims(), theirs.dims())
                      .value()
                      .about(weight));
    }
    const float own = adapter.alpha != 0 ? adapter.alpha / static_cast<float>(a.dim(0)) : 1.0f;
    for (const Place& place : places) {
      if (auto bound = bind(place, part, own * scale); !bound) return bound;
    }
  }
  return {};
}

}  // namespace qorus::llm
