// Bodies of qorus.ops:pool.
module;
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

module qorus.ops;
import qorus.std;
import :pool;

namespace qorus {
namespace {

constexpr int k_spins = 4000;  // pauses before a worker goes to sleep: some 50 to 100 microseconds

void pause() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

Status Pool::start(int width) noexcept {
  if (width < 1 || width > k_max_width) return fail(Errc::invalid_argument, "Workspace", "threads must be 1 to 256");
  if (auto room = workers_.resize(static_cast<std::size_t>(width - 1)); !room) return room;
  if (auto room = shares_.resize(static_cast<std::size_t>(width)); !room) return room;
  for (int i = 1; i < width; ++i) {
    Worker& worker = workers_[static_cast<std::size_t>(i - 1)];
    worker.pool = this;
    worker.index = i;
    const auto entry = [](void* self) -> void* {
      auto* me = static_cast<Worker*>(self);
      me->pool->serve(me->index);
      return nullptr;
    };
    if (pthread_create(&worker.thread, nullptr, entry, &worker) != 0) {
      return fail(Errc::out_of_memory, "Workspace", "the system gives no more threads");
    }
    width_ = i + 1;
  }
  return {};
}

Pool::~Pool() {
  stop_.store(true);
  bell_.fetch_add(1);
  syscall(SYS_futex, &bell_, FUTEX_WAKE_PRIVATE, k_max_width, nullptr, nullptr, 0);
  for (int i = 1; i < width_; ++i) pthread_join(workers_[static_cast<std::size_t>(i - 1)].thread, nullptr);
}

Executor Pool::executor() noexcept {
  return {this, width_, [](void* self, std::uint32_t tasks, void (*task)(void*, std::uint32_t, int), void* user) {
            static_cast<Pool*>(self)->run(tasks, task, user);
          }};
}

void Pool::run(std::uint32_t tasks, Task task, void* user) noexcept {
  for (std::uint32_t first = 0; first < tasks;) {
    const auto some = static_cast<std::uint32_t>(tasks - first < k_count_mask ? tasks - first : k_count_mask);
    run_some(first, some, task, user);
    first += some;
  }
}

void Pool::run_some(std::uint32_t first, std::uint32_t tasks, Task task, void* user) noexcept {
  done_.store(0, std::memory_order_relaxed);
  const auto width = static_cast<std::uint64_t>(width_);
  std::uint64_t next = 0;
  ++epoch_;
  for (std::uint64_t i = 0; i < width; ++i) {
    Share& share = shares_[i];
    const std::uint64_t end = (tasks * (i + 1) + width - 1) / width;
    share.task.store(task, std::memory_order_relaxed);
    share.user.store(user, std::memory_order_relaxed);
    share.first.store(first, std::memory_order_relaxed);
    share.left.store(epoch_ << (2 * k_count_bits) | end << k_count_bits | next, std::memory_order_release);
    next = end;
  }
  if (sleepers_.fetch_add(0) > 0) {  // a write: a worker that counts itself after it sees its share when it looks again
    bell_.fetch_add(1);
    syscall(SYS_futex, &bell_, FUTEX_WAKE_PRIVATE, static_cast<int>(tasks) - 1, nullptr, nullptr, 0);
  }
  work(0);
  for (int spins = 0; done_.load(std::memory_order_acquire) != tasks; ++spins) {
    if (spins < k_spins) {
      pause();
    } else {
      sched_yield();  // a worker lost its processor in the middle of a task
    }
  }
}

// Runs what is left of the current job, first of the worker's own share.
void Pool::work(int worker) noexcept {
  const std::size_t width = shares_.size(), self = static_cast<std::size_t>(worker);
  std::uint32_t ran = 0;
  for (std::size_t i = 0; i < width; ++i) ran += work_off(shares_[(self + i) % width], i == 0, worker);
  if (ran > 0) done_.fetch_add(ran, std::memory_order_release);
}

// Claims and runs a share's tasks one by one until none is left: its owner from the front, others from the back. Returns how many.
std::uint32_t Pool::work_off(Share& share, bool own, int worker) noexcept {
  std::uint32_t ran = 0;
  std::uint64_t left = share.left.load(std::memory_order_acquire);
  while (true) {
    const auto next = static_cast<std::uint32_t>(left & k_count_mask);
    const auto end = static_cast<std::uint32_t>(left >> k_count_bits & k_count_mask);
    if (next >= end) return ran;
    // Read before the claim: a claim that succeeds proves that the job was still this one.
    const Task task = share.task.load(std::memory_order_relaxed);
    void* user = share.user.load(std::memory_order_relaxed);
    const std::uint32_t index = share.first.load(std::memory_order_relaxed) + (own ? next : end - 1);
    const std::uint64_t rest = own ? left + 1 : left - (1u << k_count_bits);
    if (!share.left.compare_exchange_weak(left, rest, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    task(user, index, worker);
    ++ran;
    left = share.left.load(std::memory_order_acquire);
  }
}

void Pool::serve(int worker) noexcept {
  const Share& own = shares_[static_cast<std::size_t>(worker)];
  std::uint64_t seen = 0;
  int idle = 0;
  while (!stop_.load(std::memory_order_relaxed)) {
    if (const std::uint64_t epoch = own.left.load(std::memory_order_acquire) >> (2 * k_count_bits); epoch != seen) {
      seen = epoch;
      work(worker);
      idle = 0;
    } else if (++idle < k_spins) {
      pause();
    } else {
      sleep(own, seen);
      idle = 0;
    }
  }
}

void Pool::sleep(const Share& own, std::uint64_t seen) noexcept {
  const std::uint32_t heard = bell_.load();
  sleepers_.fetch_add(1);
  if (own.left.load() >> (2 * k_count_bits) == seen && !stop_.load()) {
    syscall(SYS_futex, &bell_, FUTEX_WAIT_PRIVATE, heard, nullptr, nullptr, 0);
  }
  sleepers_.fetch_sub(1);
}

}  // namespace qorus
