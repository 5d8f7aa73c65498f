// The plan of a conversion between GGUF's names and Hugging Face's.
module qorus.llm;
import qorus.std;
import :convert_plan;
import :convert_steps;

namespace qorus::llm {
namespace {

constexpr const char* k_op = "convert";

bool has(std::string_view name, std::string_view part) noexcept { return name.find(part) != name.npos; }

// All that a block may have, by our names, and what GGUF files call it where that is another.
struct Part {
  std::string_view ours, gguf = {};
};
constexpr Part k_parts[] = {{"attn_norm"},
                            {"attn_q"},
                            {"attn_k"},
                            {"attn_v"},
                            {"attn_qkv"},
                            {"attn_output"},
                            {"attn_q_norm"},
                            {"attn_k_norm"},
                            {"post_attention_norm"},
                            {"ffn_norm"},
                            {"ffn_gate"},
                            {"ffn_up"},
                            {"ffn_down"},
                            {"ffn_gate_up", "ffn_up"},
                            {"post_ffw_norm"},
                            {"ffn_gate_inp"},
                            {"shared.ffn_gate", "ffn_gate_shexp"},
                            {"shared.ffn_up", "ffn_up_shexp"},
                            {"shared.ffn_down", "ffn_down_shexp"},
                            {"ffn_gate_inp_shexp"}};
constexpr Part k_expert_parts[] = {
    {"ffn_gate", "ffn_gate_exps"}, {"ffn_up", "ffn_up_exps"}, {"ffn_down", "ffn_down_exps"}};

Text block_name(std::int64_t layer, std::string_view part, std::string_view tail) noexcept {
  Text name;
  return ((((name += "blk.") += layer) += ".") += part) += tail;
}

// What is done to a tensor on the way from safetensors; the way back undoes it.
Turn turn_of(const Config& c, std::string_view name, const Shape& shape) noexcept {
  const Architecture& a = *c.architecture;
  if (a.interleaved && (has(name, ".attn_q.") || has(name, ".attn_k."))) return Turn::pair;
  if (a.transposed && shape.rank() == 2 && name.starts_with("blk.")) return Turn::transpose;
  if (a.norms_lack_one && name.ends_with("norm.weight")) return Turn::plus_one;
  return Turn::none;
}
std::int64_t heads_of(const Config& c, std::string_view name) noexcept {
  return has(name, ".attn_k.") ? c.kv_heads : c.heads;
}

// Kept in f32 in GGUF: vectors, and what llama.cpp reads in f32 only.
bool is_wide(std::string_view name, const Shape& shape) noexcept {
  return shape.rank() < 2 || has(name, "ffn_gate_inp") || name == "position_embd.weight";
}

}  // namespace

// --- safetensors to GGUF ---

Status Planner::add_from_hugging_face(std::string_view ours, std::string_view gguf) noexcept {
  if (!origin_.weights().has(ours)) return {};
  Owned kept;
  auto tensor = origin_.tensor(ours, false, kept);
  if (!tensor) return fail(tensor.error());
  Step step{.stored = tensor->dtype(), .shape = tensor->shape()};
  step.name += gguf;
  step.source += ours;
  step.turn = turn_of(c_, gguf, step.shape);
  step.number = heads_of(c_, gguf);
  if (step.turn == Turn::transpose) step.shape = Shape{tensor->dim(1), tensor->dim(0)};
  if (has(gguf, "ffn_gate_inp_shexp") && step.shape.rank() == 2) step.shape = Shape{step.shape[1]};
  step.dtype = is_wide(gguf, step.shape) ? DType::f32 : tensor->dtype();
  ++used_;
  return steps_.push(std::move(step));
}

Status Planner::add_experts(std::int64_t layer) noexcept {
  for (const Part& part : k_expert_parts) {
    Text first;
    (first += "experts.0.") += part.ours;
    Owned kept;
    auto tensor = origin_.tensor(block_name(layer, first.view(), ".weight").view(), false, kept);
    if (!tensor) return fail(tensor.error());
    Text all;
    (all += "experts.#.") += part.ours;
    Step step{.name = block_name(layer, part.gguf, ".weight"),
              .source = block_name(layer, all.view(), ".weight"),
              .stored = tensor->dtype()};
    step.shape = Shape{c_.experts, tensor->dim(0), tensor->dim(1)};
    step.dtype = tensor->dtype();
    step.turn = Turn::stack;
    step.number = c_.experts;
    used_ += static_cast<std::size_t>(c_.experts);
    if (auto kept_step = steps_.push(std::move(step)); !kept_step) return kept_step;
  }
  return {};
}

// Factors of single pairs, which GGUF keeps as tensors.
Status Planner::add_factors() noexcept {
  const RopeScaling& s = c_.rope.scaling;
  const auto add = [&](const char* name) -> Status {
    Step step{.dtype = DType::f32, .stored = DType::f32, .shape = Shape{c_.rope.dim / 2}};
    step.name += name;
    step.source += name;
    return steps_.push(std::move(step));
  };
  if (s.kind == RopeScaling::Kind::llama3) return add("rope_freqs.weight");
  if (s.kind != RopeScaling::Kind::longrope) return {};
  if (auto done = add("rope_factors_long.weight"); !done) return done;
  return add("rope_factors_short.weight");
}

Status Planner::from_hugging_face() noexcept {
  for (const char* name : {"token_embd.weight", "position_embd.weight", "output_norm.weight", "output_norm.bias",
                           "output.weight", "output.bias"}) {
    if (auto done = add_from_hugging_face(name, name); !done) return done;
  }
  if (auto done = add_factors(); !done) return done;
  for (std::int64_t layer = 0; layer < c_.layers; ++layer) {
    for (const Part& part : k_parts) {
      for (const char* tail : {".weight", ".bias"}) {
        const Text ours = block_name(layer, part.ours, tail),
                   gguf = block_name(layer, part.gguf.empty() ? part.ours : part.gguf, tail);
        if (auto done = add_from_hugging_face(ours.view(), gguf.view()); !done) return done;
      }
    }
    if (!c_.has_experts(layer)) continue;
    if (auto done = add_experts(layer); !done) return done;
  }
  return check_all_used();
}

// Buffers that old files have among the weights mean nothing.
Status Planner::check_all_used() const noexcept {
  std::size_t all = 0;
  std::string_view odd;
  for (const io::SafeTensors& shard : origin_.weights().shards()) {
    for (const io::TensorEntry& entry : shard.entries()) {
      const bool buffer = entry.name.ends_with(".inv_freq") || entry.name.ends_with(".attn.bias") ||
                          entry.name.ends_with(".attn.masked_bias") || entry.name.ends_with("position_ids");
      if (!buffer) ++all, odd = entry.name;
    }
  }
  if (all == used_) return {};
  return fail(Errc::unsupported, k_op, "tensors that the architecture does not have, perhaps this one", odd);
}

// --- GGUF to safetensors ---

namespace {

// The name that Weights would take for a tensor of a GGUF file: experts as one of theirs ('#' for its number), shared ones apart.
Text ours_of(std::string_view name, bool fused) noexcept {
  const std::size_t tail = name.rfind('.');
  std::string_view stem(name.data(), tail == name.npos ? name.size() : tail);
  const std::string_view end(name.data() + stem.size(), name.size() - stem.size());
  const std::size_t dot = stem.rfind('.');
  if (!name.starts_with("blk.") || dot == stem.npos) return Text() += name;
  const std::string_view block(stem.data(), dot + 1);
  std::string_view part(stem.data() + dot + 1, stem.size() - dot - 1);
  Text full;
  full += block;
  if (part.ends_with("_exps")) {
    part.remove_suffix(5);
    full += "experts.#.";
  } else if (part.ends_with("_shexp") && part != "ffn_gate_inp_shexp") {
    part.remove_suffix(6);
    full += "shared.";
  } else if (fused && part == "ffn_up") {
    part = "ffn_gate_up";
  }
  return (full += part) += end;
}

Turn undone(Turn turn) noexcept {
  return turn == Turn::pair ? Turn::unpair : turn == Turn::plus_one ? Turn::minus_one : turn;
}

}  // namespace

Text numbered(std::string_view name, std::int64_t number) noexcept {
  Text full;
  for (const char c : name) {
    if (c == '#') {
      full += number;
    } else {
      full += std::string_view(&c, 1);
    }
  }
  return full;
}

Status Planner::add_to_hugging_face(std::string_view name, DType dtype, const Shape& shape) noexcept {
  if (name.starts_with("rope_f")) return {};  // config.json says them
  const Architecture& a = *target_;
  Text gate;
  const std::size_t up = name.find("ffn_up.");
  if (up != name.npos)
    ((gate += std::string_view(name.data(), up)) += "ffn_gate.") +=
        std::string_view(name.data() + up + 7, name.size() - up - 7);
  const io::Gguf* told = origin_.metadata();
  const bool fused = a.gated && up != name.npos && told && !told->find(gate.view());
  const Text ours = ours_of(name, fused && c_.experts == 0);
  const bool many = has(ours.view(), "#");
  const std::int64_t count = many && shape.rank() == 3 ? shape[0] : 1;
  for (std::int64_t i = 0; i < count; ++i) {
    const Text theirs = hugging_face_name(a, numbered(ours.view(), i).view());
    if (theirs.size == 0) return fail(Errc::not_found, k_op, "the architecture has no such tensor", name);
    Step step{.dtype = is_block(dtype) ? DType::f32 : dtype, .stored = dtype, .shape = shape};
    if (a.learned_positions && !theirs.view().starts_with("lm_head")) step.name += "transformer.";
    step.name += theirs.view();
    step.source += name;
    step.turn = undone(turn_of(c_, name, shape));
    step.number = heads_of(c_, name);
    if (step.turn == Turn::transpose) step.shape = Shape{shape[1], shape[0]};
    if (many) {
      step.turn = Turn::part;
      step.number = i;
      step.shape = Shape{shape[1], shape[2]};
    }
    if (has(name, "ffn_gate_inp_shexp") && shape.rank() == 1) step.shape = Shape{1, shape[0]};
    if (auto kept = restore_type(step, name); !kept) return kept;
    if (auto kept = steps_.push(std::move(step)); !kept) return kept;
  }
  return {};
}

// The type that a tensor had before it became f32 for GGUF.
Status Planner::restore_type(Step& step, std::string_view name) const noexcept {
  const io::Gguf* told = origin_.metadata();
  if (!told || !told->metadata(k_source_types) || step.dtype != DType::f32 || is_block(step.stored)) return {};
  const auto lines = told->texts(k_source_types);
  if (!lines) return fail(lines.error());
  for (const std::string_view line : (*lines)->span()) {
    const std::size_t equals = line.rfind('=');
    if (equals == line.npos || std::string_view(line.data(), equals) != name) continue;
    const std::string_view type(line.data() + equals + 1, line.size() - equals - 1);
    for (const DType dtype : {DType::f16, DType::bf16}) {
      if (to_string(dtype) == type) step.dtype = dtype;
    }
  }
  return {};
}

Status Planner::to_hugging_face() noexcept {
  target_ = c_.architecture;
  if (target_->gguf == "llama" && c_.experts > 0) target_ = architecture_of_hugging_face("mixtral");
  return origin_.each(
      [&](std::string_view name, DType dtype, const Shape& shape) { return add_to_hugging_face(name, dtype, shape); });
}

Text shard_name(std::size_t index, std::size_t count) noexcept {
  const auto five = [](std::size_t n) {
    Text digits;
    for (std::size_t unit = 10000; unit > 0; unit /= 10) digits += static_cast<std::int64_t>(n / unit % 10);
    return digits;
  };
  Text name;
  return ((((name += "model-") += five(index + 1).view()) += "-of-") += five(count).view()) += ".safetensors";
}

Result<MappedFile> open_if_there(std::string_view path) noexcept {
  auto file = MappedFile::open(path);
  if (!file && file.error().code == Errc::not_found) return MappedFile();
  return file;
}

// --- names as they are ---

Status Planner::as_they_are() noexcept {
  by_file_ = true;
  return origin_.each([&](std::string_view name, DType dtype, const Shape& shape) -> Status {
    Step step{.dtype = dtype, .stored = dtype, .shape = shape};
    step.name += name;
    step.source += name;
    return steps_.push(std::move(step));
  });
}

}  // namespace qorus::llm
