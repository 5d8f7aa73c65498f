// Bodies of qorus.memory:host.
module;
#include <sched.h>

#include <cstdio>

#include "kernels/kernels.h"
module qorus.memory;
import qorus.std;

namespace qorus {
namespace {

// The container's processor quota (cgroup v2), or 0 if there is none.
double cgroup_quota() noexcept {
  std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "re");
  if (!file) return 0;
  double quota = 0, period = 0;
  const int read = std::fscanf(file, "%lf %lf", &quota, &period);
  std::fclose(file);
  return read == 2 && period > 0 ? quota / period : 0;
}

// The sink is two words that belong together: a reader that met a change (the version moved, or is odd) reads again.
constinit std::atomic<decltype(LogSink::write)> g_log_write{nullptr};
constinit std::atomic<void*> g_log_user{nullptr};
constinit std::atomic<unsigned> g_log_version{0};

}  // namespace

CpuInfo cpu_info() noexcept {
  const kernels::CpuFeatures has = kernels::cpu_features();
  return {kernels::active().isa, has.avx2, has.fma, has.f16c, has.avx512, has.avx512_vnni, has.avx512_bf16};
}

int cpu_count() noexcept {
  cpu_set_t set;
  int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  const double quota = cgroup_quota();
  if (quota > 0) count = std::min(count, static_cast<int>(std::ceil(quota)));
  return std::max(count, 1);
}

void set_log_sink(const LogSink& sink) noexcept {
  unsigned version = g_log_version.load();
  while (version & 1 || !g_log_version.compare_exchange_weak(version, version + 1)) version = g_log_version.load();
  g_log_write.store(sink.write);
  g_log_user.store(sink.user);
  g_log_version.store(version + 2);
}

void log(LogLevel level, std::string_view text) noexcept {
  LogSink sink;
  unsigned before = 0, after = 0;
  do {
    before = g_log_version.load();
    sink = {g_log_write.load(), g_log_user.load()};
    after = g_log_version.load();
  } while (before & 1 || before != after);
  if (sink.write) sink.write(sink.user, level, text);
}

}  // namespace qorus
