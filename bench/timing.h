// How the measuring programs time a step and print a figure: the same way, and in the same JSON form, as bench/peers/timing.py.
// Plain C++: include before any import.
#pragma once
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
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

// Seconds per step of each sample; a sample is one step, or as many as fill 3 ms. Samples in which another program pushed this one
// off a processor are left out where three others remain.
template <class Step>
std::vector<double> time_step(int threads, const Step& step, double seconds = 2.0, std::size_t most = 200,
                              std::size_t least = 5) {
  for (int i = 0; i < 3; ++i) step();
  double start = now(threads);
  step();
  const int calls = std::max(1, static_cast<int>(0.003 / std::max(now(threads) - start, 1e-6)));
  std::vector<double> clean, disturbed;
  const double end = now(2) + seconds;
  while (clean.size() + disturbed.size() < least || (now(2) < end && clean.size() < most)) {
    const long switches = usage().ru_nivcsw;
    start = now(threads);
    for (int i = 0; i < calls; ++i) step();
    const double took = (now(threads) - start) / calls;
    (usage().ru_nivcsw == switches ? clean : disturbed).push_back(took);
  }
  if (clean.size() < 3) clean.insert(clean.end(), disturbed.begin(), disturbed.end());
  std::sort(clean.begin(), clean.end());
  return clean;
}

// One JSON line. `config` is the inside of an object; `amount` is what one step does, counted in unit-seconds.
inline void report(const char* item, const char* version, const std::string& config, int threads,
                   const std::vector<double>& samples, double amount, const char* unit) {
  const double median = samples[samples.size() / 2];
  std::printf(
      "{\"peer\":\"qorus\",\"version\":\"%s\",\"item\":\"%s\",\"config\":{%s},\"threads\":%d,\"median_s\":%.5g,\"min_"
      "s\":%.5g,\"max_s\":%.5g,"
      "\"runs\":%zu,\"peak_rss_mb\":%ld,\"rate\":%.5g,\"best_rate\":%.5g,\"unit\":\"%s\",\"clock\":\"%s\"}\n",
      version, item, config.c_str(), threads, median, samples.front(), samples.back(), samples.size(),
      usage().ru_maxrss / 1024, amount / median, amount / samples.front(), unit, threads == 1 ? "cpu" : "wall");
  std::fflush(stdout);
}

}  // namespace bench
