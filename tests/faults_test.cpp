// Every allocation and every system call of loading, quantising, converting, generating, training and saving fails once: the result is an error
// value, nothing leaks, and what stood in a file before, or the whole of what was to stand there, stands there.
#include <dirent.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/faulty_files.h"
#include "tests/files.h"
#include "tests/reading.h"
#include "tests/testing.h"

import qorus.train;
import qorus.llm;

using namespace qorus;
using qorus_test::FailingAllocations;
using qorus_test::FailingFiles;
using qorus_test::read_as;
using qorus_test::read_file;
using qorus_test::TemporaryFolder;
using qorus_test::write_file;

namespace {

// Something that is done to files, again and again. `saved`: the file, or the files of the folder, that it replaces; empty if it only reads.
struct Work {
  std::string name;
  std::function<const char*()> run;  // "ok" or an error's code; takes no memory of its own
  std::string saved = {};
};

template <class R>
const char* code_of(const R& result) {
  return result.has_value() ? "ok" : to_string(result.error().code).data();
}
bool is(const char* code, std::string_view wanted) { return wanted == code; }

// A folder in memory if there is one: these files are flushed thousands of times.
class Place {
 public:
  Place() {
    const char* before = std::getenv("TMPDIR");
    const std::string old = before ? before : "/tmp";
    if (::access("/dev/shm", W_OK) == 0) ::setenv("TMPDIR", "/dev/shm", 1);
    folder_ = std::make_unique<TemporaryFolder>();
    ::setenv("TMPDIR", old.c_str(), 1);
  }
  [[nodiscard]] std::string operator/(const std::string& name) const { return *folder_ / name; }
  [[nodiscard]] const std::string& path() const { return folder_->path(); }

 private:
  std::unique_ptr<TemporaryFolder> folder_;
};

int entries(const std::string& folder) {
  int count = 0;
  DIR* open = ::opendir(folder.c_str());
  while (open && ::readdir(open)) ++count;
  if (open) ::closedir(open);
  return count;
}

// What work replaces: the files by their names, and how many stand beside them.
class Saved {
 public:
  explicit Saved(const Work& work) : path_(work.saved) {
    if (path_.empty()) return;
    whole_ = now();
    beside_ = entries(parent());
  }
  void put_old() const {
    for (const auto& [name, content] : whole_) write_file(name, k_old);
  }
  // Each is the old one or the whole new one, and there is nothing else; all are new if it went well.
  [[nodiscard]] bool good(const char* code) const {
    if (path_.empty()) return true;
    const auto found = now();
    bool good = found.size() == whole_.size() && entries(parent()) == beside_;
    for (const auto& [name, content] : whole_) {
      const auto file = found.find(name);
      good = good && file != found.end() && (file->second == content || (file->second == k_old && !is(code, "ok")));
    }
    return good;
  }

 private:
  static constexpr const char* k_old = "what stood there before";
  [[nodiscard]] std::string parent() const { return path_.substr(0, path_.rfind('/')); }
  [[nodiscard]] std::map<std::string, std::string> now() const {
    std::map<std::string, std::string> files;
    if (!std::filesystem::is_directory(path_)) return {{path_, read_file(path_)}};
    for (const auto& entry : std::filesystem::directory_iterator(path_))
      files[entry.path().string()] = read_file(entry.path().string());
    return files;
  }
  std::string path_;
  std::map<std::string, std::string> whole_;
  int beside_ = 0;
};

constexpr std::int64_t k_many = 60;   // tensors and texts of what is large
constexpr std::int64_t k_wide = 900;  // layers, columns

// Owned tensors with names, and texts.
struct Tensors {
  std::vector<std::string> names;
  std::vector<Owned> owners;
  std::vector<io::NamedTensor> list;
  std::vector<io::TextPair> texts;
  Tensors() {
    for (std::int64_t i = 0; i < k_many; ++i) names.push_back("tensor." + std::to_string(i));
    for (const std::string& name : names) {
      owners.push_back(std::move(*Owned::zeros({2, 32})));
      list.push_back({name, owners.back()});
      texts.push_back({name, "text"});
    }
  }
};

Status write_gguf(const std::string& path, const Tensors& tensors) {
  auto writer = io::GgufWriter::create(path);
  if (!writer) return fail(writer.error());
  const std::string_view words[] = {"a", "b"};
  Status status = writer->put_text("general.architecture", "none");
  for (const std::string& name : tensors.names) {
    if (status) status = writer->put(name, std::span<const std::string_view>(words));
  }
  for (const auto& named : tensors.list) {
    if (status) status = writer->declare(named.name, DType::f32, named.tensor.shape());
  }
  if (status) status = writer->begin();
  for (const auto& named : tensors.list) {
    if (status) status = writer->write({named.tensor.data(), named.tensor.numel() * 4});
  }
  return status ? writer->commit() : status;
}

std::string repeated(const std::string& begin, const std::string& part, const std::string& between,
                     const std::string& end) {
  std::string text = begin;
  for (std::int64_t i = 0; i < k_wide; ++i) {
    text += i ? between : "";
    for (const char c : part) text += c == '#' ? std::to_string(100 + i) : std::string(1, c);
  }
  return text + end;
}

data::Split spirals() {
  const auto make = [](std::int64_t n) {
    std::vector<float> x(static_cast<std::size_t>(2 * n), 0.5f);
    std::vector<std::int32_t> y(static_cast<std::size_t>(n), 1);
    x[0] = -1, y[0] = 0;
    return std::move(
        *data::Dataset::create(std::move(*Owned::from<float>(std::span<const float>(x), {n, 2})),
                               std::move(*Owned::from<std::int32_t>(std::span<const std::int32_t>(y), {n}))));
  };
  return {make(20), make(10)};
}

// All that is done.
class Works {
 public:
  Works() : split_(spirals()) {
    for (const auto& file : qorus_test::make_files(place_.path(), true)) {
      if (file.reader.empty() || file.reader == "config" || file.reader == "index") continue;
      if (file.name == "model-1") model_ = file.path;
      read(file.reader, file.name, file.path);
    }
    write_file(place_ / "layers",
               repeated(R"({"kind":"chain","layers":[)", R"({"kind":"linear","out_features":#})", ",", "]}"));
    write_file(place_ / "csv",
               repeated("", "c#", ",", "\n") + repeated("", "1", ",", "\n") + repeated("", "x", ",", "\n"));
    EXPECT_OK(write_gguf(place_ / "gguf", tensors_));
    for (const char* reader : {"layers", "csv", "gguf"}) read(reader, std::string("large ") + reader, place_ / reader);
    add("fit", [this] { return code_of(fit({})); });
    add_writers();
    if (!model_.empty()) add_model();
  }
  std::vector<Work> list;

