// Bodies of qorus.tune:adapter_file.
module;
#include <sys/stat.h>

#include <cerrno>
module qorus.tune;
import qorus.std;
import :adapter_file;

namespace qorus::tune {
namespace {

constexpr const char* k_op = "write_adapter";

// One pair on its way to a file.
struct Pair {
  Text weight;  // as GGUF has it
  Owned a, b;
};

// Copies of the adapters, in the model's order or in the other one.
Result<List<Pair>> collect(const Tuner& tuner, bool neighbours) noexcept {
  const llm::Config& config = tuner.model().config();
  List<Pair> pairs;
  auto done = llm::each_projection(tuner.model().layers(), [&](std::string_view name, llm::Projection& p) -> Status {
    if (!p.lora_a.bound()) return {};
    Pair pair;
    (pair.weight += name) += ".weight";
    auto a = keep(p.lora_a.tensor), b = keep(p.lora_b.tensor);
    if (!a) return fail(a.error());
    if (!b) return fail(b.error());
    pair.a = std::move(*a);
    pair.b = std::move(*b);
    if (llm::reordered(config, pair.weight.view()) && llm::in_neighbours(config) != neighbours) {
      if (auto turned = llm::reorder_pairs(pair.b, config.head_dim, neighbours); !turned) return turned;
    }
    return pairs.push(std::move(pair));
  });
  if (!done) return fail(done.error());
  return pairs;
}

// What a file holds together: its name, and the matrices whose rows it has, one after the other.
struct Joint {
  std::string_view name;
  std::string_view parts[3];
};
constexpr Joint k_joints[] = {{"attn_qkv", {"attn_q", "attn_k", "attn_v"}},
                              {"ffn_gate_up", {"ffn_gate", "ffn_up", ""}},
                              {"ffn_up", {"ffn_gate", "ffn_up", ""}}};

const llm::Projection& part_of(const llm::Block& block, std::string_view name) noexcept {
  if (name == "attn_q") return block.q_proj;
  if (name == "attn_k") return block.k_proj;
  if (name == "attn_v") return block.v_proj;
  return name == "ffn_gate" ? block.feed.gate : block.feed.up;
}

Text layer_name(std::size_t layer, std::string_view part) noexcept {
  Text name;
  ((((name += "blk.") += static_cast<std::int64_t>(layer)) += ".") += part) += ".weight";
  return name;
}

// Whether the model's file has this tensor, and not the matrices on their own.
bool is_joint(const Tuner& tuner, std::size_t layer, const Joint& joint) noexcept {
  const llm::Model& model = tuner.model();
  return (model.config().architecture->gated || !joint.name.starts_with("ffn")) &&
         model.stores(layer_name(layer, joint.name).view()) && !model.stores(layer_name(layer, joint.parts[0]).view());
}

// Pairs of matrices that share a tensor as one: a is theirs one below the other, b has theirs along its diagonal.
Status join(const Tuner& tuner, std::size_t layer, const Joint& joint, List<Pair>& pairs) noexcept {
  const llm::Block& block = std::as_const(tuner.model()).layers().blocks[layer];
  const std::int64_t rank = tuner.rank(), in = part_of(block, joint.parts[0]).weight.tensor.dim(1);
  std::int64_t rows = 0, count = 0;
  List<Pair> kept;
  struct Found {
    Pair pair;
    std::int64_t first_row;
  };
  List<Found> found;
  for (const std::string_view name : joint.parts) {
    if (name.empty()) continue;
    const Text weight = layer_name(layer, name);
    for (Pair& pair : pairs.span()) {
      if (pair.weight.view() != weight.view()) continue;
      if (auto pushed = found.push({std::move(pair), rows}); !pushed) return pushed;
      ++count;
    }
    rows += part_of(block, name).weight.tensor.dim(0);
  }
  if (count == 0) return {};
  auto a = Owned::zeros(Shape{count * rank, in}), b = Owned::zeros(Shape{rows, count * rank});
  if (!a) return fail(a.error());
  if (!b) return fail(b.error());
  const std::span<float> to_a = a->fill<float>(), to_b = b->fill<float>();
  std::int64_t number = 0;
  for (const Found& one : found.span()) {
    const Tensor from_a = one.pair.a.tensor(), from_b = one.pair.b.tensor();
    std::copy_n(from_a.f32(), rank * in, to_a.begin() + number * rank * in);
    for (std::int64_t row = 0; row < from_b.dim(0); ++row) {
      for (std::int64_t r = 0; r < rank; ++r)  // alpha / rank becomes smaller, and b larger
        to_b[static_cast<std::size_t>((one.first_row + row) * count * rank + number * rank + r)] =
            from_b.f32()[row * rank + r] * static_cast<float>(count);
    }
    ++number;
  }
  for (Pair& pair : pairs.span()) {
    if (!pair.a.tensor().shape().valid()) continue;  // moved
    if (auto pushed = kept.push(std::move(pair)); !pushed) return pushed;
  }
  Pair whole;
  whole.weight = layer_name(layer, joint.name == "ffn_gate_up" ? "ffn_up" : joint.name);  // as GGUF files say
  whole.a = std::move(*a);
  whole.b = std::move(*b);
  if (auto pushed = kept.push(std::move(whole)); !pushed) return pushed;
  pairs = std::move(kept);
  return {};
}

Status write_gguf_adapter(const Tuner& tuner, std::string_view path) noexcept {
  auto pairs = collect(tuner, true);
  if (!pairs) return fail(pairs.error());
  const llm::Config& config = tuner.model().config();
  for (std::size_t layer = 0; layer < static_cast<std::size_t>(config.layers); ++layer) {
    for (const Joint& joint : k_joints) {
      if (!is_joint(tuner, layer, joint)) continue;
      if (auto joined = join(tuner, layer, joint, *pairs); !joined) return joined;
    }
  }
  auto writer = io::GgufWriter::create(path);
  if (!writer) return fail(writer.error());
  Status done = writer->put_text("general.architecture", config.architecture->gguf);
  if (done) done = writer->put_text("general.type", "adapter");
  if (done) done = writer->put_text("adapter.type", "lora");
  if (done) done = writer->put("adapter.lora.alpha", tuner.alpha());
  if (done) done = writer->put("general.file_type", std::uint32_t{0});
  const auto each = [&](auto&& f) {
    for (const Pair& pair : std::as_const(*pairs).span()) {
      for (const bool second : {false, true}) {
        Text name = pair.weight;
        name += second ? ".lora_b" : ".lora_a";
        if (done) done = f(name, second ? pair.b.tensor() : pair.a.tensor());
      }
    }
  };
  each([&](const Text& name, const Tensor& t) { return writer->declare(name.view(), DType::f32, t.shape()); });
  if (done) done = writer->begin();
  each([&](const Text&, const Tensor& t) { return writer->write({t.data(), t.numel() * sizeof(float)}); });
  return done ? writer->commit() : done;
}

// JSON's spelling of a text.
Status put_quoted(List<char>& json, std::string_view text) noexcept {
  const auto put = [&](std::string_view more) { return json.append(std::span(more.data(), more.size())); };
  Status done = put("\"");
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    constexpr char k_digits[] = "0123456789abcdef";
    const char spelled[6] = {'\\', 'u', '0', '0', k_digits[byte >> 4], k_digits[byte & 15]};
    const bool plain = byte >= 0x20 && c != '"' && c != '\\';
    if (done) done = plain ? json.push(c) : put({spelled, 6});
  }
  return done ? put("\"") : done;
}

// PEFT's settings. modules: those that have an adapter, without repetition.
Status write_peft_config(const Tuner& tuner, std::string_view path, std::string_view base,
                         std::span<const Text> modules) noexcept {
  List<char> json;
  Text number;
  number += tuner.rank();
  // Six digits of alpha are what a person would give.
  const auto millionths = static_cast<std::int64_t>(static_cast<double>(tuner.alpha()) * 1e6 + 0.5);
  Text alpha, fraction;
  fraction += millionths % 1000000 + 1000000;
  ((alpha += millionths / 1000000) += ".") += std::string_view(fraction.c_str() + 1, 6);
  const auto put = [&](std::string_view more) { return json.append(std::span(more.data(), more.size())); };
  Status done = put("{\n  \"base_model_name_or_path\": ");
  if (done) done = put_quoted(json, base);
  for (const std::string_view piece :
       {std::string_view(",\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": false,\n  \"inference_mode\": true,\n"
                         "  \"lora_alpha\": "),
        alpha.view(), std::string_view(",\n  \"lora_dropout\": 0.0,\n  \"peft_type\": \"LORA\",\n  \"r\": "),
        number.view(), std::string_view(",\n  \"target_modules\": [")}) {
    if (done) done = put(piece);
  }
  for (std::size_t i = 0; i < modules.size() && done; ++i) {
    if (i > 0) done = put(", ");
    if (done) done = put_quoted(json, modules[i].view());
  }
  if (done) done = put("],\n  \"task_type\": \"CAUSAL_LM\"\n}\n");
  if (!done) return done;
  auto file = AtomicFile::create(path);
  if (!file) return fail(file.error());
  if (done = file->write({json.data(), json.size()}); !done) return done;
  return file->commit();
}

Status write_peft_adapter(const Tuner& tuner, std::string_view folder, std::string_view base) noexcept {
  const llm::Config& config = tuner.model().config();
  for (std::size_t layer = 0; layer < static_cast<std::size_t>(config.layers); ++layer) {
    for (const Joint& joint : k_joints) {
      if (is_joint(tuner, layer, joint))
        return fail(Errc::unsupported, k_op,
                    "the model's files hold several matrices in one: write the adapter as .gguf", joint.name);
    }
  }
  auto pairs = collect(tuner, false);
  if (!pairs) return fail(pairs.error());
  if (::mkdir(llm::path_in({}, folder).bytes.data(), 0777) != 0 && errno != EEXIST)
    return fail_system(errno, k_op, "the folder cannot be made", folder);
  List<Text> names, modules;
  for (const Pair& pair : std::as_const(*pairs).span()) {
    const Text theirs = llm::hugging_face_name(*config.architecture, pair.weight.view());
    const std::string_view stem(theirs.c_str(), theirs.size - std::string_view(".weight").size());
    for (const std::string_view tail : {".lora_A.weight", ".lora_B.weight"}) {
      Text full;
      (((full += "base_model.model.") += config.architecture->learned_positions ? "transformer." : "") += stem) += tail;
      if (auto kept = names.push(full); !kept) return kept;
    }
    const std::size_t dot = stem.rfind('.');
    Text module_name;
    module_name += std::string_view(stem.data() + (dot == stem.npos ? 0 : dot + 1),
                                    stem.size() - (dot == stem.npos ? 0 : dot + 1));
    const bool known =
        std::any_of(modules.begin(), modules.end(), [&](const Text& m) { return m.view() == module_name.view(); });
    if (known) continue;
    if (auto kept = modules.push(module_name); !kept) return kept;
  }
  List<io::NamedTensor> tensors;
  for (std::size_t i = 0; i < pairs->size(); ++i) {
    if (auto kept = tensors.push({names[2 * i].view(), (*pairs)[i].a.tensor()}); !kept) return kept;
    if (auto kept = tensors.push({names[2 * i + 1].view(), (*pairs)[i].b.tensor()}); !kept) return kept;
  }
  const io::TextPair format{"format", "pt"};
  if (auto done =
          io::write_safetensors(llm::path_in(folder, "adapter_model.safetensors").view(), tensors.span(), {&format, 1});
      !done)
    return done;
  return write_peft_config(tuner, llm::path_in(folder, "adapter_config.json").view(), base, modules.span());
}

}  // namespace

Status write_adapter(const Tuner& tuner, std::string_view path, std::string_view base) noexcept {
  if (tuner.full()) return fail(Errc::invalid_argument, k_op, "all weights were trained: there are no adapters");
  return path.ends_with(".gguf") ? write_gguf_adapter(tuner, path) : write_peft_adapter(tuner, path, base);
}

}  // namespace qorus::tune
