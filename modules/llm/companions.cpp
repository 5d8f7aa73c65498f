// Bodies of Companions: the files beside the weights, or the metadata of a GGUF file.
module;
#include <cstdint>
module qorus.llm;
import qorus.std;
import :binder;

namespace qorus::llm {
namespace {

// Pieces that end an answer in the models that have them, whatever the metadata says.
constexpr std::string_view k_ends[] = {"<|eot_id|>",      "<|im_end|>",           "<|end|>",       "<end_of_turn>",
                                       "<|endoftext|>",   "<|eom_id|>",           "<|endofturn|>", "</s>",
                                       "<|end_of_text|>", "<｜end▁of▁sentence｜>"};

Status add(List<std::int32_t>& ends, std::int64_t id) noexcept {
  if (id < 0 || id > INT32_MAX) return {};
  const auto small = static_cast<std::int32_t>(id);
  if (std::find(ends.begin(), ends.end(), small) != ends.end()) return {};
  return ends.push(small);
}

// A file of JSON, and what it says.
struct JsonFile {
  MappedFile file;
  text::JsonTree tree;
  [[nodiscard]] Status open(std::string_view path) noexcept {
    auto mapped = MappedFile::open(path);
    if (!mapped) return fail(mapped.error());
    file = std::move(*mapped);
    auto parsed = tree.parse({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()});
    if (auto there = file.whole("open", path); !there) return there;
    return parsed ? parsed : Status(fail(parsed.error().about(path)));
  }
};

}  // namespace

Result<text::Tokenizer> Companions::tokenizer(std::string_view given, std::int64_t vocab) const noexcept {
  if (!given.empty()) return text::open(given);
  if (weights_.kind() == Weights::Kind::gguf) {
    auto made = text::from_gguf(weights_.gguf());
    const bool none = !made && (made.error().code == Errc::not_found ||
                                weights_.gguf().text("tokenizer.ggml.model", "").value_or("") == "no_vocab");
    return none ? Result<text::Tokenizer>(text::Tokenizer()) : std::move(made);
  }
  Text numbered;
  ((numbered += "tok") += vocab) += ".bin";  // as llama2.c's small models have it
  for (const std::string_view name : {std::string_view("tokenizer.json"), std::string_view("tokenizer.model"),
                                      std::string_view("tokenizer.bin"), numbered.view()}) {
    const FilePath path = path_in(weights_.folder(), name);
    if (is_file(path.view())) return text::open(path.view());
  }
  return text::Tokenizer();
}

Status Companions::ends(const text::Tokenizer& tokenizer, List<std::int32_t>& out) const noexcept {
  if (auto ok = add(out, tokenizer.eos()); !ok) return ok;
  for (const std::string_view piece : k_ends) {
    const std::int32_t id = tokenizer.id_of(piece);
    if (id < 0 || !tokenizer.is_control(id)) continue;
    if (auto ok = add(out, id); !ok) return ok;
  }
  if (weights_.kind() == Weights::Kind::gguf) {
    for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
      const auto id = weights_.gguf().u32(key, UINT32_MAX);
      if (!id) return fail(id.error());
      if (auto ok = add(out, *id == UINT32_MAX ? -1 : static_cast<std::int64_t>(*id)); !ok) return ok;
    }
  }
  if (weights_.kind() != Weights::Kind::safetensors) return {};
  for (const char* name : {"generation_config.json", "config.json"}) {
    const FilePath path = path_in(weights_.folder(), name);
    if (!is_file(path.view())) continue;
    JsonFile json;
    if (auto opened = json.open(path.view()); !opened) return opened;
    const text::JsonValue value = json.tree.root()["eos_token_id"];
    if (auto ok = add(out, value.integer(-1)); !ok) return ok;
    if (auto ok = value.each([&](const text::JsonValue& id) { return add(out, id.integer(-1)); }); !ok) return ok;
  }
  return {};
}

Status Companions::chat_template(List<char>& out) const noexcept {
  const auto take = [&](std::string_view text) { return out.append(std::span(text.data(), text.size())); };
  if (weights_.kind() == Weights::Kind::gguf) {
    const auto found = weights_.gguf().text("tokenizer.chat_template", "");
    return found ? take(*found) : Status(fail(found.error()));
  }
  const FilePath own = path_in(weights_.folder(), "chat_template.jinja"),
                 config = path_in(weights_.folder(), "tokenizer_config.json");
  if (is_file(own.view())) {
    auto file = MappedFile::open(own.view());
    if (!file) return fail(file.error());
    auto taken = take({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()});
    auto there = file->whole("open", own.view());
    return there ? taken : there;
  }
  if (weights_.kind() != Weights::Kind::safetensors || !is_file(config.view())) return {};
  JsonFile json;
  if (auto opened = json.open(config.view()); !opened) return opened;
  const text::JsonValue value = json.tree.root()["chat_template"];
  if (value.is(text::JsonType::string)) return take(value.string());
  return value.each([&](const text::JsonValue& named) {  // several: the one that is called default
    return named["name"].string() == "default" ? take(named["template"].string()) : Status{};
  });
}

Status Companions::sampling(GenerateOptions& out) const noexcept {
  const auto f32 = [](double x) { return static_cast<float>(x); };
  const auto count = [](std::int64_t x) { return static_cast<int>(std::clamp<std::int64_t>(x, 0, 1 << 20)); };
  if (weights_.kind() == Weights::Kind::gguf) {
    const io::Gguf& file = weights_.gguf();
    out.temperature = file.f32("general.sampling.temp", 0).value_or(0);
    out.top_p = file.f32("general.sampling.top_p", 1).value_or(1);
    out.min_p = file.f32("general.sampling.min_p", 0).value_or(0);
    out.repetition_penalty = file.f32("general.sampling.penalty_repeat", 1).value_or(1);
    out.top_k = count(file.u32("general.sampling.top_k", 0).value_or(0));
    return {};
  }
  const FilePath path = path_in(weights_.folder(), "generation_config.json");
  if (weights_.kind() != Weights::Kind::safetensors || !is_file(path.view())) return {};
  JsonFile json;
  if (auto opened = json.open(path.view()); !opened) return opened;
  const text::JsonValue root = json.tree.root();
  out.repetition_penalty = f32(root["repetition_penalty"].number(1));
  if (!root["do_sample"].flag(false)) return {};
  constexpr std::int64_t k_unsaid = 50;  // transformers takes the 50 likeliest where the file does not say
  out.temperature = f32(root["temperature"].number(1));
  out.top_k = count(root["top_k"].integer(k_unsaid));
  out.top_p = f32(root["top_p"].number(1));
  out.min_p = f32(root["min_p"].number(0));
  out.typical_p = f32(root["typical_p"].number(1));
  return {};
}

}  // namespace qorus::llm
