// Bodies of qorus.llm:weights.
module;
#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
module qorus.llm;
import qorus.std;
import qorus.trust;

namespace qorus::llm {

FilePath path_in(std::string_view folder, std::string_view name) noexcept {
  FilePath path;
  if (folder.size() + name.size() + 2 > path.bytes.size()) return path;
  const auto put = [&](std::string_view text) {
    std::copy(text.begin(), text.end(), path.bytes.begin() + path.size);
    path.size += text.size();
  };
  put(folder);
  if (!folder.empty() && folder.back() != '/') put("/");
  put(name);
  return path;
}

// A file that is there and cannot be read is one, too: opening it will say why.
bool is_file(std::string_view path) noexcept {
  if (path.empty()) return false;
  const auto file = MappedFile::open(path);
  if (file || file.error().code == Errc::out_of_memory) return true;
  return file.error().system != 0 && file.error().system != ENOENT && file.error().system != ENOTDIR;
}

Result<Llama2c> Llama2c::open(std::string_view path) noexcept {
  constexpr std::size_t k_header = 7 * sizeof(std::int32_t);
  auto file = MappedFile::open(path);
  if (!file) return fail(file.error());
  const auto bytes = file->bytes();
  std::array<std::int32_t, 7> numbers{};
  if (bytes.size() < k_header) return fail(Errc::corrupt, "open", "not a model: neither GGUF nor another format", path);
  std::memcpy(numbers.data(), bytes.data(), k_header);
  if (numbers[0] == 0x616b3432)  // "ak42"
    return fail(Errc::unsupported, "open", "of llama2.c's checkpoints only version 0", path);
  Llama2c made;
  std::int64_t* const to[] = {&made.d_model_,  &made.d_ff_,  &made.layers_, &made.heads_,
                              &made.kv_heads_, &made.vocab_, &made.context_};
  for (std::size_t i = 0; i < 7; ++i) *to[i] = numbers[i];
  made.tied_ = made.vocab_ > 0;
  made.vocab_ = made.tied_ ? made.vocab_ : -made.vocab_;
  bool good = std::all_of(std::begin(to), std::end(to), [](const std::int64_t* n) { return *n > 0 && *n < (1 << 28); });
  good = good && made.d_model_ % made.heads_ == 0 && made.heads_ % made.kv_heads_ == 0;
  if (good) {
    const auto wanted = (made.floats_wanted() * sizeof(float) + k_header).get("open");
    good = wanted && *wanted == bytes.size();
  }
  if (auto there = file->whole("open", path); !there) return fail(there.error());
  if (!good) return fail(Errc::corrupt, "open", "not a model: neither GGUF nor another format", path);
  made.file_ = std::move(*file);
  return made;
}

Result<Config> Llama2c::config() const noexcept {
  Config c;
  c.architecture = architecture_of_gguf("llama");
  c.layers = layers_;
  c.d_model = d_model_;
  c.heads = heads_;
  c.kv_heads = kv_heads_;
  c.head_dim = d_model_ / heads_;
  c.d_ff = d_ff_;
  c.vocab = vocab_;
  c.context = context_;
  c.pairs = ops::RopePairs::interleaved;
  c.rope.dim = c.local_rope.dim = c.head_dim;
  return c;
}

namespace {

struct Section {
  std::string_view name;  // after "blk.N." if it is one of many
  bool each;              // one for each layer
  std::int64_t rows, cols;
};

// In the order of the file. Two tables for the angles of positions follow the last norm; they are not read.
std::array<Section, 12> sections_of(std::int64_t d, std::int64_t ff, std::int64_t kv, std::int64_t vocab) noexcept {
  return {{{"token_embd.weight", false, vocab, d},
           {"attn_norm.weight", true, d, 0},
           {"attn_q.weight", true, d, d},
           {"attn_k.weight", true, kv, d},
           {"attn_v.weight", true, kv, d},
           {"attn_output.weight", true, d, d},
           {"ffn_norm.weight", true, d, 0},
           {"ffn_gate.weight", true, ff, d},
           {"ffn_down.weight", true, d, ff},
           {"ffn_up.weight", true, ff, d},
           {"output_norm.weight", false, d, 0},
           {"output.weight", false, vocab, d}}};
}

}  // namespace

Checked Llama2c::floats_wanted() const noexcept {
  const auto size = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  Checked floats = Checked(size(context_)) * size(d_model_ / heads_ / 2) * 2;
  for (const Section& s : sections_of(d_model_, d_ff_, d_model_ / heads_ * kv_heads_, vocab_)) {
    if (s.name == "output.weight" && tied_) continue;
    floats = floats + Checked(size(s.rows)) * size(std::max<std::int64_t>(s.cols, 1)) * size(s.each ? layers_ : 1);
  }
  return floats;
}

Result<Tensor> Llama2c::tensor(std::string_view name) const noexcept {
  std::int64_t layer = 0;
  std::string_view part = name;
  if (part.starts_with("blk.")) {
    std::uint64_t number = UINT64_MAX;
    const char *const digits = part.data() + 4, *const end = part.data() + part.size();
    const char* const after = std::from_chars(digits, end, number).ptr;
    layer = static_cast<std::int64_t>(std::min(number, static_cast<std::uint64_t>(layers_)));
    part.remove_prefix(std::min(static_cast<std::size_t>(after - part.data()) + 1, part.size()));
  }
  std::int64_t offset = 7;
  for (const Section& s : sections_of(d_model_, d_ff_, d_model_ / heads_ * kv_heads_, vocab_)) {
    if (s.name == "output.weight") {
      if (tied_) break;
      offset += context_ * (d_model_ / heads_ / 2) * 2;
    }
    const std::int64_t one = s.rows * std::max<std::int64_t>(s.cols, 1);
    if (s.name == part && layer < layers_) {
      const Shape shape = s.cols ? Shape{s.rows, s.cols} : Shape{s.rows};
      return Tensor(file_.bytes().data() + (offset + (s.each ? layer * one : 0)) * 4, DType::f32, Layout::dense(shape),
                    file_.lifetime());
    }
    offset += s.each ? layers_ * one : one;
  }
  return fail(Errc::not_found, "open", "the checkpoint has no such tensor", name);
}

Result<Weights> Weights::open(std::string_view path) noexcept {
  Weights made;
  const std::size_t slash = path.rfind('/'), begin = slash + 1;  // of the name; 0 if there is no slash
  const std::string_view parent(path.data(), slash == path.npos ? 0 : std::max<std::size_t>(slash, 1));
  const FilePath inside = path_in(path, "config.json");
  if (is_file(inside.view())) {
    if (auto kept = made.folder_.append(std::span(path.data(), path.size())); !kept) return fail(kept.error());
    if (auto done = made.open_folder({}); !done) return fail(done.error());
    return made;
  }
  if (auto kept = made.folder_.append(std::span(parent.data(), parent.size())); !kept) return fail(kept.error());
  auto file = MappedFile::open(path);
  if (!file) return fail(file.error());
  const std::string_view content(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  if (content.starts_with("GGUF")) {
    auto gguf = io::read_gguf(path);
    if (!gguf) return fail(gguf.error());
    made.native_.gguf = std::move(*gguf);
    return made;
  }
  if (formats::is_native(file->bytes())) {
    auto native = formats::read_native(path);
    if (!native) return fail(native.error());
    made.native_ = std::move(*native);
    return made;
  }
  if (path.ends_with(".safetensors") || path.ends_with(".safetensors.index.json")) {
    const std::string_view name(path.data() + begin, path.size() - begin);
    if (auto done = made.open_folder(name); !done) return fail(done.error());
    return made;
  }
  auto checkpoint = Llama2c::open(path);
  if (!checkpoint) return fail(checkpoint.error());
  made.kind_ = Kind::llama2c;
  made.llama2c_ = std::move(*checkpoint);
  return made;
}

Status Weights::open_folder(std::string_view file) noexcept {
  kind_ = Kind::safetensors;
  auto config = MappedFile::open(path_in(folder(), "config.json").view());
  if (!config) return fail(config.error());
  config_file_ = std::move(*config);
  constexpr std::string_view index = "model.safetensors.index.json", single = "model.safetensors";
  if (file.empty()) file = is_file(path_in(folder(), single).view()) ? single : index;
  if (auto done = file.ends_with(".json") ? open_shards(file) : open_shard(file); !done) return done;
  auto c = this->config();
  if (!c) return fail(c.error());
  architecture_ = c->architecture;
  const Text embedding = hugging_face_name(*architecture_, "token_embd.weight");
  for (const std::string_view prefix : {"", "transformer.", "language_model."}) {
    Text full;
    (full += prefix) += embedding.view();
    for (const io::SafeTensors& shard : shards_.span()) {
      if (!shard.find(full.view())) continue;
      prefix_ = prefix;
      return {};
    }
  }
  return fail(Errc::not_found, "open", "the files have no embedding", embedding.view());
}

Status Weights::open_shard(std::string_view name) noexcept {
  auto shard = io::read_safetensors(path_in(folder(), name).view());
  if (!shard) return fail(shard.error());
  return shards_.push(std::move(*shard));
}

Status Weights::open_shards(std::string_view index) noexcept {
  const FilePath path = path_in(folder(), index);
  auto file = MappedFile::open(path.view());
  if (!file) return fail(file.error());
  text::JsonTree tree;
  if (auto parsed = tree.parse({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()}); !parsed)
    return fail(parsed.error().about(path.view()));
  List<std::string_view> opened;
  auto done = tree.root()["weight_map"].each_member([&](std::string_view, const text::JsonValue& value) -> Status {
    const std::string_view name = value.string();
    if (std::find(opened.begin(), opened.end(), name) != opened.end()) return {};
    if (name.empty() || name.find('/') != name.npos)
      return fail(Errc::corrupt, "open", "the index names something that is no file of its folder", path.view());
    if (opened.size() == limits::model_shards)
      return fail(Errc::corrupt, "open", "the index names more than 4096 files", path.view());
    if (auto kept = opened.push(name); !kept) return kept;
    return open_shard(name);
  });
  if (auto there = file->whole("open", path.view()); !there) return there;
  if (done && opened.empty()) return fail(Errc::corrupt, "open", "the index names no files", path.view());
  return done;
}

Result<Config> Weights::config() const noexcept {
  if (kind_ == Kind::gguf) return read_config(native_.gguf);
  if (kind_ == Kind::llama2c) return llama2c_.config();
  text::JsonTree tree;
  const auto bytes = config_file_.bytes();
  const FilePath path = path_in(folder(), "config.json");
  if (auto parsed = tree.parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}); !parsed)
    return fail(parsed.error().about(path.view()));
  return read_config(tree.root());
}

