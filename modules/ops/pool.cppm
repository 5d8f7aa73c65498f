// The workspace's own workers. A job is one word (epoch, tasks, next task), so that claiming a task is one compare-and-swap and a
// late worker can never touch a job that is over. Workers spin for some microseconds after a job, then sleep in the kernel.
module;
#include <pthread.h>

module qorus.ops:pool;
import qorus.std;
import qorus.tensor;

namespace qorus {

class Pool {
 public:
  Pool() noexcept = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool();

  // Starts width - 1 threads. Errors: out_of_memory (threads that the system refuses).
  [[nodiscard]] Status start(int width) noexcept;
  [[nodiscard]] Executor executor() noexcept;

 private:
  using Task = void (*)(void* user, std::uint32_t index, int worker);
  struct Worker {
    Pool* pool = nullptr;
    pthread_t thread{};
    int index = 0;
  };
  static constexpr int k_max_width = 256;
  static constexpr int k_count_bits =
      20;  // of tasks and of next in the job word; more tasks than that run in several jobs
  static constexpr std::uint64_t k_count_mask = (1u << k_count_bits) - 1;

  void run(std::uint32_t tasks, Task task, void* user) noexcept;
  void run_some(std::uint32_t first, std::uint32_t tasks, Task task, void* user) noexcept;
  bool work_once(int worker) noexcept;
  void serve(int worker) noexcept;
  void sleep() noexcept;

  alignas(64) std::atomic<std::uint64_t> job_{0};  // epoch | tasks | next
  std::atomic<Task> task_{nullptr};
  std::atomic<void*> user_{nullptr};
  std::atomic<std::uint32_t> first_{0};
  alignas(64) std::atomic<std::uint32_t> done_{0};
  alignas(64) std::atomic<std::uint32_t> bell_{0};  // a futex: changes when sleepers must look again
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
  int width_ = 1;
  List<Worker> workers_;
};

}  // namespace qorus
