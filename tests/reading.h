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

// Reads the file (for "folder", the folder), and uses what was read: all of its tensors, a token fed, a text encoded and decoded, a
// conversation rendered. Readers: gguf qorus model folder safetensors checkpoint npy npz idx csv jsonl text tokenizer.json sentencepiece
// tokenizer.bin tiktoken chat layers.
Outcome read_as(const std::string& reader, const std::string& path);

// A file of tests/hostile/make.py.
struct MadeFile {
  std::string name, reader, code, message, path;
};
// Those that it makes in a folder; with `valid`, small valid ones. Empty where there is no Python.
std::vector<MadeFile> make_files(const std::string& folder, bool valid);

}  // namespace qorus_test
