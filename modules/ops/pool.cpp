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
  constexpr std::uint32_t k_most = k_count_mask - k_max_width;  // late claims may pass the end by one per worker
  for (std::uint32_t first = 0; first < tasks; first += k_most) {
    run_some(first, tasks - first < k_most ? tasks - first : k_most, task, user);
  }
}

void Pool::run_some(std::uint32_t first, std::uint32_t tasks, Task task, void* user) noexcept {
  task_.store(task, std::memory_order_relaxed);
  user_.store(user, std::memory_order_relaxed);
  first_.store(first, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  const std::uint64_t epoch = (job_.load(std::memory_order_relaxed) >> (2 * k_count_bits)) + 1;
  job_.store(epoch << (2 * k_count_bits) | static_cast<std::uint64_t>(tasks) << k_count_bits);
  if (sleepers_.load() > 0) {
    bell_.fetch_add(1);
    syscall(SYS_futex, &bell_, FUTEX_WAKE_PRIVATE, static_cast<int>(tasks) - 1, nullptr, nullptr, 0);
  }
  while (work_once(0)) {}
  for (int spins = 0; done_.load(std::memory_order_acquire) != tasks; ++spins) {
    if (spins < k_spins) {
      pause();
    } else {
      sched_yield();  // a worker lost its processor in the middle of a task
    }
  }
}

// Claims and runs one task of the current job; false if there is none.
bool Pool::work_once(int worker) noexcept {
  std::uint64_t job = job_.load(std::memory_order_acquire);
  while (true) {
    const auto next = static_cast<std::uint32_t>(job & k_count_mask);
    const auto tasks = static_cast<std::uint32_t>(job >> k_count_bits & k_count_mask);
    if (next >= tasks) return false;
    // Read before the claim: a claim that succeeds proves that the job was still this one.
    const Task task = task_.load(std::memory_order_relaxed);
    void* user = user_.load(std::memory_order_relaxed);
    const std::uint32_t index = first_.load(std::memory_order_relaxed) + next;
    if (job_.compare_exchange_weak(job, job + 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
      task(user, index, worker);
      done_.fetch_add(1, std::memory_order_release);
      return true;
    }
  }
}

void Pool::serve(int worker) noexcept {
  int idle = 0;
  while (!stop_.load(std::memory_order_relaxed)) {
    if (work_once(worker)) {
      idle = 0;
    } else if (++idle < k_spins) {
      pause();
    } else {
      sleep();
      idle = 0;
    }
  }
}

void Pool::sleep() noexcept {
  const std::uint32_t heard = bell_.load();
  sleepers_.fetch_add(1);
  const std::uint64_t job = job_.load();
  const bool idle = (job & k_count_mask) >= (job >> k_count_bits & k_count_mask);
  if (idle && !stop_.load()) syscall(SYS_futex, &bell_, FUTEX_WAIT_PRIVATE, heard, nullptr, nullptr, 0);
  sleepers_.fetch_sub(1);
}

}  // namespace qorus
