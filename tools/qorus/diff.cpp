// qorus diff: how far the tensors of two files are from one another.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

#include "options.h"
#include "tensors.h"

using namespace qorus;

namespace {

// Elements [begin, begin + count), as f32.
Result<Tensor> piece(Scope& frame, const Tensor& tensor, std::size_t begin, std::size_t count) {
  const Tensor part(tensor.data() + row_bytes(tensor.dtype(), begin), tensor.dtype(),
                    Layout::dense(Shape{static_cast<std::int64_t>(count)}), tensor.lifetime());
  return ops::cast(frame.input(part), DType::f32);
}

struct Distance {
  double largest = 0, square = 0, size = 0;  // of the differences; of the first file's own elements, squared
  std::size_t count = 0;
};

Status measure(Workspace& workspace, const Tensor& a, const Tensor& b, Distance& distance) {
  constexpr std::size_t k_piece = 1 << 20;
  distance.count = a.numel();
  for (std::size_t begin = 0; begin < a.numel(); begin += k_piece) {
    const std::size_t count = std::min(k_piece, a.numel() - begin);
    auto frame = workspace.frame();
    auto x = piece(frame, a, begin, count), y = piece(frame, b, begin, count);
    if (!x || !y) return fail(x ? y.error() : x.error());
    for (std::size_t i = 0; i < count; ++i) {
      const double value = static_cast<double>(x->f32()[i]), gap = static_cast<double>(y->f32()[i]) - value;
      distance.largest = std::isnan(gap) ? INFINITY : std::max(distance.largest, std::abs(gap));
      distance.square += gap * gap;
      distance.size += value * value;
    }
  }
  return {};
}

void line(const Tensors::Line& a, const Tensors::Line& b, const Distance& d) {
  const std::string types = a.type == b.type ? a.type : a.type + "/" + b.type;
  const double rmse = d.count ? std::sqrt(d.square / static_cast<double>(d.count)) : 0;
  std::printf("%-40s %-12s %12.4g %12.4g %12.4g\n", a.name.c_str(), types.c_str(), d.largest, rmse,
              d.size > 0 ? std::sqrt(d.square / d.size) : rmse);
}

}  // namespace

int diff_command(const Options& options) {
  auto a = Tensors::open(options.model), b = Tensors::open(options.out);
  if (!a || !b) return report(a ? b.error() : a.error());
  Workspace workspace{{.scratch = 64_MiB, .threads = 1}};
  bool same = true;
  std::printf("%-40s %-12s %12s %12s %12s\n", "tensor", "type", "largest", "rmse", "relative");
  for (const Tensors::Line& entry : a->lines()) {
    const Tensors::Line* other = b->find(entry.name);
    if (!other || other->shape != entry.shape) {
      same = false;
      std::printf("%-40s %s\n", entry.name.c_str(),
                  other ? "of another shape in the second file" : "only in the first file");
      continue;
    }
    auto x = a->tensor(entry.name), y = b->tensor(entry.name);
    if (!x || !y) return report(x ? y.error() : x.error());
    Distance distance;
    if (auto done = measure(workspace, *x, *y, distance); !done) return report(done);
    same = same && distance.largest == 0;
    line(entry, *other, distance);
  }
  for (const Tensors::Line& entry : b->lines()) {
    if (a->find(entry.name)) continue;
    same = false;
    std::printf("%-40s only in the second file\n", entry.name.c_str());
  }
  return same ? 0 : 1;
}
