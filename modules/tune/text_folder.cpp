// Bodies of qorus.tune:text_folder.
module;
#include <dirent.h>
#include <sys/stat.h>

#include <cerrno>
module qorus.tune;
import qorus.std;
import :text_folder;

namespace qorus::tune {
namespace {

constexpr const char* k_op = "text_folder";

bool before(const Text& a, const Text& b) noexcept { return a.view() < b.view(); }

Result<Text> path_in(std::string_view folder, std::string_view name) noexcept {
  Text path;
  if (folder.empty() || folder.size() + name.size() + 1 >= path.bytes.size())
    return fail(Errc::unsupported, k_op, "a path of 1 to 399 bytes is needed", folder);
  ((path += folder) += "/") += name;
  return path;
}

// The names in a folder that are folders (or files), sorted.
Result<List<Text>> names_in(std::string_view folder, bool folders) noexcept {
  auto path = path_in(folder, {});
  if (!path) return fail(path.error());
  DIR* opened = ::opendir(path->c_str());
  if (!opened) return fail_system(errno, k_op, "cannot read this folder", folder);
  List<Text> names;
  Status status;
  while (const dirent* entry = status ? ::readdir(opened) : nullptr) {
    const std::string_view name(entry->d_name);
    if (name.starts_with('.')) continue;
    auto full = path_in(folder, name);
    struct stat facts{};
    if (full && ::stat(full->c_str(), &facts) != 0) continue;  // gone
    Text kept;
    kept += name;
    if (!full) {
      status = fail(full.error());
    } else if (S_ISDIR(facts.st_mode) && !folders) {
      status = fail(Errc::unsupported, k_op, "a folder within a class", full->view());
    } else if (folders ? S_ISDIR(facts.st_mode) : S_ISREG(facts.st_mode)) {
      status = names.push(kept);
    }
  }
  ::closedir(opened);
  if (!status) return fail(status.error());
  std::sort(names.begin(), names.end(), before);
  return names;
}

// A text and its class.
struct File {
  Text path;
  std::int32_t label;
};

Status read_bytes(const Text& path, std::span<std::int32_t> ids) noexcept {
  auto file = MappedFile::open(path.view());
  if (!file) return fail(file.error());
  const auto bytes = file->bytes();
  const std::size_t count = std::min(bytes.size(), ids.size());
  for (std::size_t i = 0; i < count; ++i) ids[i] = std::to_integer<std::int32_t>(bytes[i]) + 1;
  return file->whole(k_op, path.view());
}

}  // namespace

Result<LabelledTexts> text_folder(std::string_view path, const TextFolderOptions& options) noexcept {
  if (options.length < 1) return fail(Errc::invalid_size, k_op, "the length must be at least 1", path);
  auto classes = names_in(path, true);
  if (!classes) return fail(classes.error());
  if (classes->empty()) return fail(Errc::invalid_size, k_op, "no folders, and so no classes", path);
  List<File> files;
  for (std::size_t label = 0; label < classes->size(); ++label) {
    auto folder = path_in(path, std::as_const(*classes)[label].view());
    if (!folder) return fail(folder.error());
    auto names = names_in(folder->view(), false);
    if (!names) return fail(names.error());
    if (names->empty()) return fail(Errc::invalid_size, k_op, "a class without a text", folder->view());
    const List<Text>& sorted = *names;
    for (const Text& name : sorted) {
      auto full = path_in(folder->view(), name.view());
      if (!full) return fail(full.error());
      if (auto kept = files.push({*full, static_cast<std::int32_t>(label)}); !kept) return fail(kept.error());
    }
  }
  const auto count = static_cast<std::int64_t>(files.size());
  auto inputs = Owned::zeros(Shape{count, options.length}, DType::i32);
  if (!inputs) return fail(inputs.error());
  auto targets = Owned::zeros(Shape{count}, DType::i32);
  if (!targets) return fail(targets.error());
  const std::span<std::int32_t> ids = inputs->fill<std::int32_t>(), labels = targets->fill<std::int32_t>();
  const auto length = static_cast<std::size_t>(options.length);
  for (std::size_t i = 0; i < files.size(); ++i) {
    const File& file = std::as_const(files)[i];
    labels[i] = file.label;
    if (auto read = read_bytes(file.path, ids.subspan(i * length, length)); !read) return fail(read.error());
  }
  auto made =
      data::Dataset::create(std::move(*inputs), std::move(*targets), {.classes = static_cast<int>(classes->size())});
  if (!made) return fail(made.error());
  return LabelledTexts{std::move(*made), std::move(*classes)};
}

}  // namespace qorus::tune
