#include <sys/resource.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "tensors.h"

using namespace qorus;

void show_progress(std::string_view tensor, std::size_t done, std::size_t tensors) {
  std::fprintf(stderr, "\r%zu of %zu: %.*s\x1b[K%s", done, tensors, static_cast<int>(tensor.size()), tensor.data(),
               done == tensors ? "\r\x1b[K" : "");
  std::fflush(stderr);
}

double peak_megabytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

Status Tensors::add(const std::string& path) {
  auto file = io::read_safetensors(path);
  if (!file) return fail(file.error());
  for (const io::TensorEntry& entry : file->entries())
    lines_.push_back({std::string(entry.name), std::string(entry.type), entry.shape, entry.bytes});
  shards_.push_back(std::move(*file));
  return {};
}

Result<Tensors> Tensors::open(const std::string& path) {
  Tensors made;
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    std::vector<std::string> files;
    for (std::filesystem::directory_iterator at(path, error), end; !error && at != end; at.increment(error)) {
      if (at->path().extension() == ".safetensors") files.push_back(at->path().string());
    }
    if (files.empty()) return fail(Errc::not_found, "open", "a folder without safetensors", path);
    std::sort(files.begin(), files.end());
    made.format_ = "safetensors";
    for (const std::string& file : files) {
      if (auto done = made.add(file); !done) return fail(done.error());
    }
    return made;
  }
  const auto bytes = MappedFile::open(path);
  if (!bytes) return fail(bytes.error());
  const std::string_view start(reinterpret_cast<const char*>(bytes->bytes().data()),
                               std::min<std::size_t>(4, bytes->bytes().size()));
  if (start == "PK\x03\x04") {
    made.format_ = "npz";
    auto file = io::Npz::open(path);
    if (!file) return fail(file.error());
    for (std::size_t i = 0; i < file->size(); ++i) {
      auto array = file->read(file->name(i));
      if (!array) return fail(array.error());
      const Tensor tensor = array->tensor();
      made.lines_.push_back({std::string(file->name(i)), std::string(to_string(tensor.dtype())), tensor.shape(),
                             row_bytes(tensor.dtype(), tensor.numel())});
    }
    made.npz_ = std::move(*file);
  } else if (start == "GGUF" || formats::is_native(bytes->bytes())) {
    made.format_ = start == "GGUF" ? "gguf" : "qorus";
    formats::Native native;
    if (start == "GGUF") {
      auto file = io::read_gguf(path);
      if (!file) return fail(file.error());
      native.gguf = std::move(*file);
    } else {
      auto file = formats::read_native(path);
      if (!file) return fail(file.error());
      native = std::move(*file);
    }
    for (const io::TensorEntry& entry : native.gguf.entries())
      made.lines_.push_back({std::string(entry.name), std::string(entry.type), entry.shape, entry.bytes});
    made.native_ = std::move(native);
  } else {
    made.format_ = "safetensors";
    if (auto done = made.add(path); !done) return fail(done.error());
  }
  return made;
}

const Tensors::Line* Tensors::find(std::string_view name) const {
  const auto found = std::find_if(lines_.begin(), lines_.end(), [&](const Line& line) { return line.name == name; });
  return found == lines_.end() ? nullptr : &*found;
}

Result<Tensor> Tensors::tensor(const std::string& name) {
  if (native_) return native_->gguf.tensor(name);
  if (npz_) {
    auto array = npz_->read(name);
    if (!array) return fail(array.error());
    array_ = std::move(*array);
    return array_.tensor();
  }
  for (const io::SafeTensors& shard : shards_) {
    if (!shard.find(name)) continue;
    auto view = shard.tensor(name);
    if (view || view.error().code != Errc::misaligned) return view;
    auto copy = shard.copy(name);
    if (!copy) return fail(copy.error());
    array_ = std::move(*copy);
    return array_.tensor();
  }
  return fail(Errc::not_found, "open", "no tensor of this name", name);
}

const io::Gguf* Tensors::gguf() const { return native_ ? &native_->gguf : nullptr; }