Status Llama2c::whole() const noexcept { return file_.whole("open", {}); }

Status Weights::whole() const noexcept {
  auto there = kind_ == Kind::gguf ? native_.gguf.whole() : kind_ == Kind::llama2c ? llama2c_.whole() : Status();
  if (there && kind_ == Kind::safetensors) there = config_file_.whole("open", folder());
  for (const io::SafeTensors& shard : shards_.span()) {
    if (there) there = shard.whole();
  }
  return there;
}

const io::SafeTensors* Weights::shard_with(std::string_view name) const noexcept {
  const auto* found =
      std::find_if(shards_.begin(), shards_.end(), [&](const io::SafeTensors& shard) { return shard.find(name); });
  return found == shards_.end() ? nullptr : found;
}

Result<Tensor> Weights::tensor(std::string_view name) const noexcept {
  if (kind_ == Kind::llama2c) return llama2c_.tensor(name);
  const Text theirs = name_in_file(name);
  if (theirs.size == 0) return fail(Errc::not_found, "open", "such models have no such tensor", name);
  if (kind_ == Kind::gguf) return native_.gguf.tensor(theirs.view());
  if (const io::SafeTensors* shard = shard_with(theirs.view())) return shard->tensor(theirs.view());
  return fail(Errc::not_found, "open", "no file has such a tensor", theirs.view());
}

