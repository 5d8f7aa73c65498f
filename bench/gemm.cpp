// Times the f32 matrix product on the library's own workers: one JSON line per shape, with the operands as given ("qorus") and
// with B packed ahead ("qorus_packed"), which take turns.
//
//   bench_gemm [--isa avx2|avx512] [--seconds S] [--threads T] [--shapes square|skinny|forms|all | --shape m,n,k,nn|nt|tn|tt]
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "bench/timing.h"
#include "kernels/parts.h"

import qorus.ops;

namespace {

using namespace qorus::kernels;

struct Shape {
  std::size_t m, n, k;
  bool a_transposed, b_transposed;
};

struct Settings {
  std::string isa;
  double seconds = 0.5;
  int threads = 1;
};

[[noreturn]] void give_up(const qorus::Error& error) {
  std::fprintf(stderr, "bench_gemm: %s\n", error.message().c_str());
  std::exit(1);
}

std::span<float> take(qorus::Context& context, std::size_t floats) {
  auto slice = context.scratch->take(floats * sizeof(float) + 64);
  if (!slice) give_up(slice.error());
  return {reinterpret_cast<float*>(slice->data), floats};
}

std::span<float> noise(qorus::Context& context, std::size_t count) {
  const std::span<float> values = take(context, count);
  std::uint32_t state = 1;
  for (float& value : values)
    value = static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1.0f;
  return values;
}

void measure(const Shape& s, const GemmPart& part, const Settings& settings, qorus::Workspace& workspace) {
  auto frame = workspace.frame();
  qorus::Context& context = frame.context();
  const auto m = static_cast<std::ptrdiff_t>(s.m), n = static_cast<std::ptrdiff_t>(s.n),
             k = static_cast<std::ptrdiff_t>(s.k);
  Gemm g{.m = s.m, .n = s.n, .k = s.k};
  g.a = noise(context, s.m * s.k).data();
  g.b = noise(context, s.k * s.n).data();
  g.a_row = s.a_transposed ? 1 : k, g.a_col = s.a_transposed ? m : 1;
  g.b_row = s.b_transposed ? 1 : n, g.b_col = s.b_transposed ? k : 1;
  g.c = take(context, s.m * s.n).data(), g.c_row = n;
  Gemm packed = g;
  g.vector = s.m == 1;  // as ops::matmul of a vector has it
  float* const ahead = take(context, part.packed_size(s.n, s.k)).data();
  part.pack(g, ahead);
  packed.b_packed = ahead;

  const auto step = [&](const Gemm& product) {
    return [&context, &part, product] {
      const GemmPlan plan = part.plan(product);
      const std::size_t mark = context.scratch->mark(), each = (plan.worker_bytes + 127) / 64 * 16;
      float* const shared = take(context, plan.shared_bytes / sizeof(float)).data();
      float* const own = take(context, each * static_cast<std::size_t>(context.executor.width)).data();
      for (std::uint32_t phase = 0; phase < plan.phases; ++phase) {
        qorus::parallel(context, plan.tasks[phase], [&](std::uint32_t task, int worker) {
          part.task(product, plan, phase, task, shared, own + each * static_cast<std::size_t>(worker));
        });
      }
      context.scratch->shrink_to(mark);
    };
  };
  const auto samples = bench::time_turns(settings.threads, {step(g), step(packed)}, settings.seconds);
  const std::string config = "\"m\":" + std::to_string(s.m) + ",\"n\":" + std::to_string(s.n) +
                             ",\"k\":" + std::to_string(s.k) + ",\"weights\":\"" + (s.b_transposed ? "nk" : "kn") +
                             (s.a_transposed ? ",a km" : "") + "\"";
  for (int i = 0; i < 2; ++i) {
    bench::report("sgemm", settings.isa.c_str(), config, settings.threads, samples[static_cast<std::size_t>(i)],
                  2e-9 * static_cast<double>(s.m * s.n * s.k), "GFLOP/s", i == 0 ? "qorus" : "qorus_packed");
  }
}

std::vector<Shape> shapes_of(const std::string& which) {
  std::vector<Shape> shapes;
  if (which == "square" || which == "all")
    for (std::size_t size : {64, 128, 256, 512, 1024, 2048}) shapes.push_back({size, size, size, false, false});
  if (which == "skinny" || which == "all") {
    for (std::size_t size : {768, 2048, 4096})
      for (std::size_t m : {1, 8, 32, 128, 512}) shapes.push_back({m, size, size, false, true});
    shapes.push_back({512, 3072, 768, false, true});
    shapes.push_back({4096, 256, 256, false, true});
  }
  if (which == "forms")
    for (std::size_t size : {64, 256, 1024})
      for (int form = 0; form < 4; ++form) shapes.push_back({size, size, size, (form & 2) != 0, (form & 1) != 0});
  return shapes;
}

}  // namespace

int main(int count, char** arguments) {
  Settings settings;
  settings.isa = cpu_features().avx512 ? "avx512" : "avx2";
  std::string which = "all";
  std::vector<Shape> shapes;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string name = arguments[i], value = arguments[i + 1];
    if (name == "--seconds") settings.seconds = std::atof(value.c_str());
    if (name == "--threads") settings.threads = std::atoi(value.c_str());
    if (name == "--isa") settings.isa = value;
    if (name == "--shapes") which = value;
    Shape s{};
    char ta, tb;
    if (name == "--shape" && std::sscanf(value.c_str(), "%zu,%zu,%zu,%c%c", &s.m, &s.n, &s.k, &ta, &tb) == 5) {
      s.a_transposed = ta == 't', s.b_transposed = tb == 't';
      shapes.push_back(s);
    }
  }
  if (shapes.empty()) shapes = shapes_of(which);
  const bool wide = settings.isa == "avx512";
  if (!(wide ? cpu_features().avx512 : cpu_features().avx2)) {
    std::fprintf(stderr, "bench_gemm: this CPU has no %s\n", settings.isa.c_str());
    return 1;
  }
  qorus::Workspace workspace{{.scratch = std::size_t{1} << 30, .threads = settings.threads}};
  if (!workspace.status()) give_up(workspace.status().error());
  for (const Shape& shape : shapes) measure(shape, wide ? gemm_avx512 : gemm_avx2, settings, workspace);
}
