// The definition of one step of recurrent cells and of its backward: in double, rounded where it is stored.
#include <cmath>
#include <cstddef>

#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double slope(double s) { return s * (1 - s); }  // of a sigmoid, from its value
double before(const float* state, std::size_t place) { return state ? double(state[place]) : 0; }

void lstm_cell(float* gates, const float* c_prev, float* c, float* h, std::size_t rows, std::size_t n) noexcept {
  for (std::size_t place = 0; place < rows * n; ++place) {
    float* gate = gates + place / n * 4 * n + place % n;
    const double i = sigmoid(double(gate[0])), f = sigmoid(double(gate[n])), g = std::tanh(double(gate[2 * n])),
                 o = sigmoid(double(gate[3 * n]));
    const double state = f * before(c_prev, place) + i * g;
    gate[0] = float(i);
    gate[n] = float(f);
    gate[2 * n] = float(g);
    gate[3 * n] = float(o);
    c[place] = float(state);
    h[place] = float(o * std::tanh(state));
  }
}

void gru_cell(float* x, const float* s, const float* h_prev, float* h, std::size_t rows, std::size_t n) noexcept {
  for (std::size_t place = 0; place < rows * n; ++place) {
    const std::size_t at = place / n * 3 * n + place % n;
    float* gate = x + at;
    const float* side = s + at;
    const double r = sigmoid(double(gate[0]) + side[0]), z = sigmoid(double(gate[n]) + side[n]);
    const double candidate = std::tanh(gate[2 * n] + r * side[2 * n]);
    gate[0] = float(r);
    gate[n] = float(z);
    gate[2 * n] = float(candidate);
    h[place] = float((1 - z) * candidate + z * before(h_prev, place));
  }
}

void lstm_cell_bwd(float* gates, const float* c_prev, const float* c, const float* dh, float* dc, std::size_t rows,
                   std::size_t n) noexcept {
  for (std::size_t place = 0; place < rows * n; ++place) {
    float* gate = gates + place / n * 4 * n + place % n;
    const double i = gate[0], f = gate[n], g = gate[2 * n], o = gate[3 * n], t = std::tanh(double(c[place]));
    const double state = dc[place] + dh[place] * o * (1 - t * t);
    gate[0] = float(state * g * slope(i));
    gate[n] = float(state * before(c_prev, place) * slope(f));
    gate[2 * n] = float(state * i * (1 - g * g));
    gate[3 * n] = float(dh[place] * t * slope(o));
    dc[place] = float(state * f);
  }
}

void gru_cell_bwd(float* x, float* s, const float* h_prev, float* dh, std::size_t rows, std::size_t n) noexcept {
  for (std::size_t place = 0; place < rows * n; ++place) {
    const std::size_t at = place / n * 3 * n + place % n;
    float *gate = x + at, *side = s + at;
    const double r = gate[0], z = gate[n], candidate = gate[2 * n], d = dh[place];
    const double dn = d * (1 - z) * (1 - candidate * candidate);
    const double dz = d * (before(h_prev, place) - candidate) * slope(z), dr = dn * side[2 * n] * slope(r);
    gate[0] = side[0] = float(dr);
    gate[n] = side[n] = float(dz);
    gate[2 * n] = float(dn);
    side[2 * n] = float(dn * r);
    dh[place] = float(d * z);
  }
}

}  // namespace

extern constinit const CellPart cell_scalar{lstm_cell, gru_cell};
extern constinit const CellTraining cell_training_scalar{lstm_cell_bwd, gru_cell_bwd};

}  // namespace qorus::kernels
