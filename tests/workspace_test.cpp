// Workspaces and their workers: any number of tasks, a host's own executor, forks that cost little, workers that sleep.
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "tests/testing.h"

import qorus.ops;
import qorus.test.ops;

using namespace qorus;
using namespace qorus_test;

namespace {

double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// Every task once, on a worker that exists.
void expect_each_once(Workspace& ws, std::uint32_t tasks) {
  const std::unique_ptr<std::atomic<std::uint8_t>[]> seen(new std::atomic<std::uint8_t>[tasks]());
  std::atomic<std::uint32_t> strays{0};
  parallel(ws.context(), tasks, [&](std::uint32_t i, int worker) {
    if (i >= tasks || worker < 0 || worker >= ws.threads() || seen[i].fetch_add(1) != 0) ++strays;
  });
  EXPECT_EQ(strays.load(), 0u);
  EXPECT_TRUE(std::all_of(seen.get(), seen.get() + tasks, [](const auto& count) { return count.load() == 1; }))
      << tasks;
}

TEST(Pool, RunsEveryTaskOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    Workspace ws{{.scratch = 1_MiB, .threads = threads}};
    ASSERT_OK(ws.status());
    EXPECT_EQ(ws.threads(), threads);
    for (const std::uint32_t tasks : {0u, 1u, 2u, 3u, 7u, 64u, 1000u}) expect_each_once(ws, tasks);
    expect_each_once(ws, (1u << 20) - 1);
    expect_each_once(ws, (1u << 21) + 7);  // more than one job's count
  }
}

TEST(Pool, ManyShortJobs) {
  Workspace ws{{.scratch = 1_MiB, .threads = 3}};
  std::uint64_t wrong = 0;
  for (std::uint32_t job = 0; job < 20000; ++job) {
    std::atomic<std::uint32_t> sum{0};
    const std::uint32_t tasks = 2 + job % 5;
    parallel(ws.context(), tasks, [&](std::uint32_t i, int) { sum.fetch_add(i + job, std::memory_order_relaxed); });
    wrong += sum.load() != tasks * job + tasks * (tasks - 1) / 2;
  }
  EXPECT_EQ(wrong, 0u);
}

// What a worker reads lies in one stretch of memory: of its own half it takes the first tasks, of the other's the last ones.
TEST(Pool, TasksOfAWorkerLieSideBySide) {
  constexpr std::uint32_t k_half = 100;
  Workspace ws{{.scratch = 1_MiB, .threads = 2}};
  for (int job = 0; job < 50; ++job) {
    std::array<int, 2 * k_half> worker_of{};
    std::array<std::uint32_t, 2> first{};
    std::atomic<int> begun{0};
    parallel(ws.context(), 2 * k_half, [&](std::uint32_t i, int worker) {
      worker_of[i] = worker;
      thread_local int last_job = -1;
      if (std::exchange(last_job, job) == job) return;
      first[static_cast<std::size_t>(worker)] = i;
      ++begun;
      while (begun < 2) std::this_thread::yield();
    });
    EXPECT_EQ(first, (std::array<std::uint32_t, 2>{0, k_half}));
    EXPECT_TRUE(std::is_sorted(worker_of.begin(), worker_of.begin() + k_half));
    EXPECT_TRUE(std::is_sorted(worker_of.begin() + k_half, worker_of.end(), std::greater{}));
  }
}

TEST(Pool, TwoWorkspacesAtOnce) {
  const Owned x = random_owned({300, 301});
  const auto run = [&](int threads, double& total) {
    Workspace ws{{.scratch = 16_MiB, .threads = threads}};
    for (int i = 0; i < 50; ++i) {
      auto frame = ws.frame();
      auto sum = ops::sum(ops::gelu(frame.input(x)));
      total += sum ? static_cast<double>(sum->item().value()) : 1e9;
    }
  };
  double one = 0, two = 0;
  std::thread other([&] { run(2, one); });
  run(2, two);
  other.join();
  EXPECT_EQ(one, two);
}

// The time of a fork and join of two tasks that wait for each other, so that both workers must take part: the best round of
// some, because the machine may be busy. Printed only: on a busy machine the
// other worker may wait for a processor.
TEST(Pool, ForkAndJoinCostLittle) {
  Workspace ws{{.scratch = 1_MiB, .threads = 2}};
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::seconds(2);
  double best = 1e9;
  for (int round = 0; round < 200 && Clock::now() < end; ++round) {
    constexpr int k_jobs = 20;
    const auto start = Clock::now();
    for (int i = 0; i < k_jobs; ++i) {
      std::atomic<int> arrived{0};
      parallel(ws.context(), 2, [&](std::uint32_t, int) {
        arrived.fetch_add(1);
        for (int spins = 0; arrived.load() < 2; ++spins) {
          if (spins > 10000) std::this_thread::yield();
        }
      });
    }
    best = std::min(best, std::chrono::duration<double, std::micro>(Clock::now() - start).count() / k_jobs);
  }
  std::printf("fork and join of 2 tasks on 2 workers: %.2f us\n", best);
}

