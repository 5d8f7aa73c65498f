// What products with packed weights share, in qorus.ops and in the language models: how a type is packed, x's rows, the kernel of an activation, and the
// cutting of what reads memory. Textual: included in the global module fragment; what it says of tensors and contexts is found where it is used.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace qorus {

constexpr std::size_t k_packed_run = 16;    // rows of x are packed in runs of that many
constexpr std::size_t k_packed_panels = 4;  // of a task of several rows: their c stays in the second-level cache
constexpr std::size_t k_packed_part_bytes = 32768;  // of weights, of a task of one row

// The packing of a DType; count_ if there is none. Block formats come in the same order.
template <class Type>
kernels::Packing packing_of(Type dtype) noexcept {
  using kernels::Packing;
  if (dtype == Type::f16) return Packing::f16;
  if (dtype == Type::bf16) return Packing::bf16;
  return is_block(dtype) ? static_cast<Packing>(static_cast<int>(dtype) - static_cast<int>(Type::q4_0))
                         : Packing::count_;
}

// The kernel of an Activation; count_ for none.
template <class Kind>
kernels::Unary unary_of(Kind activation) noexcept {
  using kernels::Unary;
  switch (activation) {
    case Kind::relu: return Unary::relu;
    case Kind::gelu: return Unary::gelu;
    case Kind::gelu_tanh: return Unary::gelu_tanh;
    case Kind::silu: return Unary::silu;
    case Kind::sigmoid: return Unary::sigmoid;
    case Kind::tanh: return Unary::tanh;
    case Kind::none: break;
  }
  return Unary::count_;
}

// Panels of weights that a task takes.
inline std::size_t panels_of_task(const kernels::PackedProduct& p) noexcept {
  if (p.m >= k_packed_run) return k_packed_panels;
  return std::max<std::size_t>(k_packed_part_bytes / std::max<std::size_t>(packed_panel_bytes(p.packing, p.k), 1), 1);
}

// activation(c) of panels first to last-1, in place, by the kernel of that activation.
inline void activate(kernels::Unary by, const kernels::PackedProduct& p, std::size_t first, std::size_t last) noexcept {
  const std::size_t begin = first * kernels::k_panel, end = std::min(p.n, last * kernels::k_panel);
  for (std::size_t i = 0; i < p.m; ++i) {
    float* row = p.c + static_cast<std::ptrdiff_t>(i) * p.c_row + begin;
    kernels::active().unary(by, row, row, end - begin, 0);
  }
}

// Packs the m rows of x into p.rows, on all workers.
template <class Context>
void pack_rows(const Context& context, const kernels::PackedProduct& p, const float* x, std::byte* rows) noexcept {
  parallel_chunks(context, (p.m + k_packed_run - 1) / k_packed_run, 2, [&](std::size_t begin, std::size_t end) {
    kernels::active().pack_rows(p.packing, x, static_cast<std::ptrdiff_t>(p.k), rows, p.m, p.k, begin * k_packed_run,
                                std::min(end * k_packed_run, p.m));
  });
}

// Runs f(task, worker) where reading memory is what takes the time. Every worker has a region of its own that it reads from end to end,
// then it helps others: two that take turns along one stream fetch ahead what the other one reads, and get half of what the memory gives.
template <class Context, class F>
void parallel_streams(const Context& context, std::size_t tasks, F&& f) {
  constexpr std::size_t k_most = 16;
  struct alignas(64) Region {
    std::atomic<std::size_t> next;
    std::size_t end;
  } regions[k_most];
  const std::size_t width = static_cast<std::size_t>(context.executor.width),
                    count = std::max<std::size_t>(1, std::min({width, tasks, k_most}));
  for (std::size_t i = 0; i < count; ++i) {
    regions[i].next.store(tasks * i / count, std::memory_order_relaxed);
    regions[i].end = tasks * (i + 1) / count;
  }
  parallel(context, static_cast<std::uint32_t>(count), [&](std::uint32_t own, int worker) {
    for (std::size_t i = 0; i < count; ++i) {
      Region& region = regions[(own + i) % count];
      for (std::size_t at; (at = region.next.fetch_add(1, std::memory_order_relaxed)) < region.end;) f(at, worker);
    }
  });
}

// Runs f(task, worker) for all tasks of products of m rows.
template <class Context, class F>
void parallel_products(const Context& context, std::size_t m, std::size_t tasks, F&& f) {
  if (m < k_packed_run) return parallel_streams(context, tasks, f);
  parallel(context, static_cast<std::uint32_t>(tasks), [&](std::uint32_t task, int worker) { f(task, worker); });
}

}  // namespace qorus