 private:
  void add(const std::string& name, std::function<const char*()> run, const std::string& saved = {}) {
    list.push_back({name, std::move(run), saved});
  }
  void read(const std::string& reader, const std::string& name, const std::string& path) {
    add("read " + name, [reader, path] { return read_as(reader, path).code; });
  }
  [[nodiscard]] Result<train::Fit<decltype(nn::linear(4) | nn::tanh() | nn::linear(2))>> fit(
      std::string_view folder) const {
    return train::fit(nn::linear(4) | nn::tanh() | nn::linear(2), split_,
                      {.optimizer = optim::adamw({.lr = 0.02f}),
                       .epochs = 1,
                       .batch = 10,
                       .seed = 1,
                       .threads = 1,
                       .checkpoints = {.folder = folder, .every_steps = 1, .keep = 2, .resume = false}});
  }
  // Done once at once, for what is made of it.
  void convert(const std::string& from, const std::string& name, llm::ConvertOptions options) {
    options.threads = 1;
    const std::string to = place_ / name;
    EXPECT_OK(llm::convert(from, to, options)) << name;
    add("convert to " + name, [=] { return code_of(llm::convert(from, to, options)); }, to);
  }
  void add_model() {
    add("generate", [this] {
      auto model = llm::open(model_);
      if (!model) return code_of(model);
      auto session = llm::Session::create(*model, {.context = 8, .batch = 4, .threads = 1});
      if (!session) return code_of(session);
      return code_of(llm::generate(*session, "ab", {.max_tokens = 4}, [](std::string_view) { return true; }));
    });
    add(
        "quantise",
        [from = place_ / "gguf", to = place_ / "quantised"] {
          return code_of(formats::quantize(from, to, {.threads = 1}));
        },
        place_ / "quantised");
    // Into every format, out of every format that holds all of it.
    convert(model_, "c.qorus", {.to = llm::Container::native, .laid_out = true});
    convert(model_, "c.npz", {.to = llm::Container::npz});
    convert(model_, "c.bin", {.to = llm::Container::llama2c});
    convert(model_, "c", {.to = llm::Container::safetensors, .shard_bytes = 20000});
    for (const char* from : {"c.qorus", "c.npz", "c.bin", "c"})
      convert(place_ / from, std::string("from.") + from + ".gguf", {.to = llm::Container::gguf});
    convert(place_ / "c", "d", {.to = llm::Container::safetensors});
    EXPECT_OK(io::write_safetensors(place_ / "w.safetensors", tensors_.list, tensors_.texts));
    convert(place_ / "w.safetensors", "plain.npz", {.to = llm::Container::npz});
    for (const char* model : {"c.qorus", "c"}) read("folder", std::string("model ") + model, place_ / model);
    opened_ = std::make_unique<llm::Model>(std::move(*llm::open(model_)));
    session_ = std::make_unique<llm::Session>(std::move(*llm::Session::create(*opened_, {.context = 8, .threads = 1})));
    const std::int32_t ids[] = {1, 3, 4};
    EXPECT_OK(session_->feed(ids));
    add("save a session", [this, to = place_ / "session"] { return code_of(session_->save(to)); }, place_ / "session");
    add("restore a session", [this, from = place_ / "session"] { return code_of(session_->restore(from)); });
  }
  void add_writers() {
    add(
        "write safetensors",
        [this, to = place_ / "w.safetensors"] {
          return code_of(io::write_safetensors(to, tensors_.list, tensors_.texts));
        },
        place_ / "w.safetensors");
    add(
        "write a checkpoint",
        [this, to = place_ / "w.sealed"] { return code_of(io::write_sealed(to, tensors_.list, tensors_.texts)); },
        place_ / "w.sealed");
    add("write gguf", [this, to = place_ / "w.gguf"] { return code_of(write_gguf(to, tensors_)); }, place_ / "w.gguf");
    add(
        "write npy", [this, to = place_ / "w.npy"] { return code_of(io::write_npy(to, tensors_.owners[0])); },
        place_ / "w.npy");
    for (const char* reader : {"safetensors", "checkpoint"})
      read(reader, std::string("large ") + reader,
           place_ / (std::string("w.") + (*reader == 's' ? "safetensors" : "sealed")));
  }