TEST(Pool, IdleWorkersSleep) {
  Workspace ws{{.scratch = 1_MiB, .threads = 3}};
  parallel(ws.context(), 8, [](std::uint32_t, int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // they spin a little first
  const double before = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const double used = cpu_seconds() - before;
  std::printf("processor time of 300 ms idle: %.3f ms\n", used * 1e3);
  EXPECT_LT(used, 0.01);
  expect_each_once(ws, 100);  // and they wake again
}

TEST(Workspaces, RefuseThreadCountsThatMakeNoSense) {
  const Owned x = random_owned({3});
  for (const int threads : {0, -1, 100000}) {
    Workspace ws{{.scratch = 1_MiB, .threads = threads}};
    EXPECT_FAILS(ws.status(), Errc::invalid_argument);
    auto frame = ws.frame();
    EXPECT_FAILS(frame.input(x), Errc::invalid_argument);
    auto tape = ws.record();
    EXPECT_FAILS(tape.watch(x), Errc::invalid_argument);
    EXPECT_FAILS(ops::uniform(ws.context(), {3}), Errc::invalid_argument);
  }
}

TEST(Workspaces, SayWhenTheSystemHasNoMemory) {
  Workspace ws{{.scratch = std::size_t{1} << 62, .threads = 1}};
  EXPECT_FALSE(ws.status().has_value());
  Result<Tensor> made = Tensor();
  const Owned x = random_owned({3});
  {
    QORUS_NEEDS_ALLOCATION_COUNTER();
    const FailingAllocations none;
    Workspace small{{.scratch = 1_MiB, .threads = 1}};
    auto frame = small.frame();
    made = frame.input(x);
  }
  EXPECT_FAILS(made, Errc::out_of_memory);
}

// A host that runs tasks backwards, each on its own "worker", gets the same bits.
struct BackwardsHost {
  int width = 5, calls = 0;
  std::uint32_t tasks = 0;  // of the last call
  Executor executor() { return {this, width, run}; }
  static void run(void* self, std::uint32_t tasks, void (*task)(void*, std::uint32_t, int), void* user) {
    auto& host = *static_cast<BackwardsHost*>(self);
    ++host.calls;
    host.tasks = tasks;
    for (std::uint32_t i = tasks; i-- > 0;) task(user, i, static_cast<int>(i) % host.width);
  }
};

TEST(Workspaces, BorrowAHostsExecutor) {
  BackwardsHost host;
  Workspace borrowed{{.scratch = 64_MiB, .executor = host.executor()}};
  ASSERT_OK(borrowed.status());
  EXPECT_EQ(borrowed.threads(), 5);
  const Owned x = random_owned({129, 300}), w = random_owned({257, 300}, 2);
  const auto run = [&](Workspace& ws) {
    auto tape = ws.record();
    auto weight = tape.watch(w);
    auto g = backward(ops::mean(ops::softmax(ops::linear(tape.input(x), weight, Activation::silu))).value());
    return g.value().of(*weight).value().to_vector().value();
  };
  EXPECT_EQ(run(borrowed), run(workspace(1)));
  EXPECT_GT(host.calls, 3);
  Workspace none{{.scratch = 1_MiB, .executor = {&host, 0, BackwardsHost::run}}};
  EXPECT_FAILS(none.status(), Errc::invalid_argument);
}

// Large outputs are cut coarsely only where every worker has some of it to do.
TEST(Workspaces, GiveEveryWorkerWork) {
  const Owned x = random_owned({2048, 2048});
  const auto tasks = [&](int width, auto&& op) {
    BackwardsHost host{.width = width};
    Workspace ws{{.scratch = 64_MiB, .executor = host.executor()}};
    auto frame = ws.frame();
    EXPECT_OK(op(frame.input(x)));
    return host.tasks;
  };
  const auto gelu = [](const auto& a) { return ops::gelu(a); };
  const auto softmax = [](const auto& a) { return ops::softmax(a); };
  EXPECT_EQ(tasks(2, gelu), 2u);
  EXPECT_EQ(tasks(2, softmax), 2u);
  EXPECT_GE(tasks(16, gelu), 16u);
  EXPECT_GE(tasks(16, softmax), 16u);
}

TEST(Workspaces, MoveWithTheirTensorsStale) {
  const Owned x = random_owned({3});
  Workspace a{{.scratch = 1_MiB, .threads = 2}};
  Workspace b = std::move(a);
  auto frame = b.frame();
  EXPECT_OK(ops::exp(frame.input(x)));
  EXPECT_FAILS(a.status(), Errc::out_of_memory);  // NOLINT(bugprone-use-after-move): a moved-from workspace says no
}

// Steps that follow each other take the memory of one result; what was there before them stays as it is, wherever it lies.
TEST(OwnFrame, StepsUseOneAnothersMemory) {
  std::vector<float> numbers(256);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i) / 256;
  const Tensor x = Tensor::borrow(std::span<const float>(numbers), {16, 16});
  using Step = Result<Tensor> (*)(const Tensor&);
  const Step steps[] = {[](const Tensor& t) { return Result<Tensor>(t); },
                        [](const Tensor& t) { return ops::slice(t, 0, 8, 16); },
                        [](const Tensor& t) { return ops::exp(t); },
                        [](const Tensor& t) { return ops::add(ops::mul(t, t), t); },
                        [](const Tensor& t) { return ops::slice(t, 0, 2, 8); },
                        [](const Tensor& t) { return ops::transpose(ops::mul(t, 0.5f), 0, 1); },
                        [](const Tensor& t) { return Result<Tensor>(t); },
                        [](const Tensor& t) { return ops::concat({t, t, t}, 1); }};
  Workspace ws{{.scratch = 1_MiB, .threads = 1}};
  auto frame = ws.frame();
  const auto first = ops::square(frame.input(x));  // the last that the arena gave away
  const auto kept = first->to_vector().value();
  Result<Tensor> plain = first;
  for (const Step step : steps) plain = plain.and_then(step);
  const auto wanted = plain->to_vector().value();
  const auto last = ops::square(frame.input(x));
  const std::byte* const spent = free_memory(*last);
  const std::size_t before = ws.counters().in_use;
  Result<Tensor> y = last;
  for (const Step step : steps) {
    if (y) y = in_own_frame(*y, step, spent);
  }
  ASSERT_OK(y);
  EXPECT_EQ(y->to_vector().value(), wanted);
  EXPECT_EQ(last->to_vector().value(), kept);
  y = last;
  for (int i = 0; i < 10; ++i)
    y = in_own_frame(*y, [](const Tensor& t) { return ops::exp(ops::mul(t, -1.0f)); }, spent);
  ASSERT_OK(y);
  EXPECT_LE(ws.counters().in_use - before, plain->numel() * sizeof(float) + kept.size() * sizeof(float) + 256);
  EXPECT_EQ(free_memory(x), nullptr);
}

// The result of a frame of its own outlives it, whatever memory it names; what came between is given back; a tape keeps all.
TEST(OwnFrame, KeepsTheResultAlone) {
  std::vector<float> numbers(1024);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i);
  const std::span<const float> all(numbers);
  const Tensor x = Tensor::borrow(all, {32, 32});
  const auto squares = [](const Tensor& in) { return ops::mul(ops::add(ops::mul(in, in), in), in); };
  const auto same = [](const Tensor& in) { return Result<Tensor>(in); };
  const auto turned = [](const Tensor& in) { return ops::transpose(ops::add(in, in), 0, 1); };
  const auto broken = [](const Tensor& in) { return ops::reshape(in, {3}); };
  const auto used = [&](Workspace& ws, const auto& layer) {
    auto frame = ws.frame();
    auto in = frame.input(x);
    const std::size_t before = ws.counters().in_use;
    auto plain = layer(*in);
    const std::size_t direct = ws.counters().in_use - before;
    auto own = in_own_frame(*in, layer);
    auto after = ops::add(own, own);  // lives, and knows its context
    EXPECT_TRUE(after) << (after ? "" : after.error().message().c_str());
    if (!ws.context().planning && after) {
      EXPECT_EQ(own->to_vector().value(), plain->to_vector().value());
      EXPECT_EQ(after->to_vector().value(), ops::add(plain, plain)->to_vector().value());
    }
    return direct;
  };
  Workspace ws{{.scratch = 1_MiB, .threads = 1}};
  const std::size_t bytes = numbers.size() * sizeof(float);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(used(ws, squares), 3 * bytes);
    used(ws, same);
    used(ws, turned);
  }
  auto frame = ws.frame();
  auto in = frame.input(x);
  const std::size_t before = ws.counters().in_use;
  auto kept = in_own_frame(*in, squares);
  EXPECT_EQ(ws.counters().in_use - before, bytes);
  EXPECT_EQ(in_own_frame(*in, broken).error().code, Errc::invalid_size);
  EXPECT_TRUE(kept->alive());
  Tensor inner;
  auto outside = in_own_frame(*in, [&](const Tensor& y) {
    inner = *ops::add(y, y);
    return ops::add(inner, y);
  });
  EXPECT_TRUE(outside);
  EXPECT_EQ(ops::add(inner, inner).error().code, Errc::stale_tensor);
}

}  // namespace
