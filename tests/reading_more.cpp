// More readers by name: what fine-tuning reads, and the doors that tell formats apart by their content.
#include <string>
#include <string_view>

#include "tests/reading.h"

import qorus.data;
import qorus.formats;
import qorus.llm;
import qorus.tune;

using namespace qorus;

namespace qorus_test {
namespace {

// The numbers of tests/hostile's llama, as a GGUF file or a folder of Hugging Face has it.
llm::Config small_llama(ops::RopePairs pairs) {
  llm::Config config;
  config.architecture = llm::architecture_of_gguf("llama");
  config.layers = 1;
  config.d_model = 4;
  config.heads = 2;
  config.head_dim = 2;
  config.pairs = pairs;
  return config;
}

// A folder with model.gguf, what is to be learnt in data, and in jinja how conversations are spelled.
Outcome read_samples(std::string_view folder) {
  const auto in = [&](const char* name) {
    Text path;
    return (path += folder) += name;
  };
  const auto model = llm::open(in("/model.gguf").view());
  if (!model) return outcome_of(model);
  const auto file = MappedFile::open(in("/jinja").view());
  if (!file && file.error().code != Errc::not_found) return outcome_of(file);
  std::string_view jinja;
  if (file) jinja = {reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()};
  List<tune::Sample> samples;
  const bool plain = MappedFile::open(in("/plain").view()).has_value();
  return outcome_of(
      tune::read_samples(in("/data").view(), *model, {.context = 8, .jinja = jinja, .plain = plain}, samples));
}

}  // namespace

bool read_more(const std::string& reader, const std::string& path, Outcome& outcome) {
  if (reader == "adapter") {
    outcome = outcome_of(llm::read_adapter(path, small_llama(ops::RopePairs::halves)));
  } else if (reader == "peft") {
    outcome = outcome_of(llm::read_adapter(path, small_llama(ops::RopePairs::interleaved)));
  } else if (reader == "importance") {
    const auto importance = formats::Importance::open(path);
    outcome = outcome_of(importance);
    if (importance) outcome.broken = !importance->find("a").empty() || !importance->find("z").empty();
  } else if (reader == "samples") {
    outcome = read_samples(path);
  } else if (reader == "corpus") {
    outcome = outcome_of(tune::Corpus::open(path));
  } else if (reader == "mnist") {
    outcome = outcome_of(data::mnist(path));
  } else if (reader == "tokenizer") {
    outcome = outcome_of(text::open(path));
  } else if (reader == "vocabulary") {
    outcome =
        outcome_of(text::read_vocabulary(path, {nullptr, [](void*, const text::VocabularySpec&) { return Status(); }}));
  } else if (reader == "peft-gpt2") {
    llm::Config config = small_llama(ops::RopePairs::halves);
    config.architecture = llm::architecture_of_gguf("gpt2");
    outcome = outcome_of(llm::read_adapter(path, config));
  } else if (reader == "labelled") {
    Text images, labels;
    (images += path) += "/images";
    (labels += path) += "/labels";
    outcome = outcome_of(data::idx(images.view(), labels.view()));
  } else if (reader == "vocabulary-refused") {
    outcome = outcome_of(text::read_vocabulary(
        path, {nullptr, [](void*, const text::VocabularySpec&) -> Status { return fail(Errc::unsupported, "", ""); }}));
  } else if (reader == "mapped-npy") {
    outcome = outcome_of(io::MappedNpy::open(path));
  } else {
    return false;
  }
  return true;
}

}  // namespace qorus_test
