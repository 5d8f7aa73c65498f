// Bodies of qorus.nn:init.
module;
#include "kernels/kernels.h"
module qorus.nn;
import qorus.std;

namespace qorus {
namespace {

constexpr std::uint64_t k_stream_stride = std::uint64_t{1} << 40;  // counter values set aside for each parameter
constexpr std::size_t k_piece = 256;

// values[i] = low + (high - low) u_i
void draw_uniform(std::span<float> values, std::uint64_t seed, std::uint64_t stream, float low, float high) noexcept {
  kernels::active().random_uniform(values.data(), values.size(), seed, stream * k_stream_stride);
  for (float& value : values) value = low + (high - low) * value;
}

// Box and Muller's transform in double precision: pairs (u, v) to sqrt(-2 log(1 - u)) (cos 2 pi v, sin 2 pi v).
void draw_normal(std::span<float> values, std::uint64_t seed, std::uint64_t stream, float deviation) noexcept {
  float uniform[k_piece];
  for (std::size_t begin = 0; begin < values.size(); begin += k_piece) {
    const std::size_t count = std::min(k_piece, values.size() - begin);
    kernels::active().random_uniform(uniform, k_piece, seed, stream * k_stream_stride + begin);
    for (std::size_t i = 0; i < count; ++i) {
      const double u = uniform[i & ~std::size_t{1}], v = uniform[i | 1];
      const double radius = std::sqrt(-2 * std::log1p(-u)), angle = 2 * std::numbers::pi * v;
      values[begin + i] = static_cast<float>(deviation * radius * (i & 1 ? std::sin(angle) : std::cos(angle)));
    }
  }
}

// Orthonormalises `count` rows of `length` <= each other by modified Gram and Schmidt, twice for accuracy.
void orthonormalize(double* rows, std::size_t count, std::size_t length) noexcept {
  for (std::size_t i = 0; i < count; ++i) {
    double* row = rows + i * length;
    for (int pass = 0; pass < 2; ++pass) {
      for (std::size_t j = 0; j < i; ++j) {
        const double* other = rows + j * length;
        double dot = 0;
        for (std::size_t k = 0; k < length; ++k) dot += row[k] * other[k];
        for (std::size_t k = 0; k < length; ++k) row[k] -= dot * other[k];
      }
    }
    double square = 0;
    for (std::size_t k = 0; k < length; ++k) square += row[k] * row[k];
    const double scale = square > 0 ? 1 / std::sqrt(square) : 0;
    for (std::size_t k = 0; k < length; ++k) row[k] *= scale;
  }
}

Status draw_orthogonal(std::span<float> values, std::size_t rows, std::uint64_t seed, std::uint64_t stream,
                       float gain) noexcept {
  const std::size_t cols = rows ? values.size() / rows : 0;
  const std::size_t count = std::min(rows, cols), length = std::max(rows, cols);
  List<double> work;
  if (auto room = work.resize(values.size()); !room) return room;
  draw_normal(values, seed, stream, 1);
  std::copy(values.begin(), values.end(), work.begin());
  orthonormalize(work.data(), count, length);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < cols; ++c) {
      const double value = rows <= cols ? work[r * length + c] : work[c * length + r];
      values[r * cols + c] = static_cast<float>(gain * value);
    }
  }
  return {};
}

}  // namespace

Status Initializer::fill(std::span<float> values, const Shape& shape, nn::Role role,
                         std::uint64_t stream) const noexcept {
  if (role != nn::Role::weight) {
    std::fill(values.begin(), values.end(), role == nn::Role::gain ? 1.0f : 0.0f);
    return {};
  }
  const std::size_t outer = shape.rank() > 0 ? static_cast<std::size_t>(shape[0]) : 1;
  const auto fan_in = static_cast<float>(outer ? std::max<std::size_t>(values.size() / outer, 1) : 1);
  const auto receptive = shape.rank() > 2 ? fan_in / static_cast<float>(std::max<std::int64_t>(shape[1], 1)) : 1.0f;
  const float fan_out = static_cast<float>(outer) * receptive;
  switch (kind) {
    case Kind::zeros: std::fill(values.begin(), values.end(), 0.0f); break;
    case Kind::constant: std::fill(values.begin(), values.end(), a); break;
    case Kind::normal: draw_normal(values, seed, stream, a); break;
    case Kind::uniform: draw_uniform(values, seed, stream, a, b); break;
    case Kind::kaiming_normal: draw_normal(values, seed, stream, std::sqrt(2 / fan_in)); break;
    case Kind::xavier_normal: draw_normal(values, seed, stream, std::sqrt(2 / (fan_in + fan_out))); break;
    case Kind::kaiming_uniform:
      draw_uniform(values, seed, stream, -std::sqrt(6 / fan_in), std::sqrt(6 / fan_in));
      break;
    case Kind::xavier_uniform:
      draw_uniform(values, seed, stream, -std::sqrt(6 / (fan_in + fan_out)), std::sqrt(6 / (fan_in + fan_out)));
      break;
    case Kind::orthogonal: return draw_orthogonal(values, outer, seed, stream, a);
  }
  return {};
}

}  // namespace qorus
