// Bodies of qorus.memory:guard. The handler takes no lock and allocates nothing: it reads a table of mappings whose lines say by their
// version whether they hold, and calls mmap.
module;
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
module qorus.memory;
import qorus.std;
import :guard;

namespace qorus {
namespace {

// One mapping. It holds while its version is odd.
struct Line {
  std::atomic<std::uint32_t> version{0};
  std::atomic<std::uintptr_t> begin{0}, end{0};
  std::atomic<Block*> block{nullptr};
  off_t size = 0;  // these two by holders of the lock, and by the mapping's owner
  int descriptor = -1;
};
struct Table {
  Line lines[64];
  std::atomic<Table*> next{nullptr};  // never freed
};

constinit Table g_table;
constinit std::atomic_flag g_locked;
constinit bool g_installed = false;
constinit std::uintptr_t g_page = 4096;
constinit struct sigaction g_before{};

class Lock {
 public:
  Lock() noexcept {
    while (g_locked.test_and_set(std::memory_order_acquire)) ::sched_yield();
  }
  ~Lock() { g_locked.clear(std::memory_order_release); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
};

// The first line that `wanted` likes, or null.
template <class F>
Line* find_line(const F& wanted) noexcept {
  for (Table* table = &g_table; table; table = table->next.load(std::memory_order_acquire)) {
    for (Line& line : table->lines) {
      if (wanted(line)) return &line;
    }
  }
  return nullptr;
}

// Puts zeros where a watched file has nothing any more, from the page at fault on. False if the address is none of ours.
bool replace(std::uintptr_t address) noexcept {
  std::uintptr_t end = 0;
  Block* block = nullptr;
  const Line* line = find_line([&](const Line& l) {
    const std::uint32_t version = l.version.load(std::memory_order_acquire);
    if (version % 2 == 0) return false;
    const std::uintptr_t begin = l.begin.load(std::memory_order_relaxed);
    end = l.end.load(std::memory_order_relaxed);
    block = l.block.load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    return l.version.load(std::memory_order_relaxed) == version && address >= begin && address < end;
  });
  if (!line) return false;
  block->generation.fetch_or(k_torn, std::memory_order_acq_rel);  // first: whoever sees the zeros can see the mark
  const std::uintptr_t page = address / g_page * g_page;
  void* place = reinterpret_cast<void*>(page);  // NOLINT(performance-no-int-to-ptr): an address is what a fault has
  return ::mmap(place, end - page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == place;
}

void on_fault(int signal, siginfo_t* info, void* context) noexcept {
  const int kept = errno;
  const bool ours = info->si_code == BUS_ADRERR && replace(reinterpret_cast<std::uintptr_t>(info->si_addr));
  errno = kept;
  if (ours) return;
  if (g_before.sa_flags & SA_SIGINFO) {
    g_before.sa_sigaction(signal, info, context);
  } else if (g_before.sa_handler != SIG_DFL && g_before.sa_handler != SIG_IGN) {
    g_before.sa_handler(signal);
  } else if (info->si_code > 0 || g_before.sa_handler == SIG_DFL) {
    // What the system does without a handler: the instruction faults again; a signal that was sent is sent again.
    struct sigaction none{};
    none.sa_handler = SIG_DFL;
    ::sigaction(signal, &none, nullptr);
    if (info->si_code <= 0) ::syscall(SYS_tgkill, ::getpid(), ::gettid(), signal);
  }
}

void install() noexcept {
  g_installed = true;
  const char* wish = std::getenv("QORUS_SIGBUS");
  if (wish && std::string_view(wish) == "host") return;
  g_page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  if (::sigaction(SIGBUS, nullptr, &g_before) != 0) return;
  struct sigaction ours{};
  ours.sa_sigaction = on_fault;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  ::sigemptyset(&ours.sa_mask);
  ::sigaction(SIGBUS, &ours, nullptr);
}

bool is_free(const Line& line) noexcept { return line.version.load(std::memory_order_relaxed) % 2 == 0; }

Line* line_of(const void* begin) noexcept {
  const auto first = reinterpret_cast<std::uintptr_t>(begin);
  return find_line([&](const Line& l) { return !is_free(l) && l.begin.load(std::memory_order_relaxed) == first; });
}

}  // namespace

Status watch(const std::byte* begin, std::size_t size, Block* block, int descriptor) noexcept {
  const Lock lock;
  if (!g_installed) install();
  Line* line = find_line(is_free);
  if (!line) {
    auto* more = new (std::nothrow) Table;
    if (!more) {
      ::close(descriptor);
      return fail(Errc::out_of_memory, "open", "no memory to keep track of one more file");
    }
    more->next.store(g_table.next.load(std::memory_order_relaxed), std::memory_order_relaxed);
    g_table.next.store(more, std::memory_order_release);
    line = &more->lines[0];
  }
  const auto first = reinterpret_cast<std::uintptr_t>(begin);
  line->begin.store(first, std::memory_order_relaxed);
  line->end.store((first + size + g_page - 1) / g_page * g_page, std::memory_order_relaxed);
  line->block.store(block, std::memory_order_relaxed);
  line->size = static_cast<off_t>(size);
  line->descriptor = descriptor;
  line->version.fetch_add(1, std::memory_order_release);
  return {};
}

void unwatch(const std::byte* begin) noexcept {
  const Lock lock;
  Line* line = line_of(begin);
  if (!line) return;
  ::close(line->descriptor);
  line->version.fetch_add(1, std::memory_order_acq_rel);
}

bool mapping_is_whole(const std::byte* begin) noexcept {
  const Lock lock;
  const Line* line = line_of(begin);  // what is mapped is watched
  std::atomic<std::uint64_t>& generation = line->block.load(std::memory_order_relaxed)->generation;
  struct stat facts{};
  if (::fstat(line->descriptor, &facts) == 0 && facts.st_size < line->size)
    generation.fetch_or(k_torn, std::memory_order_acq_rel);
  return (generation.load(std::memory_order_acquire) & k_torn) == 0;
}

}  // namespace qorus