Result<Owned> Weights::copy(std::string_view name) const noexcept {
  const Text theirs = name_in_file(name);
  if (const io::SafeTensors* shard = shard_with(theirs.view())) return shard->copy(theirs.view());
  return fail(Errc::not_found, "open", "no file has such a tensor", name);
}

const formats::LaidOut* Weights::laid_out(std::string_view name) const noexcept {
  return native_.laid_out.empty() ? nullptr : native_.find_laid_out(name_in_file(name).view());
}

namespace {

// The part of a mapped file from the first byte of its tensors to the last.
class Extent {
 public:
  void take(const Tensor& tensor) noexcept {
    const auto begin = reinterpret_cast<std::uintptr_t>(tensor.data());
    first_ = std::min(first_, begin);
    last_ = std::max(last_, begin + row_bytes(tensor.dtype(), tensor.numel()));
  }
  template <class File>
  void take_all(const File& file) noexcept {
    for (const io::TensorEntry& entry : file.entries()) {
      if (const auto tensor = file.tensor(entry.name)) take(*tensor);
    }
  }
  // A page fault in sixteen pages and a translation for each page: 600 MB take 10 ms of two processors, and are read a third more slowly.
  void prefer_huge_pages() const noexcept {
    constexpr std::uintptr_t k_page = 4096, k_huge = std::uintptr_t{2} << 20;
    const std::uintptr_t begin = first_ / k_page * k_page;
    if (last_ - first_ >= k_huge)  // of no tensors it wraps round to 1
      ::madvise(reinterpret_cast<void*>(begin), last_ - begin,
                MADV_HUGEPAGE);  // a system that refuses it is no failure
  }

