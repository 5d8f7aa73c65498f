// Times the f32 matrix product: one JSON line per shape, with the operands as given ("qorus") and with B packed ahead
// ("qorus_packed"), which take turns. The median of many short samples; one thread is timed on the process's own clock,
// which stands still while another program has the processor, more threads on the wall clock.
//
//   gemm [--isa scalar|avx2|avx512] [--rounds R] [--threads T] [--shapes square|skinny|forms|all | --shape
//   m,n,k,nn|nt|tn|tt]
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kernels/parts.h"

namespace {

using namespace qorus::kernels;

struct Shape {
  std::size_t m, n, k;
  bool a_transposed, b_transposed;
};

struct Floats {  // 64-byte aligned; uninitialised
  std::unique_ptr<float, decltype(&std::free)> data;
  explicit Floats(std::size_t count)
      : data(static_cast<float*>(std::aligned_alloc(64, (count * sizeof(float) + 127) / 64 * 64)), &std::free) {}
  float* get() const { return data.get(); }
};

Floats random_floats(std::size_t count) {
  Floats x(count);
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < count; ++i) {
    state = state * 1664525u + 1013904223u;
    x.get()[i] = static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
  }
  return x;
}

// Workers that spin between products: the least that can stand in for a pool.
class Team {
 public:
  explicit Team(std::size_t threads) {
    for (std::size_t t = 1; t < threads; ++t) helpers.emplace_back([this, t] { help(t); });
  }
  ~Team() {
    stop = true;
    for (std::thread& helper : helpers) helper.join();
  }
  void run(const GemmPart& part, const Gemm& g, const GemmPlan& plan, void* shared, std::vector<Floats>& scratch) {
    for (std::uint32_t phase = 0; phase < plan.phases; ++phase) {
      if (helpers.empty() || plan.tasks[phase] == 1) {
        for (std::uint32_t t = 0; t < plan.tasks[phase]; ++t) part.task(g, plan, phase, t, shared, scratch[0].get());
        continue;
      }
      work = {&part, &g, &plan, phase, shared, &scratch};
      next = 0;
      busy = static_cast<int>(helpers.size());
      generation.fetch_add(1, std::memory_order_release);
      take(0);
      while (busy.load(std::memory_order_acquire) != 0) __builtin_ia32_pause();
    }
  }

 private:
  struct Work {
    const GemmPart* part;
    const Gemm* g;
    const GemmPlan* plan;
    std::uint32_t phase;
    void* shared;
    std::vector<Floats>* scratch;
  } work{};
  std::vector<std::thread> helpers;
  std::atomic<std::uint32_t> next{0}, generation{0};
  std::atomic<int> busy{0};
  std::atomic<bool> stop{false};

  void take(std::size_t worker) {
    for (std::uint32_t t; (t = next.fetch_add(1)) < work.plan->tasks[work.phase];)
      work.part->task(*work.g, *work.plan, work.phase, t, work.shared, (*work.scratch)[worker].get());
  }
  void help(std::size_t worker) {
    std::uint32_t seen = 0;
    while (!stop) {
      if (generation.load(std::memory_order_acquire) == seen) {
        __builtin_ia32_pause();
        continue;
      }
      ++seen;
      take(worker);
      busy.fetch_sub(1, std::memory_order_release);
    }
  }
};

