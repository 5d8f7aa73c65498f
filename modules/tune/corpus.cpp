// Bodies of qorus.tune:corpus.
module;
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
module qorus.tune;
import qorus.std;
import :corpus;

namespace qorus::tune {
namespace {

constexpr const char* k_op = "corpus";
constexpr int k_deepest = 64;
constexpr std::size_t k_piece = 16 << 20;  // bytes of text that are encoded at once

using Path = List<char>;
std::string_view view_of(const Path& path) noexcept { return {path.data(), path.size() - 1}; }  // without the zero

Result<Path> path_of(std::string_view folder, std::string_view name) noexcept {
  Path path;
  Status done = path.append(std::span(folder.data(), folder.size()));
  if (done && !name.empty()) done = path.push('/');
  if (done) done = path.append(std::span(name.data(), name.size()));
  if (done) done = path.push('\0');
  if (!done) return fail(done.error());
  return path;
}

bool is_folder(const Path& path, bool follow) noexcept {
  struct stat facts{};
  const int known = follow ? ::stat(path.data(), &facts) : ::lstat(path.data(), &facts);
  return known == 0 && S_ISDIR(facts.st_mode);
}
bool is_file(const Path& path) noexcept {
  struct stat facts{};
  return ::stat(path.data(), &facts) == 0 && S_ISREG(facts.st_mode);
}

// All files under a folder. Links to folders are not followed, so there is an end.
Status collect(const Path& folder, int depth, List<Path>& files) noexcept {
  if (depth > k_deepest) return fail(Errc::unsupported, k_op, "folders more than 64 deep", view_of(folder));
  DIR* opened = ::opendir(folder.data());
  if (!opened) return fail_system(errno, k_op, "cannot read this folder", view_of(folder));
  Status status;
  while (const dirent* entry = status ? ::readdir(opened) : nullptr) {
    const std::string_view name(entry->d_name);
    if (name.starts_with('.')) continue;
    auto path = path_of(view_of(folder), name);
    if (!path) {
      status = fail(path.error());
    } else if (is_folder(*path, false)) {
      status = collect(*path, depth + 1, files);
    } else if (is_file(*path)) {
      status = files.push(std::move(*path));
    }
  }
  ::closedir(opened);
  return status;
}

// Where a text can be cut near `at`: after the next end of a line if it is not far, or else before the next character. Something is left of
// the last text.
std::size_t border(std::string_view text, std::size_t at, bool last) noexcept {
  constexpr std::size_t k_far = 65536;
  const std::size_t line = text.find('\n', at);
  if (line != text.npos && line - at < k_far && (!last || line + 1 < text.size())) return line + 1;
  while (at < text.size() && (static_cast<std::uint8_t>(text[at]) & 0xc0) == 0x80) ++at;
  return at;
}

std::string_view part(std::string_view text, std::size_t begin, std::size_t size) noexcept {
  return {text.data() + begin, size};
}

bool letter(char c) noexcept { return (c | 32) >= 'a' && (c | 32) <= 'z'; }

// The first piece of a text to be encoded alone: up to a newline after a letter, where no pre-tokenizer has one word on both sides.
std::size_t piece_of(std::string_view text) noexcept {
  if (text.size() <= k_piece) return text.size();
  for (std::size_t end = k_piece; end > k_piece / 2; --end) {
    if (text[end] == '\n' && letter(text[end - 1])) return end;
  }
  std::size_t end = k_piece;  // no lines: between two characters
  while (end > 1 && (static_cast<std::uint8_t>(text[end]) & 0xc0) == 0x80) --end;
  return end > k_piece - 4 ? end : k_piece;
}

// Writes ids as they will be mapped.
class IdFile {
 public:
  IdFile(AtomicFile file, bool wide) noexcept : file_(std::move(file)), wide_(wide) {}
  [[nodiscard]] Status write(std::span<const std::int32_t> ids) noexcept {
    size_ += ids.size();
    if (wide_) return file_.write(std::as_bytes(ids));
    narrow_.clear();
    if (auto room = narrow_.reserve(ids.size()); !room) return room;
    for (const std::int32_t id : ids) {
      if (auto ok = narrow_.push(static_cast<std::uint16_t>(id)); !ok) return ok;
    }
    return file_.write(std::as_bytes(std::span<const std::uint16_t>(narrow_.data(), narrow_.size())));
  }
  [[nodiscard]] Status commit() noexcept { return file_.commit(); }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  AtomicFile file_;
  bool wide_;
  List<std::uint16_t> narrow_;
  std::size_t size_ = 0;
};

Status encode_text(const text::Tokenizer& tokenizer, std::string_view text, List<std::int32_t>& ids,
                   IdFile& file) noexcept {
  while (!text.empty()) {
    const std::size_t size = piece_of(text);
    ids.clear();
    if (auto ok = tokenizer.encode(part(text, 0, size), {}, ids); !ok) return ok;
    if (auto ok = file.write(ids.span()); !ok) return ok;
    text.remove_prefix(size);
  }
  return {};
}

}  // namespace

Result<Corpus> Corpus::open(std::string_view path, double validation) noexcept {
  if (!(validation >= 0 && validation < 1))
    return fail(Errc::invalid_argument, k_op, "the share for validation is at least 0 and below 1");
  Corpus made;
  auto root = path_of(path, {});
  if (!root) return fail(root.error());
  List<Path> files;
  if (is_folder(*root, true)) {
    if (auto done = collect(*root, 0, files); !done) return fail(done.error());
  } else if (auto pushed = files.push(std::move(*root)); !pushed) {
    return fail(pushed.error());
  }
  std::sort(files.begin(), files.end(), [](const Path& a, const Path& b) { return view_of(a) < view_of(b); });
  const List<Path>& sorted = files;
  for (const Path& file : sorted) {
    if (auto added = made.add(view_of(file)); !added) return fail(added.error());
  }
  if (made.bytes_ == 0) return fail(Errc::invalid_size, k_op, "there is no text", path);
  if (auto done = made.divide(validation); !done) return fail(done.error());
  return made;
}

Status Corpus::add(std::string_view path) noexcept {
  auto file = MappedFile::open(path);
  if (!file) return fail(file.error());
  if (file->bytes().empty()) return {};
  bytes_ += file->bytes().size();
  List<char> name;
  if (auto kept = name.append(std::span(path.data(), path.size())); !kept) return kept;
  return files_.push({std::move(*file), std::move(name)});
}

Status Corpus::whole() const noexcept {
  for (const File& file : files_) {
    if (auto there = file.bytes.whole(k_op, {file.path.data(), file.path.size()}); !there) return there;
  }
  return {};
}

Status Corpus::divide(double validation) noexcept {
  const auto last = static_cast<std::uint64_t>(std::llround(static_cast<double>(bytes_) * validation));
  std::uint64_t left = bytes_ - std::min(last, bytes_);  // bytes that are still to be trained on
  const List<File>& files = files_;
  for (const File& file : files) {
    const auto bytes = file.bytes.bytes();
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const bool end = &file == &files.back();
    const std::size_t cut = left >= text.size() ? text.size() : left == 0 ? 0 : border(text, left, end);
    left -= std::min<std::uint64_t>(left, text.size());
    if (cut > 0) {
      if (auto ok = train_.push(part(text, 0, cut)); !ok) return ok;
    }
    if (cut < text.size()) {
      if (auto ok = validation_.push(part(text, cut, text.size() - cut)); !ok) return ok;
    }
  }
  return {};
}

Result<Tokens> Tokens::encode(const text::Tokenizer& tokenizer, std::span<const std::string_view> texts,
                              std::string_view path) noexcept {
  Tokens made;
  made.wide_ = tokenizer.size() > 65536;
  auto file = AtomicFile::create(path);
  if (!file) return fail(file.error());
  IdFile out(std::move(*file), made.wide_);
  List<std::int32_t> ids;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::int32_t end = tokenizer.eos();
    Status done = i > 0 && end >= 0 ? out.write({&end, 1}) : Status{};
    if (done) done = encode_text(tokenizer, texts[i], ids, out);
    if (!done) return fail(done.error());
  }
  if (auto done = out.commit(); !done) return fail(done.error());
  auto mapped = MappedFile::open(path);
  auto name = path_of(path, {});
  if (name) ::unlink(name->data());
  if (!mapped) return fail(mapped.error());
  made.file_ = std::move(*mapped);
  made.size_ = out.size();
  return made;
}

void Tokens::copy_to(std::size_t begin, std::span<std::int32_t> ids) const noexcept {
  const std::byte* bytes = file_.bytes().data();
  if (wide_) {
    std::memcpy(ids.data(), bytes + begin * sizeof(std::int32_t), ids.size_bytes());
    return;
  }
  const auto* narrow = reinterpret_cast<const std::uint16_t*>(bytes) + begin;
  std::copy(narrow, narrow + ids.size(), ids.begin());
}

}  // namespace qorus::tune