 private:
  std::uintptr_t first_ = UINTPTR_MAX, last_ = 0;
};

}  // namespace

void Weights::expect_reading() const noexcept {
  if (kind_ == Kind::gguf) {
    Extent file;
    file.take_all(native_.gguf);
    for (const formats::LaidOut& matrix : native_.laid_out.span()) file.take(matrix.bytes);
    file.prefer_huge_pages();
  }
  for (const io::SafeTensors& shard : shards_.span()) {
    Extent file;
    file.take_all(shard);
    file.prefer_huge_pages();
  }
}

std::size_t Weights::bytes() const noexcept {
  std::size_t sum = 0;
  const auto add = [&](const auto& file) {
    for (const io::TensorEntry& entry : file.entries()) {
      std::size_t laid_out = 0;
      if (const auto tensor = file.tensor(entry.name); tensor && tensor->rank() > 1 && tensor->dim(-1) > 0) {
        const std::int64_t columns = tensor->dim(-1), all = static_cast<std::int64_t>(tensor->numel());
        laid_out = ops::packed_bytes(tensor->dtype(), Shape{all / columns, columns});
      }
      sum += std::max(entry.bytes, laid_out);
    }
  };
  add(native_.gguf);
  for (const io::SafeTensors& shard : shards_.span()) add(shard);
  return sum;
}

bool Weights::has(std::string_view name) const noexcept {
  if (kind_ == Kind::llama2c) return llama2c_.tensor(name).has_value();
  const Text theirs = name_in_file(name);
  return kind_ == Kind::gguf ? native_.gguf.find(theirs.view()) != nullptr : shard_with(theirs.view()) != nullptr;
}

// GGUF: ours, but for shared experts: "blk.3.shared.ffn_up.weight" is "blk.3.ffn_up_shexp.weight".
Text Weights::name_in_file(std::string_view name) const noexcept {
  Text full;
  if (kind_ == Kind::safetensors) {
    const Text theirs = hugging_face_name(*architecture_, name);
    if (theirs.size == 0) return full;
    if (!name.starts_with("output.") || prefix_.starts_with("language")) full += prefix_;
    return full += theirs.view();
  }
  const std::size_t shared = name.find("shared."), dot = name.rfind('.');
  if (shared == name.npos) return full += name;
  full += std::string_view(name.data(), shared);
  full += std::string_view(name.data() + shared + 7, dot - shared - 7);
  full += "_shexp";
  return full += std::string_view(name.data() + dot, name.size() - dot);
}

}  // namespace qorus::llm
