// The sizes of the caches, asked once from the operating system.
#include <cstddef>

#include <unistd.h>

#include "kernels/kernels.h"

namespace qorus::kernels {
namespace {

std::size_t ask([[maybe_unused]] int name, std::size_t otherwise) noexcept {
  const long bytes = ::sysconf(name);
  return bytes > 0 ? static_cast<std::size_t>(bytes) : otherwise;
}

}  // namespace

const CacheSizes& cache_sizes() noexcept {
#ifdef _SC_LEVEL1_DCACHE_SIZE
  static const CacheSizes sizes = {ask(_SC_LEVEL1_DCACHE_SIZE, 32 << 10), ask(_SC_LEVEL2_CACHE_SIZE, 512 << 10),
                                   ask(_SC_LEVEL3_CACHE_SIZE, 4 << 20)};
#else
  static const CacheSizes sizes = {32 << 10, 512 << 10, 4 << 20};
#endif
  return sizes;
}

}  // namespace qorus::kernels
