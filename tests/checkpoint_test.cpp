// Checkpoints of qorus.train: a run that was killed, or that met a broken disk, goes on to the very same bits; what is damaged is skipped,
// what belongs elsewhere is refused, and nothing that was once written is lost.
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/faulty_files.h"
#include "tests/files.h"
#include "tests/testing.h"

import qorus.train;
import qorus.io;

using namespace qorus;

namespace {

data::Dataset spirals(std::size_t n) {
  std::vector<float> x(2 * n);
  std::vector<std::int32_t> y(n);
  for (std::size_t i = 0; i < n; ++i) {
    const float t = static_cast<float>(i) / static_cast<float>(n), turn = 6 * t + (i % 2 ? 3.14159f : 0);
    x[2 * i] = t * std::cos(turn);
    x[2 * i + 1] = t * std::sin(turn);
    y[i] = static_cast<std::int32_t>(i % 2);
  }
  const auto count = static_cast<std::int64_t>(n);
  auto inputs = Owned::from<float>(std::span<const float>(x), {count, 2});
  auto targets = Owned::from<std::int32_t>(std::span<const std::int32_t>(y), {count});
  return std::move(*data::Dataset::create(std::move(*inputs), std::move(*targets)));
}

struct Setting {
  std::string folder = {};
  int epochs = 3;
  int threads = 1;
  std::uint64_t seed = 5;
  std::size_t accumulate = 1;
  float ema = 0;
  std::int64_t width = 9;
  bool resume = true;
  std::size_t shards = 1, prefetch = 0;
  bool bf16 = false;
  train::Callbacks callbacks = {};
};

// A run with everything that has a state: dropout, moments, a schedule, early stopping with the best weights, a plateau.
Result<train::Fit<decltype(nn::linear(9) | nn::tanh() | nn::dropout(0.1f) | nn::linear(2))>> run(const Setting& s) {
  static const data::Split split{spirals(90), spirals(30)};
  return train::fit(nn::linear(s.width) | nn::tanh() | nn::dropout(0.1f) | nn::linear(2), split,
                    {.optimizer = optim::adamw({.lr = 0.02f}),
                     .schedule = schedule::linear_warmup(0.2) | schedule::cosine(),
                     .epochs = s.epochs,
                     .batch = 16,
                     .accumulate = s.accumulate,
                     .seed = s.seed,
                     .clip_norm = 1,
                     .ema = s.ema,
                     .threads = s.threads,
                     .shards = s.shards,
                     .bf16 = s.bf16,
                     .prefetch = s.prefetch,
                     .checkpoints = {.folder = s.folder, .every_steps = 2, .keep = 2, .resume = s.resume},
                     .callbacks = s.callbacks});
}
std::vector<float> weights(const Setting& s) {
  auto done = run(s);
  if (!done) {
    ADD_FAILURE() << done.error().message().c_str();
    return {};
  }
  return {done->model.slab().begin(), done->model.slab().end()};
}

// Folders in memory where there is such a place: what is tested here is the order of things, not the disk, whose flushing takes minutes.
[[maybe_unused]] const bool k_in_memory = ::access("/dev/shm", W_OK) == 0 && ::setenv("TMPDIR", "/dev/shm", 0) == 0;

// Stops a run after so many batches.
auto stop_after(std::size_t batches) {
  return [batches, seen = std::size_t{0}](train::Event& event) mutable noexcept {
    if (event.moment == train::Moment::step_end && ++seen == batches) event.stop = true;
  };
}

std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> names;
  if (DIR* opened = ::opendir(folder.c_str())) {
    while (const dirent* entry = ::readdir(opened)) {
      if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
    }
    ::closedir(opened);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

TEST(Checkpoint, ARunGoesOnToTheSameBits) {
  for (const std::size_t accumulate : {1u, 4u}) {
    for (const float ema : {0.0f, 0.9f}) {
      const auto wanted = weights({.accumulate = accumulate, .ema = ema});
      for (const std::size_t batches : {1u, 4u, 6u, 7u, 11u, 17u}) {
        qorus_test::TemporaryFolder folder;
        const std::string place = folder / "run";
        ASSERT_OK(run(
            {.folder = place, .threads = 2, .accumulate = accumulate, .ema = ema, .callbacks = {stop_after(batches)}}));
        EXPECT_EQ(weights({.folder = place, .threads = 3, .accumulate = accumulate, .ema = ema}), wanted)
            << batches << " batches, accumulate " << accumulate << ", ema " << ema;
      }
    }
  }
}

TEST(Checkpoint, ARunInShardsGoesOnToTheSameBits) {
  const auto wanted = weights({.shards = 3});
  EXPECT_NE(wanted, weights({}));  // dropout draws otherwise
  for (const std::size_t batches : {1u, 7u, 12u}) {
    qorus_test::TemporaryFolder folder;
    const std::string place = folder / "run";
    ASSERT_OK(run({.folder = place, .threads = 2, .shards = 3, .prefetch = 2, .callbacks = {stop_after(batches)}}));
    EXPECT_FAILS_SAYING(run({.folder = place, .shards = 2}), "other batches");
    EXPECT_EQ(weights({.folder = place, .threads = 3, .shards = 3}), wanted) << batches;
  }
}

TEST(Checkpoint, ARunInBf16GoesOnToTheSameBits) {
  const auto wanted = weights({.bf16 = true});
  EXPECT_NE(wanted, weights({}));
  for (const std::size_t batches : {1u, 7u, 12u}) {
    qorus_test::TemporaryFolder folder;
    const std::string place = folder / "run";
    ASSERT_OK(run({.folder = place, .threads = 2, .bf16 = true, .callbacks = {stop_after(batches)}}));
    EXPECT_FAILS_SAYING(run({.folder = place}), "bf16");
    EXPECT_EQ(weights({.folder = place, .threads = 3, .bf16 = true}), wanted) << batches;
  }
}

TEST(Checkpoint, CallbacksAreBroughtUpToDate) {
  qorus_test::TemporaryFolder folder;
  const std::string place = folder / "run", csv = folder / "log.csv", whole = folder / "whole.csv";
  const auto patient = train::early_stopping({.patience = 2, .min_delta = 0.02});
  auto straight = run({.epochs = 30, .callbacks = {patient, train::csv_logger(whole)}});
  ASSERT_OK(straight);
  ASSERT_TRUE(straight->history.stopped_early);
  ASSERT_OK(run({.folder = place, .epochs = 30, .callbacks = {patient, train::csv_logger(csv), stop_after(20)}}));
  auto resumed = run({.folder = place, .epochs = 30, .callbacks = {patient, train::csv_logger(csv)}});
  ASSERT_OK(resumed);
  EXPECT_GT(resumed->history.resumed_at, 0u);
  EXPECT_EQ(resumed->history.epochs.size(), straight->history.epochs.size());
  EXPECT_TRUE(std::equal(resumed->model.slab().begin(), resumed->model.slab().end(), straight->model.slab().begin()));
  const auto lines = [](const std::string& text) { return std::count(text.begin(), text.end(), '\n'); };
  EXPECT_EQ(lines(qorus_test::read_file(csv)), lines(qorus_test::read_file(whole)));
}

TEST(Checkpoint, KeepsTheLastOnesAndTheBest) {
  qorus_test::TemporaryFolder folder;
  const std::string place = folder / "run";
  ASSERT_OK(run({.folder = place}));
  EXPECT_EQ(files_in(place), (std::vector<std::string>{"best.safetensors", "checkpoint-000000000016.safetensors",
                                                       "checkpoint-000000000018.safetensors"}));
  auto best = nn::build(nn::linear(9) | nn::tanh() | nn::dropout(0.1f) | nn::linear(2), {2});
  ASSERT_OK(best);
  EXPECT_OK(io::load(place + "/best.safetensors", *best));
}

TEST(Checkpoint, ADamagedOneIsSkippedWithAWarning) {
  qorus_test::TemporaryFolder folder;
  const std::string place = folder / "run";
  ASSERT_OK(run({.folder = place, .callbacks = {stop_after(11)}}));
  const auto wanted = weights({});
  const std::string newest = place + "/" + files_in(place).back(), good = qorus_test::read_file(newest);
  static std::string said;
  set_log_sink({.write = [](void*, LogLevel level, std::string_view text) {
    if (level == LogLevel::warning) said += text;
  }});
  for (std::size_t at = 8; at < good.size(); at += 211) {  // a byte of every part, and a cut at every part
    std::string damaged = good;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    for (const std::string& bytes : {damaged, good.substr(0, at)}) {
      said.clear();
      qorus_test::write_file(newest, bytes);
      EXPECT_FAILS(io::read_sealed(newest), Errc::corrupt);
      if (at % 3 == 0) {
        EXPECT_EQ(weights({.folder = place}), wanted) << at;
        EXPECT_NE(said.find("checkpoint-"), said.npos) << said;
        std::system(("rm -rf '" + place + "'").c_str());
        ASSERT_OK(run({.folder = place, .callbacks = {stop_after(11)}}));
      }
    }
  }
  set_log_sink({});
}

TEST(Checkpoint, OneOfAnotherRunIsRefused) {
  qorus_test::TemporaryFolder folder;
  const std::string place = folder / "run";
  ASSERT_OK(run({.folder = place, .callbacks = {stop_after(7)}}));
  EXPECT_FAILS_SAYING(run({.folder = place, .width = 8}), "[9,2] and [8,2]");
  EXPECT_FAILS_SAYING(run({.folder = place, .width = 8}), "0.weight");
  EXPECT_FAILS_SAYING(run({.folder = place, .seed = 6}), "another seed");
  EXPECT_FAILS_SAYING(run({.folder = place, .accumulate = 2}), "other batches");
  EXPECT_FAILS_SAYING(run({.folder = place, .ema = 0.5f}), "average");
  EXPECT_OK(run({.folder = place, .seed = 6, .resume = false}));
  EXPECT_FAILS(run({.folder = folder / "no/such/place"}), Errc::not_found);
}

// A checkpoint whose sums are right, and of which one tensor is missing, or of another length or type.
TEST(Checkpoint, OneWithAnotherPartIsRefused) {
  qorus_test::TemporaryFolder folder;
  const std::string place = folder / "run";
  ASSERT_OK(run({.folder = place, .ema = 0.5f, .callbacks = {stop_after(11), train::early_stopping({.patience = 9})}}));
  const std::string newest = place + "/" + files_in(place).back();
  const std::string good = qorus_test::read_file(newest);
  std::vector<std::string> names;
  {
    const auto file = io::read_sealed(newest);
    ASSERT_OK(file);
    for (const auto& entry : file->entries()) names.emplace_back(entry.name);
  }
  int refused = 0;
  for (const std::string& name : names) {
    if (name == "sealed.trailer") continue;
    for (const int change : {0, 1, 2, 3, 4, 5}) {
      qorus_test::write_file(newest, good);
      {
        const auto from = io::read_sealed(newest);
        ASSERT_OK(from);
        std::vector<Owned> kept;
        std::vector<io::NamedTensor> tensors;
        for (const std::string& each : names) {
          if (each == "sealed.trailer" || (each == name && change == 0)) continue;
          auto copy = from->copy(each);
          ASSERT_OK(copy);
          const DType dtype = copy->tensor().dtype(), other = dtype == DType::u8 ? DType::f32 : DType::u8;
          if (each == name && change == 1) *copy = std::move(*Owned::zeros({7}, dtype));
          if (each == name && change == 2) *copy = std::move(*Owned::zeros(copy->tensor().shape(), other));
          constexpr std::size_t words[] = {0, 15, 17};  // its version; how much is a batch; how many examples there are
          if (each == name && change >= 3 && each == "state") copy->fill<std::uint8_t>()[8 * words[change - 3]] ^= 9;
          kept.push_back(std::move(*copy));
        }
        std::size_t next = 0;
        for (const std::string& each : names) {
          if (each == "sealed.trailer" || (each == name && change == 0)) continue;
          tensors.push_back({each, kept[next++]});
        }
        const io::TextPair texts[] = {{"format", "qorus.checkpoint"}};
        ASSERT_OK(io::write_sealed(newest, tensors, texts));
      }
      if (change >= 3 && name != "state") continue;
      const auto went_on = run({.folder = place, .ema = 0.5f, .callbacks = {train::early_stopping({.patience = 9})}});
      EXPECT_FALSE(went_on) << name << ", change " << change;
      ++refused;
    }
  }
  EXPECT_GT(refused, 20);
  qorus_test::write_file(newest, good);
  qorus_test::write_file(place + "/checkpoint-x.safetensors", "");
  qorus_test::write_file(place + "/checkpoint-5.other", "");
  qorus_test::write_file(place + "/checkpoint-5x.safetensors", "");
  qorus_test::write_file(place + "/checkpoint-99999999999999999999.safetensors", "");
  EXPECT_OK(run({.folder = place, .ema = 0.5f, .callbacks = {train::early_stopping({.patience = 9})}}));
}

TEST(Checkpoint, WithoutMemoryOrAFolderIsAnError) {
  qorus_test::TemporaryFolder folder;
  qorus_test::write_file(folder / "file", "");
  EXPECT_FAILS(run({.folder = folder / "file"}), Errc::io);
  static const data::Split split{spirals(40), spirals(20)};
  const auto plain = [&] {
    return train::fit(nn::linear(2), split,
                      {.optimizer = optim::sgd({.lr = 0.1f}),
                       .epochs = 1,
                       .batch = 10,
                       .seed = 1,
                       .threads = 1,
                       .checkpoints = {.folder = folder / "plain", .every_steps = 1}});  // no moments
  };
  EXPECT_OK(plain());
  EXPECT_OK(plain());
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const std::string place = folder / "run";
  ASSERT_OK(run({.folder = place, .epochs = 3, .callbacks = {train::early_stopping({.patience = 9})}}));
  const Setting setting{.folder = place, .epochs = 1, .callbacks = {train::early_stopping({.patience = 9})}};
  bool reached = true;
  for (std::uint64_t k = 0; reached && k < 2000; ++k) {
    const qorus_test::FailingAllocations failing(k, 1);
    const auto again = run(setting);
    reached = failing.reached();
    if (!again && again.error().code != Errc::out_of_memory) ADD_FAILURE() << again.error().message().c_str();
  }
}

// The child is killed at a random moment; then the run goes on. 200 times, 4 of them on another number of threads.
TEST(Checkpoint, SurvivesBeingKilledAtAnyMoment) {
  if (!qorus_test::k_counts_allocations) GTEST_SKIP() << "a sanitizer makes forked children slow";
  const auto wanted = weights({});
  std::uint64_t random = 88172645463325252u;
  const auto draw = [&](std::uint64_t below) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    return random % below;
  };
  int resumed = 0;
  qorus_test::TemporaryFolder folder;
  for (int kill = 0; kill < 200; ++kill) {
    const std::string place = folder / std::to_string(kill);
    const pid_t child = ::fork();
    if (child == 0) {
      (void)run({.folder = place});
      ::_exit(0);
    }
    ::usleep(static_cast<useconds_t>(draw(6000)));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    auto done = run({.folder = place, .threads = kill % 50 ? 1 : 2});
    ASSERT_OK(done);
    resumed += done->history.resumed_at > 0;
    ASSERT_TRUE(std::equal(wanted.begin(), wanted.end(), done->model.slab().begin())) << "kill " << kill;
    for (const std::string& name : files_in(place)) EXPECT_EQ(name.find(".tmp-"), name.npos) << name;
  }
  EXPECT_GT(resumed, 20);  // the kills did fall into runs that had begun
}

// Every system call of every write fails once, in each way; the run says so, has lost no checkpoint that was there before, and the next one
// ends with the same bits.
TEST(Checkpoint, SurvivesEveryFailingWrite) {
  QORUS_NEEDS_FAULTY_FILES();
  const auto wanted = weights({.epochs = 1});
  for (const int error : {ENOSPC, EIO, qorus_test::k_short_write, EINTR}) {
    for (std::uint64_t call = 0;; ++call) {
      ASSERT_LT(call, 2000u);
      qorus_test::TemporaryFolder folder;
      const std::string place = folder / "run";
      bool reached = false;
      std::string newest;  // that was there when the last step ended
      const auto watch = [&](train::Event& event) noexcept {
        if (event.moment != train::Moment::step_end) return;
        for (const std::string& name : files_in(place)) {
          if (name.starts_with("checkpoint-") && name.ends_with(".safetensors")) newest = std::max(newest, name);
        }
      };
      {
        const qorus_test::FailingFiles failing(call, error);
        auto done = run({.folder = place, .epochs = 1, .callbacks = {watch}});
        reached = failing.reached();
        const bool harmless = error == qorus_test::k_short_write || error == EINTR;
        EXPECT_EQ(done.has_value(), harmless || !reached) << "call " << call << " error " << error;
        if (!done) EXPECT_EQ(done.error().code, Errc::io) << done.error().message().c_str();
      }
      if (!reached) break;
      const std::size_t step = newest.empty() ? 0 : std::stoul(newest.substr(newest.find('-') + 1));
      auto resumed = run({.folder = place, .epochs = 1, .threads = 2});
      ASSERT_OK(resumed);
      EXPECT_GE(resumed->history.resumed_at, step) << "call " << call << " error " << error;
      EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), resumed->model.slab().begin()))
          << "call " << call << " error " << error;
    }
  }
}

// A data set that stays in its files: mapped, read as batches ask for it.
TEST(MappedData, TrainsAsDataInMemoryDoes) {
  qorus_test::TemporaryFolder folder;
  const data::Dataset points = spirals(60);
  ASSERT_OK(io::write_npy(folder / "x.npy", points.inputs()));
  ASSERT_OK(io::write_npy(folder / "y.npy", points.targets()));
  const auto x = io::MappedNpy::open(folder / "x.npy"), y = io::MappedNpy::open(folder / "y.npy");
  ASSERT_OK(x);
  ASSERT_OK(y);
  const auto weights_from = [](const data::Examples& examples) {
    auto model = nn::build(nn::linear(5) | nn::tanh() | nn::linear(2), {2}, init::kaiming(1));
    EXPECT_OK(train::fit(*model, examples, {.epochs = 2, .batch = 16}));
    return std::vector<float>(model->slab().begin(), model->slab().end());
  };
  EXPECT_EQ(weights_from({x->tensor(), y->tensor(), {.classes = 2}}), weights_from(points.examples()));
}
