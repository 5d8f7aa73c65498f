// Bodies of qorus.llm:packing.
module;
#include <pthread.h>

module qorus.llm;
import qorus.std;

namespace qorus::llm {
struct PackedWeights::Work {
  struct Job {
    Tensor stored;
    std::span<std::byte> place;
    bool mapped = false;
  };
  List<Job> jobs;
  List<std::size_t> layers;  // how many jobs there are up to the end of each
  pthread_t thread{};
  bool started = false;
  std::atomic<bool> stop{false};
  std::atomic<std::size_t> done{0};  // jobs that are done well
  std::atomic<bool> failed{false};   // there will be no more of them
  Status status;                     // written before `failed`
  std::atomic<bool> begun{false};    // somebody paused it
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t change = PTHREAD_COND_INITIALIZER;
  int waiting = 0;      // under the mutex, both: for jobs that are not done
  bool paused = false;  // nobody's wait outlasts it

  void run() noexcept {
    Workspace workspace{{.scratch = 1_MiB, .threads = cpu_count()}};
    Status good = workspace.status();
    for (std::size_t i = 0; i < jobs.size() && good && goes_on(); ++i) {
      const Job& job = jobs[i];
      auto frame = workspace.frame();
      auto input = frame.input(job.stored);
      good = input ? ops::pack_weight(*input, job.place) : Status(fail(input.error()));
      if (good && job.mapped)
        MappedFile::let_go({job.stored.data(), row_bytes(job.stored.dtype(), job.stored.numel())});
      if (good) tell([&] { done.store(i + 1, std::memory_order_release); });
    }
    if (good) return;
    status = good;
    tell([&] { failed.store(true, std::memory_order_release); });
  }
  template <class F>
  void tell(F&& change_it) noexcept {
    pthread_mutex_lock(&mutex);
    change_it();
    pthread_cond_broadcast(&change);
    pthread_mutex_unlock(&mutex);
  }
  // Whether there is to be another job, once it may begin.
  [[nodiscard]] bool goes_on() noexcept {
    pthread_mutex_lock(&mutex);
    while (paused && waiting == 0 && !stop.load(std::memory_order_relaxed)) pthread_cond_wait(&change, &mutex);
    pthread_mutex_unlock(&mutex);
    return !stop.load(std::memory_order_relaxed);
  }
  [[nodiscard]] Status wait(std::size_t count) noexcept {
    const auto over = [&] {
      return done.load(std::memory_order_acquire) >= count || failed.load(std::memory_order_acquire);
    };
    if (!over()) {
      pthread_mutex_lock(&mutex);
      ++waiting;
      pthread_cond_broadcast(&change);
      while (!over()) pthread_cond_wait(&change, &mutex);
      --waiting;
      pthread_mutex_unlock(&mutex);
    }
    return failed.load(std::memory_order_acquire) ? status : Status{};
  }
};

PackedWeights::Pause::~Pause() {
  if (work_) work_->tell([&] { work_->paused = false; });
}

PackedWeights::Pause PackedWeights::pause_once() const noexcept {
  if (!work_ || work_->begun.exchange(true, std::memory_order_relaxed)) return Pause(nullptr);
  if (work_->done.load(std::memory_order_relaxed) == work_->jobs.size()) return Pause(nullptr);
  work_->tell([&] { work_->paused = true; });
  return Pause(work_);
}

Laying PackedWeights::laying_of(const nn::Param& param) const noexcept {
  for (std::size_t i = work_ ? work_->jobs.size() : 0; i-- > 0;) {  // the newest are asked for
    if (work_->jobs[i].place.data() == param.packed.data()) return {&work_->done, i};
  }
  return {};
}

Result<PackedWeights> PackedWeights::create(std::size_t bytes) noexcept {
  auto room = (Checked(bytes) + bytes / 8 + 64_MiB).get("weights");  // address space: rows are filled up
  if (!room) return fail(room.error());
  auto arena = Arena::create(*room);
  if (!arena) return fail(arena.error());
  PackedWeights made;
  made.arena_ = std::move(*arena);
  made.arena_.prefer_huge_pages(true);
  made.work_ = new (std::nothrow) Work;
  if (!made.work_) return fail(Errc::out_of_memory, "weights", "the system has no more memory");
  return made;
}

PackedWeights::~PackedWeights() {
  if (work_ && work_->started) {
    work_->tell([&] { work_->stop.store(true, std::memory_order_relaxed); });
    pthread_join(work_->thread, nullptr);
  }
  delete work_;
}

bool PackedWeights::takes(const Tensor& stored) noexcept {
  return stored.contiguous() && ops::packed_bytes(stored.dtype(), stored.shape()) > 0;
}

Status PackedWeights::pack(nn::Param& param, bool mapped) noexcept {
  const std::size_t bytes = ops::packed_bytes(param.tensor.dtype(), param.tensor.shape());
  auto slice = arena_.take(bytes);
  if (!slice) return fail(slice.error());
  if (auto kept = work_->jobs.push({param.tensor, {slice->data, bytes}, mapped}); !kept) return kept;
  param.packed =
      Tensor(slice->data, DType::u8, Layout::dense(Shape{static_cast<std::int64_t>(bytes)}), slice->lifetime);
  return {};
}

Status PackedWeights::end_layer() noexcept { return work_->layers.push(work_->jobs.size()); }

Status PackedWeights::start() noexcept {
  if (work_->jobs.empty()) return {};
  const auto run = [](void* work) -> void* {
    static_cast<Work*>(work)->run();
    return nullptr;
  };
  if (pthread_create(&work_->thread, nullptr, run, work_) != 0)
    return fail(Errc::out_of_memory, "weights", "the system refuses a thread");
  work_->started = true;
  return {};
}

Status PackedWeights::wait(std::ptrdiff_t layer) const noexcept {
  if (!work_) return {};
  const bool all = layer < 0 || static_cast<std::size_t>(layer) >= work_->layers.size();
  return work_->wait(all ? work_->jobs.size() : work_->layers[static_cast<std::size_t>(layer)]);
}

}  // namespace qorus::llm
