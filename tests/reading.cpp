// Bodies of reading.h.
#include "tests/reading.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

import qorus.nn;
import qorus.data;
import qorus.formats;
import qorus.llm;

using namespace qorus;

namespace qorus_test {
namespace {

Outcome use(const Result<llm::Model>& model) {
  Outcome outcome = outcome_of(model);
  if (!model) return outcome;
  auto session = llm::Session::create(*model, {.context = 4, .batch = 2, .threads = 1});
  if (!session) return outcome;
  const std::int32_t ids[] = {0, 1};
  const auto logits = session->feed(ids);
  outcome.broken = logits && logits->size() != static_cast<std::size_t>(model->config().vocab);
  return outcome;
}

Outcome use(const Result<text::Tokenizer>& tokenizer) {
  Outcome outcome = outcome_of(tokenizer);
  if (!tokenizer) return outcome;
  const auto ids = tokenizer->encode("ab a <s> A\xe2\x82\xac \xff", {.special = true});
  if (!ids) return outcome;
  for (const std::int32_t id : ids->span())
    outcome.broken = outcome.broken || id < 0 || static_cast<std::size_t>(id) >= tokenizer->size();
  outcome.broken = outcome.broken || !tokenizer->decode(ids->span());
  return outcome;
}

template <class File>
Outcome use_tensors(const Result<File>& file) {
  Outcome outcome = outcome_of(file);
  if (!file) return outcome;
  unsigned sum = 0;
  for (const auto& entry : file->entries().span()) {
    outcome.broken = outcome.broken || file->find(entry.name) != &entry;
    if (const auto view = file->tensor(entry.name)) {
      for (std::size_t i = 0; i < entry.bytes; ++i) sum += static_cast<unsigned>(view->data()[i]);
    }
  }
  outcome.broken = outcome.broken || sum == 1u << 31;  // so that the bytes are read
  return outcome;
}

Outcome use(const Result<io::Gguf>& file) {
  Outcome outcome = use_tensors(file);
  if (!file) return outcome;
  for (const auto& line : file->metadata().span()) {
    outcome.broken = outcome.broken || line.preview().size == 0;
    (void)file->i64(line.key);
    if (line.count > 1 << 20) continue;  // these make copies four times as long
    (void)file->reals(line.key);
    (void)file->integers(line.key);
  }
  return outcome;
}

Outcome use(const Result<data::Table>& table) {
  Outcome outcome = outcome_of(table);
  if (!table) return outcome;
  for (const data::Column& column : table->columns().span()) {
    const bool codes = column.kind == data::ColumnKind::category;
    outcome.broken = outcome.broken || (column.kind != data::ColumnKind::text &&
                                        (codes ? column.codes.size() : column.numbers.size()) != table->rows());
  }
  return outcome;
}

Outcome use(const Result<io::Npz>& archive) {
  if (!archive) return outcome_of(archive);
  for (std::size_t i = 0; i < archive->size(); ++i) {
    if (auto array = archive->read(archive->name(i)); !array) return outcome_of(array);
  }
  return {};
}

Outcome use(const Result<text::ChatTemplate>& chat) {
  if (!chat) return outcome_of(chat);
  const text::ChatMessage talk[] = {{"system", "Be brief."}, {"user", "Hi <there> \xc3\xa9\xff"}, {"assistant", ""}};
  return outcome_of(chat->render(talk, {.bos = "<s>", .eos = "</s>", .now = 0, .steps = 300'000, .memory = 4_MiB}));
}

}  // namespace

Outcome read_as(const std::string& reader, const std::string& path) {
  if (reader == "gguf") return use(io::read_gguf(path));
  if (reader == "model" || reader == "folder") return use(llm::open(path));
  if (reader == "qorus") {
    const auto native = formats::read_native(path);
    if (!native) return outcome_of(native);
    Outcome outcome = outcome_of(formats::verify_native(path));
    outcome.broken = native->find_laid_out("a") || native->find_laid_out("zz");
    return outcome;
  }
  if (reader == "safetensors") return use_tensors(io::read_safetensors(path));
  if (reader == "checkpoint") return use_tensors(io::read_sealed(path));
  if (reader == "npy") return outcome_of(io::read_npy(path));
  if (reader == "npz") return use(io::Npz::open(path));
  if (reader == "idx") return outcome_of(data::read_idx(path));
  if (reader == "csv") return use(data::Table::read(path));
  if (reader == "jsonl") return use(data::Table::read_json_lines(path));
  if (reader == "text") return outcome_of(data::read_text(path));
  if (Outcome outcome; read_more(reader, path, outcome)) return outcome;
  const auto file = MappedFile::open(path);
  if (!file) return outcome_of(file);
  const auto bytes = file->bytes();
  const std::string_view content(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (reader == "tokenizer.json") return use(text::from_json(content));
  if (reader == "sentencepiece") return use(text::from_sentencepiece(bytes));
  if (reader == "tokenizer.bin") return use(text::from_llama2c(bytes));
  if (reader == "tiktoken") return use(text::from_tiktoken(content, "llama-bpe"));
  if (reader == "chat") return use(text::ChatTemplate::parse(content));
  if (reader == "layers") return outcome_of(nn::from_json(content));
  return {.code = "no such reader", .broken = true};
}

namespace {
std::vector<MadeFile> make(const std::string& folder, const char* which) {
  std::vector<MadeFile> made;
  const std::string command = std::string("python3 -B ") + QORUS_HOSTILE + "/make.py " + folder + which;
  if (std::system(command.c_str()) != 0) return made;
  std::ifstream table(folder + "/table");
  for (std::string line; std::getline(table, line);) {
    std::istringstream parts(line);
    MadeFile file;
    for (std::string* part : {&file.name, &file.reader, &file.code, &file.message}) std::getline(parts, *part, '\t');
    file.path = folder + "/" + std::to_string(made.size());
    made.push_back(file);
  }
  return made;
}
}  // namespace

std::vector<MadeFile> make_files(const std::string& folder, bool valid) { return make(folder, valid ? " valid" : ""); }
std::vector<MadeFile> make_small_files(const std::string& folder) { return make(folder, " small"); }

}  // namespace qorus_test