double now(bool own_clock) {
  timespec t;
  clock_gettime(own_clock ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

rusage usage() {
  rusage r;
  getrusage(RUSAGE_SELF, &r);
  return r;
}

struct Candidate {
  const char* name;
  Gemm g;
  std::vector<double> seconds{}, disturbed{};
  int calls = 1;
};

void print(Candidate& candidate, const Shape& s, std::size_t threads, const char* isa) {
  std::vector<double>& t = candidate.seconds;
  if (t.size() < 3) t.insert(t.end(), candidate.disturbed.begin(), candidate.disturbed.end());
  std::sort(t.begin(), t.end());
  const double work = 2e-9 * static_cast<double>(s.m * s.n * s.k), median = t[t.size() / 2];
  std::printf(
      "{\"peer\":\"%s\",\"version\":\"%s\",\"item\":\"sgemm\",\"config\":{\"m\":%zu,\"n\":%zu,\"k\":%zu,"
      "\"weights\":\"%s%s\"},\"threads\":%zu,\"median_s\":%.6g,\"min_s\":%.6g,\"max_s\":%.6g,\"runs\":%zu,"
      "\"peak_rss_mb\":%ld,\"rate\":%.4g,\"best_rate\":%.4g,\"unit\":\"GFLOP/s\",\"clock\":\"%s\"}\n",
      candidate.name, isa, s.m, s.n, s.k, s.b_transposed ? "nk" : "kn", s.a_transposed ? ",a km" : "", threads, median,
      t.front(), t.back(), t.size(), usage().ru_maxrss / 1024, work / median, work / t.front(),
      threads == 1 ? "cpu" : "wall");
  std::fflush(stdout);
}

void measure(const Shape& s, const GemmPart& part, const char* isa, int rounds, std::size_t threads, Team& team) {
  const Floats a = random_floats(s.m * s.k), b = random_floats(s.k * s.n), c(s.m * s.n);
  const auto n = static_cast<std::ptrdiff_t>(s.n), k = static_cast<std::ptrdiff_t>(s.k);
  Gemm g{.m = s.m, .n = s.n, .k = s.k, .a = a.get(), .a_row = k, .a_col = 1, .b = b.get(), .b_row = n, .b_col = 1};
  if (s.a_transposed) g.a_row = 1, g.a_col = static_cast<std::ptrdiff_t>(s.m);
  if (s.b_transposed) g.b_row = 1, g.b_col = k;
  g.c = c.get(), g.c_row = n;
  const Floats packed(part.packed_size(s.n, s.k));
  part.pack(g, packed.get());
  std::vector<Candidate> candidates = {{"qorus", g}, {"qorus_packed", g}};
  candidates[1].g.b_packed = packed.get();

  std::vector<Floats> scratch;
  std::size_t bytes = 0, shared_bytes = 0;
  for (const Candidate& candidate : candidates) {
    bytes = std::max(bytes, part.plan(candidate.g).worker_bytes);
    shared_bytes = std::max(shared_bytes, part.plan(candidate.g).shared_bytes);
  }
  const Floats shared(shared_bytes / sizeof(float));
  for (std::size_t t = 0; t < threads; ++t) scratch.emplace_back(bytes / sizeof(float));
  auto call = [&](const Gemm& product) {
    const GemmPlan plan = part.plan(product);
    team.run(part, product, plan, shared.get(), scratch);
  };
  const bool own_clock = threads == 1;
  auto time_calls = [&](const Candidate& candidate) {
    const double start = now(own_clock);
    for (int i = 0; i < candidate.calls; ++i) call(candidate.g);
    return (now(own_clock) - start) / candidate.calls;
  };
  for (Candidate& candidate : candidates) {
    for (int i = 0; i < 4; ++i) call(candidate.g);
    candidate.calls = std::max(1, static_cast<int>(0.002 / std::max(time_calls(candidate), 1e-8)));
  }
  for (int round = 0; round < rounds; ++round)
    for (Candidate& candidate : candidates) {
      call(candidate.g);  // brings its operands back into the caches after the other's turn
      const long pushed_off = usage().ru_nivcsw;
      const double seconds = time_calls(candidate);
      (usage().ru_nivcsw == pushed_off ? candidate.seconds : candidate.disturbed).push_back(seconds);
    }
  for (Candidate& candidate : candidates) print(candidate, s, threads, isa);
}

std::vector<Shape> shapes_of(const std::string& which) {
  std::vector<Shape> shapes;
  if (which == "square" || which == "all")
    for (std::size_t size : {64, 128, 256, 512, 1024, 2048}) shapes.push_back({size, size, size, false, false});
  if (which == "skinny" || which == "all") {
    for (std::size_t size : {768, 2048, 4096})
      for (std::size_t m : {1, 8, 32, 128, 512}) shapes.push_back({m, size, size, false, true});
    shapes.push_back({512, 3072, 768, false, true});
    shapes.push_back({4096, 256, 256, false, true});
  }
  if (which == "forms")
    for (std::size_t size : {64, 256, 1024})
      for (int form = 0; form < 4; ++form) shapes.push_back({size, size, size, (form & 2) != 0, (form & 1) != 0});
  return shapes;
}

}  // namespace

int main(int count, char** arguments) {
  int rounds = 25;
  std::size_t threads = 1;
  std::string isa = cpu_features().avx512 ? "avx512" : cpu_features().avx2 ? "avx2" : "scalar", which = "all";
  std::vector<Shape> shapes;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string name = arguments[i], value = arguments[i + 1];
    if (name == "--rounds") rounds = std::max(1, std::atoi(value.c_str()));
    if (name == "--threads") threads = static_cast<std::size_t>(std::max(1, std::atoi(value.c_str())));
    if (name == "--isa") isa = value;
    if (name == "--shapes") which = value;
    Shape s{};
    char ta, tb;
    if (name == "--shape" && std::sscanf(value.c_str(), "%zu,%zu,%zu,%c%c", &s.m, &s.n, &s.k, &ta, &tb) == 5) {
      s.a_transposed = ta == 't', s.b_transposed = tb == 't';
      shapes.push_back(s);
    }
  }
  if (shapes.empty()) shapes = shapes_of(which);
  const GemmPart& part = isa == "avx512" ? gemm_avx512 : isa == "avx2" ? gemm_avx2 : gemm_scalar;
  if ((isa == "avx512" && !cpu_features().avx512) || (isa == "avx2" && !cpu_features().avx2)) {
    std::fprintf(stderr, "gemm: this CPU has no %s\n", isa.c_str());
    return 1;
  }
  Team team(threads);
  for (const Shape& shape : shapes) measure(shape, part, isa.c_str(), rounds, threads, team);
}
