// Bodies of qorus.formats:scheme. The rules are llama.cpp's (llama-quant.cpp), as its users know the results by name.
module qorus.formats;
import qorus.std;

namespace qorus::formats {
namespace {

constexpr Scheme k_schemes[] = {
    {"f32", DType::f32, 0},           {"f16", DType::f16, 1},           {"bf16", DType::bf16, 32},
    {"q4_0", DType::q4_0, 2},         {"q4_1", DType::q4_1, 3},         {"q5_0", DType::q5_0, 8},
    {"q5_1", DType::q5_1, 9},         {"q8_0", DType::q8_0, 7},         {"iq4_nl", DType::iq4_nl, 25},
    {"q2_k", DType::q2_k, 10, 'm'},   {"q3_k_s", DType::q3_k, 11, 's'}, {"q3_k_m", DType::q3_k, 12, 'm'},
    {"q3_k_l", DType::q3_k, 13, 'l'}, {"q4_k_s", DType::q4_k, 14, 's'}, {"q4_k_m", DType::q4_k, 15, 'm'},
    {"q5_k_s", DType::q5_k, 16, 's'}, {"q5_k_m", DType::q5_k, 17, 'm'}, {"q6_k", DType::q6_k, 18, 'm'},
    {"q3_k", DType::q3_k, 12, 'm'},   {"q4_k", DType::q4_k, 15, 'm'},   {"q5_k", DType::q5_k, 17, 'm'},
};

bool has(std::string_view name, std::string_view part) noexcept { return name.find(part) != name.npos; }

// The number after "blk.", or 0.
std::int64_t layer_of(std::string_view name) noexcept {
  std::int64_t layer = 0;
  if (!name.starts_with("blk.")) return layer;
  for (name.remove_prefix(4); !name.empty() && name[0] >= '0' && name[0] <= '9' && layer < 1 << 20;
       name.remove_prefix(1))
    layer = layer * 10 + (name[0] - '0');
  return layer;
}

// The first and last eighth of the layers, and every third of the others.
bool more_bits(std::int64_t layer, std::int64_t layers) noexcept {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

// Names of matrices that stay as they are: small, or not multiplied with.
bool is_kept(std::string_view name) noexcept {
  return !name.ends_with("weight") || has(name, "_norm.weight") || has(name, "ffn_gate_inp") ||
         has(name, "position_embd.weight") || has(name, "token_types.weight");
}

// One tensor's case: what the rules of all kinds of matrices see.
struct Case {
  const Scheme& scheme;
  const ModelFacts& model;
  std::int64_t layer;
  bool importance;

  [[nodiscard]] bool mixture(DType dtype, char size) const noexcept {
    return scheme.dtype == dtype && scheme.size == size;
  }
  [[nodiscard]] bool middle() const noexcept { return scheme.size == 'm'; }
  [[nodiscard]] std::int64_t sharing() const noexcept {  // queries per key
    return model.kv_heads > 0 ? model.heads / model.kv_heads : 0;
  }

  [[nodiscard]] DType values() const noexcept {
    DType dtype = scheme.dtype;
    if (dtype == DType::q2_k) dtype = sharing() >= 4 ? DType::q4_k : DType::q3_k;
    if (mixture(DType::q3_k, 'm')) dtype = layer < 2 ? DType::q5_k : DType::q4_k;
    if (mixture(DType::q3_k, 'l')) dtype = DType::q5_k;
    if (scheme.dtype == DType::iq4_nl && sharing() >= 4) dtype = DType::q5_k;
    if ((scheme.dtype == DType::q4_k || scheme.dtype == DType::q5_k) && middle() && more_bits(layer, model.layers))
      dtype = DType::q6_k;
    if (mixture(DType::q4_k, 's') && layer < 4) dtype = DType::q5_k;
    const bool seventy = model.llama && model.layers == 80 && model.heads != model.kv_heads;
    if (seventy && (dtype == DType::q3_k || dtype == DType::q4_k)) dtype = DType::q5_k;
    return model.experts == 8 ? DType::q8_0 : dtype;
  }

  [[nodiscard]] DType down() const noexcept {
    const bool first_eighth = layer < model.layers / 8;
    switch (scheme.dtype) {
      case DType::q2_k: return DType::q3_k;
      case DType::q3_k:
        if (middle()) return layer < model.layers / 16 ? DType::q5_k : DType::q4_k;
        return scheme.size == 'l' ? DType::q5_k : DType::q3_k;
      case DType::q4_k:
        if (middle()) return more_bits(layer, model.layers) ? DType::q6_k : DType::q4_k;
        return first_eighth ? DType::q5_k : DType::q4_k;
      case DType::q5_k: return middle() && more_bits(layer, model.layers) ? DType::q6_k : DType::q5_k;
      case DType::iq4_nl: return first_eighth && !importance ? DType::q5_k : DType::iq4_nl;
      case DType::q4_0: return first_eighth && importance ? DType::q4_1 : DType::q4_0;
      case DType::q5_0: return first_eighth && importance ? DType::q5_1 : DType::q5_0;
      default: return scheme.dtype;
    }
  }

  [[nodiscard]] DType attention_output() const noexcept {
    const bool few_bits = scheme.dtype == DType::q2_k || scheme.dtype == DType::q4_k || scheme.dtype == DType::iq4_nl ||
                          (scheme.dtype == DType::q3_k && scheme.size != 'l');
    if (model.experts == 8) return few_bits ? DType::q5_k : scheme.dtype;
    if (scheme.dtype == DType::q2_k) return DType::q3_k;
    if (mixture(DType::q3_k, 'm')) return DType::q4_k;
    return mixture(DType::q3_k, 'l') ? DType::q5_k : scheme.dtype;
  }

  [[nodiscard]] DType joint() const noexcept {  // queries, keys and values in one
    if (scheme.dtype == DType::q3_k && scheme.size != 's') return DType::q4_k;
    if (mixture(DType::q4_k, 'm')) return DType::q5_k;
    return mixture(DType::q5_k, 'm') ? DType::q6_k : scheme.dtype;
  }
};

// A format that takes the rows, if this one does not.
DType fitting(DType dtype, std::int64_t columns) noexcept {
  const auto fits = [&](DType one) { return columns % static_cast<std::int64_t>(block_size(one)) == 0; };
  if (fits(dtype)) return dtype;
  DType other = dtype;
  if (dtype == DType::q2_k || dtype == DType::q3_k) other = DType::iq4_nl;
  if (dtype == DType::q4_k) other = DType::q5_0;
  if (dtype == DType::q5_k) other = DType::q5_1;
  if (dtype == DType::q6_k) other = DType::q8_0;
  return fits(other) ? other : DType::f16;
}

}  // namespace

ModelFacts ModelFacts::of(const io::Gguf& file) noexcept {
  ModelFacts facts;
  const std::string_view name = file.text("general.architecture", "").value_or("");
  const auto number = [&](const char* key) {
    Text full;
    ((full += name) += ".") += key;
    return static_cast<std::int64_t>(file.u32(full.view(), 0).value_or(0));
  };
  facts.layers = number("block_count");
  facts.heads = number("attention.head_count");
  facts.kv_heads = number("attention.head_count_kv");
  if (facts.kv_heads == 0) facts.kv_heads = facts.heads;
  facts.experts = number("expert_count");
  facts.llama = name == "llama";
  facts.has_output = file.find("output.weight") != nullptr;
  return facts;
}

DType Scheme::choose(const ModelFacts& model, std::string_view tensor, const Shape& shape, DType stored,
                     bool importance) const noexcept {
  if (shape.rank() < 2 || is_kept(tensor)) return stored;
  if (!is_block(dtype)) return dtype;
  const Case one{*this, model, layer_of(tensor), importance};
  const std::int64_t columns = shape[-1];
  DType chosen = dtype;
  if (tensor == "output.weight" || (!model.has_output && tensor == "token_embd.weight")) {
    const bool whole = columns % static_cast<std::int64_t>(block_size(dtype)) == 0;
    chosen = !whole || dtype == DType::q8_0 ? DType::q8_0 : DType::q6_k;
  } else if (tensor == "token_embd.weight") {
    chosen = dtype;
  } else if (has(tensor, "attn_v.weight")) {
    chosen = one.values();
  } else if (has(tensor, "attn_k.weight")) {
    chosen = model.experts == 8 ? DType::q8_0 : dtype;
  } else if (has(tensor, "ffn_down")) {
    chosen = one.down();
  } else if (has(tensor, "attn_output.weight")) {
    chosen = one.attention_output();
  } else if (has(tensor, "attn_qkv.weight")) {
    chosen = one.joint();
  }
  return fitting(chosen, columns);
}

const Scheme* scheme_of(std::string_view name) noexcept {
  for (const Scheme& scheme : k_schemes) {
    if (scheme.name == name) return &scheme;
  }
  return nullptr;
}

std::uint32_t file_type_of(DType dtype) noexcept {
  for (const Scheme& scheme : k_schemes) {
    if (scheme.dtype == dtype && (scheme.size == 0 || scheme.size == 'm')) return scheme.file_type;
  }
  return dtype == DType::iq4_xs ? 30 : 0;
}

}  // namespace qorus::formats
