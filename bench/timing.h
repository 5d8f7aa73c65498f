// How the measuring programs time a step and print a figure: the same way, and in the same JSON form, as bench/peers/timing.py.
// Plain C++: include before any import.
#pragma once
#include <sys/resource.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

namespace bench {

// One thread is timed on the process's own clock, which stands still while another program has the processor; more on the wall clock.
inline double now(int threads) {
  timespec t;
  clock_gettime(threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

inline rusage usage() {
  rusage r;
  getrusage(RUSAGE_SELF, &r);
  return r;
}

// Seconds per step of each sample, sorted, for each of several steps that take turns; a sample is one step, or as many as fill 3 ms.
// Samples in which another program pushed this one off a processor are left out where three others remain.
inline std::vector<std::vector<double>> time_turns(int threads, const std::vector<std::function<void()>>& steps,
                                                   double seconds = 2.0, std::size_t most = 200,
                                                   std::size_t least = 5) {
  const std::size_t count = steps.size();
  std::vector<int> calls;
  for (const auto& step : steps) {
    for (int i = 0; i < 3; ++i) step();
    const double start = now(threads);
    step();
    calls.push_back(std::max(1, static_cast<int>(0.003 / std::max(now(threads) - start, 1e-6))));
  }
  std::vector<std::vector<double>> clean(count), disturbed(count);
  const double end = now(2) + seconds;
  for (std::size_t round = 0; round < least || (now(2) < end && round < most); ++round) {
    for (std::size_t i = 0; i < count; ++i) {
      if (count > 1) steps[i]();  // brings its operands back into the caches after the others' turns
      const long switches = usage().ru_nivcsw;
      const double start = now(threads);
      for (int call = 0; call < calls[i]; ++call) steps[i]();
      const double took = (now(threads) - start) / calls[i];
      (usage().ru_nivcsw == switches ? clean : disturbed)[i].push_back(took);
    }
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (clean[i].size() < 3) clean[i].insert(clean[i].end(), disturbed[i].begin(), disturbed[i].end());
    std::sort(clean[i].begin(), clean[i].end());
  }
  return clean;
}

// The same for one step alone.
template <class Step>
std::vector<double> time_step(int threads, const Step& step, double seconds = 2.0) {
  return time_turns(threads, {[&] { step(); }}, seconds).front();
}

// One JSON line. `config` is the inside of an object; `amount` is what one step does, counted in unit-seconds.
inline void report(const char* item, const char* version, const std::string& config, int threads,
                   const std::vector<double>& samples, double amount, const char* unit, const char* peer = "qorus") {
  const double median = samples[samples.size() / 2];
  std::printf(
      "{\"peer\":\"%s\",\"version\":\"%s\",\"item\":\"%s\",\"config\":{%s},\"threads\":%d,\"median_s\":%.5g,\"min_"
      "s\":%.5g,\"max_s\":%.5g,"
      "\"runs\":%zu,\"peak_rss_mb\":%ld,\"rate\":%.5g,\"best_rate\":%.5g,\"unit\":\"%s\",\"clock\":\"%s\"}\n",
      peer, version, item, config.c_str(), threads, median, samples.front(), samples.back(), samples.size(),
      usage().ru_maxrss / 1024, amount / median, amount / samples.front(), unit, threads == 1 ? "cpu" : "wall");
  std::fflush(stdout);
}

}  // namespace bench
