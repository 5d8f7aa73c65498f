// Any text as the index of a folder's shards: an error, or a model.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

import qorus.llm;

using namespace qorus;

namespace {

// A folder with a configuration, one empty shard, and the index, which is a file in memory.
struct Folder {
  std::string path;
  int index = ::memfd_create("index", MFD_CLOEXEC);
  Folder() {
    char name[] = "/tmp/qorus-fuzz-XXXXXX";
    if (!::mkdtemp(name)) __builtin_trap();
    path = name;
    std::ofstream(path + "/config.json")
        << R"({"model_type":"llama","hidden_size":4,"intermediate_size":4,"num_hidden_layers":1,"num_attention_heads":2,"max_position_embeddings":8})";
    const char header[] = "\2\0\0\0\0\0\0\0{}";
    std::ofstream(path + "/one.safetensors", std::ios::binary).write(header, 10);
    if (::symlink(("/proc/self/fd/" + std::to_string(index)).c_str(),
                  (path + "/model.safetensors.index.json").c_str()) != 0)
      __builtin_trap();
  }
  ~Folder() {
    for (const char* name : {"config.json", "one.safetensors", "model.safetensors.index.json"})
      ::unlink((path + "/" + name).c_str());
    ::rmdir(path.c_str());
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Folder folder;
  if (::ftruncate(folder.index, 0) != 0 || ::pwrite(folder.index, data, size, 0) != static_cast<ssize_t>(size))
    return 0;
  (void)llm::open(folder.path);
  return 0;
}