  Place place_;
  std::string model_;
  data::Split split_;
  Tensors tensors_;
  std::unique_ptr<llm::Model> opened_;
  std::unique_ptr<llm::Session> session_;
};

}  // namespace

// From the k-th on, and the k-th alone.
TEST(Faults, EveryAllocation) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const Works works;
  std::uint64_t faults = 0;
  for (const Work& work : works.list) {
    EXPECT_STREQ(work.run(), "ok") << work.name;  // pools are filled
    EXPECT_STREQ(work.run(), "ok") << work.name;
    const Saved saved(work);
    std::uint64_t of_this = 0, errors = 0;
    const int descriptors = entries("/proc/self/fd");
    for (const std::uint64_t count : {UINT64_MAX, std::uint64_t{1}}) {
      bool reached = true;
      for (std::uint64_t k = 0; reached && k < 20000; ++k) {
        saved.put_old();
        std::size_t before = 0, after = 1;
        const char* code = nullptr;
        // Threads leave a table each in the C library's cache of stacks, now and then: a leak grows every time.
        for (int again = 0; again < 8 && after > before; ++again) {
          before = qorus_test::heap_in_use();
          {
            const FailingAllocations failing(k, count);
            code = work.run();
            reached = failing.reached();
          }
          after = qorus_test::heap_in_use();
          if (after > before) saved.put_old();
        }
        EXPECT_LE(after, before) << work.name << ", allocation " << k << ": a leak";
        ASSERT_TRUE(is(code, "out of memory") || is(code, "ok")) << work.name << ", allocation " << k << ": " << code;
        ASSERT_TRUE(saved.good(code)) << work.name << ", allocation " << k << ": " << code << ", and files are broken";
        of_this += reached;
        errors += reached && !is(code, "ok");
      }
    }
    EXPECT_EQ(entries("/proc/self/fd"), descriptors) << work.name;
    EXPECT_STREQ(work.run(), "ok") << work.name;
    std::printf("  %-24s %5zu allocations failed, %5zu times an error\n", work.name.c_str(), std::size_t{of_this},
                std::size_t{errors});
    faults += of_this;
  }
  std::printf("  %zu failing allocations\n", std::size_t{faults});
  EXPECT_GE(faults, 10000u);
}

TEST(Faults, EverySystemCall) {
  QORUS_NEEDS_FAULTY_FILES();
  const Works works;
  std::uint64_t faults = 0;
  for (const Work& work : works.list) {
    ASSERT_STREQ(work.run(), "ok") << work.name;
    const Saved saved(work);
    const int descriptors = entries("/proc/self/fd");
    std::uint64_t of_this = 0, errors = 0;
    for (const int error : {EIO, ENOSPC, EINTR, EACCES, qorus_test::k_short_write}) {
      bool reached = true;
      for (std::uint64_t call = 0; reached && call < 5000; ++call) {
        saved.put_old();
        const char* code = nullptr;
        {
          const FailingFiles failing(call, error, qorus_test::Calls::all);
          code = work.run();
          reached = failing.reached();
        }
        const std::string fault =
            work.name + ", call " + std::to_string(call) + ", error " + std::to_string(error) + ": " + code;
        if (error == qorus_test::k_short_write) EXPECT_STREQ(code, "ok") << fault;
        // A file that may be there, whose opening failed, and that is not: not found.
        EXPECT_TRUE(is(code, "ok") || is(code, "input/output error") || is(code, "out of memory") ||
                    is(code, "not found"))
            << fault;
        EXPECT_TRUE(saved.good(code)) << fault << ", and files are broken, or something is left";
        of_this += reached;
        errors += reached && !is(code, "ok");
      }
    }
    EXPECT_EQ(entries("/proc/self/fd"), descriptors) << work.name;
    ASSERT_STREQ(work.run(), "ok") << work.name;
    std::printf("  %-24s %5zu system calls failed, %5zu times an error\n", work.name.c_str(), std::size_t{of_this},
                std::size_t{errors});
    faults += of_this;
  }
  std::printf("  %zu failing system calls\n", std::size_t{faults});
  EXPECT_GE(faults, 5000u);
}
