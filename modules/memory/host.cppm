// The machine and the host program: what the CPU offers, how many processors are ours, clocks, and the log sink.
export module qorus.memory:host;
import qorus.std;

export namespace qorus {

struct CpuInfo {
  const char* isa;  // the kernels in use: "scalar", "avx2", "avx512"; QORUS_ISA lowers the choice
  bool avx2, fma, f16c, avx512, avx512_vnni, avx512_bf16;
};
[[nodiscard]] CpuInfo cpu_info() noexcept;

// Processors this process may use: its affinity, and its container's quota rounded up. At least 1.
[[nodiscard]] int cpu_count() noexcept;

// Seconds since it was made or restarted.
class Stopwatch {
 public:
  [[nodiscard]] double seconds() const noexcept { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  void restart() noexcept { start_ = Clock::now(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

enum class LogLevel : std::uint8_t { debug, info, warning, error };

// Receives each message; the library itself prints nothing. May be called from any thread, and for a moment still after
// another was set. Null (the default) drops them.
struct LogSink {
  void (*write)(void* user, LogLevel level, std::string_view text) = nullptr;
  void* user = nullptr;
};
void set_log_sink(const LogSink& sink) noexcept;
void log(LogLevel level, std::string_view text) noexcept;

}  // namespace qorus
