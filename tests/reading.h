// Every format by the name of its reader, for tests that hand bytes to all of them.
#pragma once
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

namespace qorus_test {

// How it went: "ok", or an error's code as it is printed, and the whole message. Nothing here is on the heap, which may be failing.
struct Outcome {
  const char* code = "ok";
  char message[400] = "";
  bool broken = false;  // valid by its reader, but not to be used as such
  [[nodiscard]] bool is(const char* wanted) const { return std::strcmp(code, wanted) == 0; }
  [[nodiscard]] bool says(const char* words) const { return std::strstr(message, words) != nullptr; }
};

template <class R>
Outcome outcome_of(const R& result) {
  Outcome outcome;
  if (result.has_value()) return outcome;
  outcome.code = to_string(result.error().code).data();
  const auto message = result.error().message();
  std::memcpy(outcome.message, message.c_str(), message.size + 1);
  return outcome;
}

// Reads the file (for "folder", the folder), and uses what was read: all of its tensors, a token fed, a text encoded and decoded, a
// conversation rendered. Readers: gguf qorus model folder safetensors checkpoint npy npz idx csv jsonl text tokenizer.json sentencepiece
// tokenizer.bin tiktoken chat layers, and those of read_more: adapter peft peft-gpt2
// importance samples corpus mnist labelled tokenizer vocabulary vocabulary-refused mapped-npy.
Outcome read_as(const std::string& reader, const std::string& path);
bool read_more(const std::string& reader, const std::string& path, Outcome& outcome);  // whether it is one of those

// A file of tests/hostile/make.py.
struct MadeFile {
  std::string name, reader, code, message, path;
};
// Those that it makes in a folder; with `valid`, small valid ones. Empty where there is no Python.
std::vector<MadeFile> make_files(const std::string& folder, bool valid);
// All of them that are small: without those at a cap.
std::vector<MadeFile> make_small_files(const std::string& folder);

}  // namespace qorus_test
