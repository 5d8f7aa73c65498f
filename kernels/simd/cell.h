// One step of recurrent cells, and its backward, over the vector type. Include a vec.h first.
#pragma once
#include <cstddef>
#include "kernels/parts.h"
#include "kernels/simd/each.h"
#include "kernels/simd/math.h"

namespace qorus::kernels {
namespace {

// The state before, of the row at hand; a null pointer makes zeros.
constexpr float k_no_state = 0;
QORUS_INLINE Spread state_before(const float* previous, std::size_t row, std::size_t n) {
  return Spread(previous ? previous + row * n : &k_no_state, previous ? 1 : 0);
}

void lstm_cell(float* gates, const float* c_prev, float* c, float* h, std::size_t rows, std::size_t n) noexcept {
  for (std::size_t r = 0; r < rows; ++r, gates += 4 * n, c += n, h += n) {
    const Spread before = state_before(c_prev, r, n);
    each(n, [&](std::size_t j, auto part) {
      const F32 i = sigmoid(load(gates + j, part)), f = sigmoid(load(gates + n + j, part));
      const F32 g = tanh(load(gates + 2 * n + j, part)), o = sigmoid(load(gates + 3 * n + j, part));
      const F32 state = fma(f, before.at(j, part), i * g);
      store(gates + j, i, part);
      store(gates + n + j, f, part);
      store(gates + 2 * n + j, g, part);
      store(gates + 3 * n + j, o, part);
      store(c + j, state, part);
      store(h + j, o * tanh(state), part);
    });
  }
}

void gru_cell(float* x, const float* s, const float* h_prev, float* h, std::size_t rows, std::size_t n) noexcept {
  for (std::size_t row = 0; row < rows; ++row, x += 3 * n, s += 3 * n, h += n) {
    const Spread before = state_before(h_prev, row, n);
    each(n, [&](std::size_t j, auto part) {
      const F32 r = sigmoid(load(x + j, part) + load(s + j, part));
      const F32 z = sigmoid(load(x + n + j, part) + load(s + n + j, part));
      const F32 candidate = tanh(fma(r, load(s + 2 * n + j, part), load(x + 2 * n + j, part)));
      store(x + j, r, part);
      store(x + n + j, z, part);
      store(x + 2 * n + j, candidate, part);
      store(h + j, fma(z, before.at(j, part) - candidate, candidate), part);
    });
  }
}

void lstm_cell_bwd(float* gates, const float* c_prev, const float* c, const float* dh, float* dc, std::size_t rows,
                   std::size_t n) noexcept {
  const F32 one = set(1.0f);
  for (std::size_t row = 0; row < rows; ++row, gates += 4 * n, c += n, dh += n, dc += n) {
    const Spread before = state_before(c_prev, row, n);
    each(n, [&](std::size_t j, auto part) {
      const F32 i = load(gates + j, part), f = load(gates + n + j, part), g = load(gates + 2 * n + j, part);
      const F32 o = load(gates + 3 * n + j, part), t = tanh(load(c + j, part)), d = load(dh + j, part);
      const F32 state = fma(d * o, fnma(t, t, one), load(dc + j, part));
      store(gates + j, state * g * i * (one - i), part);
      store(gates + n + j, state * before.at(j, part) * f * (one - f), part);
      store(gates + 2 * n + j, state * i * fnma(g, g, one), part);
      store(gates + 3 * n + j, d * t * o * (one - o), part);
      store(dc + j, state * f, part);
    });
  }
}

void gru_cell_bwd(float* x, float* s, const float* h_prev, float* dh, std::size_t rows, std::size_t n) noexcept {
  const F32 one = set(1.0f);
  for (std::size_t row = 0; row < rows; ++row, x += 3 * n, s += 3 * n, dh += n) {
    const Spread before = state_before(h_prev, row, n);
    each(n, [&](std::size_t j, auto part) {
      const F32 r = load(x + j, part), z = load(x + n + j, part), candidate = load(x + 2 * n + j, part);
      const F32 d = load(dh + j, part), side = load(s + 2 * n + j, part);
      const F32 dn = d * (one - z) * fnma(candidate, candidate, one);
      const F32 dz = d * (before.at(j, part) - candidate) * z * (one - z), dr = dn * side * r * (one - r);
      store(x + j, dr, part);
      store(x + n + j, dz, part);
      store(x + 2 * n + j, dn, part);
      store(s + j, dr, part);
      store(s + n + j, dz, part);
      store(s + 2 * n + j, dn * r, part);
      store(dh + j, d * z, part);
    });
  }
}

}  // namespace
}  // namespace qorus::kernels
