// Speed of the element-wise, row-wise and optimizer kernels, one thread, beside what a plain copy of the same machine
// does.
//
//   bench_kernels [--benchmark_filter=REGEX] [--isa=scalar|avx2|avx512]     (any other option of Google Benchmark works
//   too)
//
// Items, sizes and the counting of bytes are those of the peers' torch bench: arrays of [4096, 1024] f32, each counted
// once as often as the operation must touch it; "_train" is forward and backward. copy_into is memcpy, copy_large the
// same beyond the caches. packed_product/TYPE/ROWS: rows times [2048, 2048] weights of a file's type as they stand in memory, and one row times 256
// MiB of them; GB/s are of the weights.
#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace {
using namespace qorus::kernels;

const Table* kernels = nullptr;
constexpr std::size_t k_rows = 4096, k_cols = 1024, k_size = k_rows * k_cols;

// A 64-byte aligned array of normal numbers, as the library's arenas would hand it out.
struct Array {
  explicit Array(std::size_t n, float mean = 0) : size(n) {
    data = static_cast<float*>(std::aligned_alloc(64, (n * sizeof(float) + 63) / 64 * 64));
    std::mt19937 random(1);
    std::normal_distribution<float> value(mean, 1);
    for (std::size_t i = 0; i < n; ++i) data[i] = i < 65536 ? value(random) : data[i % 65536];
  }
  ~Array() { std::free(data); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  float* data;
  std::size_t size;
};

void count(benchmark::State& state, double arrays, std::size_t elements = k_size) {
  const double bytes = arrays * sizeof(float) * double(elements);
  state.counters["GB/s"] = benchmark::Counter(1e-9 * bytes * double(state.iterations()), benchmark::Counter::kIsRate);
}

template <class F>
void run(benchmark::State& state, double arrays, F step) {
  for (auto _ : state) {
    step();
    benchmark::ClobberMemory();
  }
  count(state, arrays);
}

void copy(benchmark::State& state) {
  Array x(k_size), y(k_size);
  run(state, 2, [&] { std::memcpy(y.data, x.data, k_size * sizeof(float)); });
}
void copy_large(benchmark::State& state) {
  constexpr std::size_t n = std::size_t(1) << 26;
  Array x(n), y(n);
  for (auto _ : state) {
    for (std::size_t i = 0; i < n; i += k_size) kernels->unary(Unary::add, x.data + i, y.data + i, k_size, 0);
    benchmark::ClobberMemory();
  }
  count(state, 2, n);
}
void add(benchmark::State& state) {
  Array x(k_size), y(k_size), z(k_size);
  run(state, 3, [&] { kernels->binary(Binary::add, x.data, 1, y.data, 1, z.data, k_size); });
}
void unary(benchmark::State& state, Unary op) {
  Array x(k_size), y(k_size);
  run(state, 2, [&] { kernels->unary(op, x.data, y.data, k_size, 1.5f); });
}
void unary_train(benchmark::State& state, Unary op) {
  Array x(k_size), y(k_size), dy(k_size), dx(k_size);
  run(state, 5, [&] {
    kernels->unary(op, x.data, y.data, k_size, 1.5f);
    training(*kernels).unary_bwd(op, x.data, y.data, dy.data, dx.data, k_size, 1.5f, false);
  });
}
void softmax(benchmark::State& state) {
  Array x(k_size), y(k_size);
  run(state, 2, [&] { kernels->softmax(x.data, y.data, k_rows, k_cols, 1); });
}
void softmax_train(benchmark::State& state) {
  Array x(k_size), y(k_size), dy(k_size), dx(k_size);
  run(state, 5, [&] {
    kernels->softmax(x.data, y.data, k_rows, k_cols, 1);
    training(*kernels).softmax_bwd(y.data, dy.data, dx.data, k_rows, k_cols, 1, false);
  });
}
void layernorm(benchmark::State& state) {
  Array x(k_size), y(k_size), w(k_cols), b(k_cols);
  run(state, 2, [&] { kernels->layer_norm(x.data, w.data, b.data, y.data, nullptr, nullptr, k_rows, k_cols, 1e-5f); });
}
void layernorm_train(benchmark::State& state) {
  Array x(k_size), y(k_size), dy(k_size), dx(k_size), w(k_cols), b(k_cols), mean(k_rows), rstd(k_rows);
  run(state, 5, [&] {
    kernels->layer_norm(x.data, w.data, b.data, y.data, mean.data, rstd.data, k_rows, k_cols, 1e-5f);
    // The peer's weights take no gradient.
    training(*kernels).layer_norm_bwd(x.data, w.data, mean.data, rstd.data, dy.data, dx.data, nullptr, nullptr, k_rows,
                                      k_cols, k_size, false);
  });
}
void layernorm_train_weights(benchmark::State& state) {
  Array x(k_size), y(k_size), dy(k_size), dx(k_size), w(k_cols), b(k_cols), mean(k_rows), rstd(k_rows);
  Array dw(k_cols), db(k_cols);
  run(state, 5, [&] {
    kernels->layer_norm(x.data, w.data, b.data, y.data, mean.data, rstd.data, k_rows, k_cols, 1e-5f);
    training(*kernels).layer_norm_bwd(x.data, w.data, mean.data, rstd.data, dy.data, dx.data, dw.data, db.data, k_rows,
                                      k_cols, k_size, false);
  });
}
void rmsnorm(benchmark::State& state) {
  Array x(k_size), y(k_size), w(k_cols);
  run(state, 2, [&] { kernels->rms_norm(x.data, w.data, y.data, nullptr, k_rows, k_cols, 1e-5f); });
}
void rmsnorm_train(benchmark::State& state) {
  Array x(k_size), y(k_size), dy(k_size), dx(k_size), w(k_cols), rstd(k_rows);
  run(state, 5, [&] {
    kernels->rms_norm(x.data, w.data, y.data, rstd.data, k_rows, k_cols, 1e-5f);
    training(*kernels).rms_norm_bwd(x.data, w.data, rstd.data, dy.data, dx.data, nullptr, k_rows, k_cols, k_size,
                                    false);
  });
}
void dropout(benchmark::State& state) {
  Array x(k_size), y(k_size);
  run(state, 2, [&] { kernels->dropout(x.data, y.data, k_size, 0.1f, 7, 0, false); });
}
void sum_rows(benchmark::State& state) {
  Array x(k_size), y(k_rows);
  run(state, 1, [&] { kernels->reduce(Reduce::sum, x.data, y.data, k_rows, k_cols, 1); });
}
void sum_columns(benchmark::State& state) {
  Array x(k_size), y(k_cols);
  run(state, 1, [&] { kernels->reduce(Reduce::sum, x.data, y.data, 1, k_rows, k_cols); });
}
void transpose(benchmark::State& state) {
  Array x(k_size), y(k_size);
  run(state, 2, [&] { kernels->transpose(x.data, k_cols, y.data, k_rows, k_rows, k_cols); });
}
void to_f16(benchmark::State& state) {
  Array x(k_size);
  std::vector<std::uint16_t> y(k_size);
  run(state, 1.5, [&] { kernels->f32_to_f16(x.data, y.data(), k_size); });
}
void to_bf16(benchmark::State& state) {
  Array x(k_size);
  std::vector<std::uint16_t> y(k_size);
  run(state, 1.5, [&] { kernels->f32_to_bf16(x.data, y.data(), k_size); });
}

constexpr std::size_t k_batch = 2048, k_vocab = 32000;
void cross_entropy(benchmark::State& state, bool train) {
  Array x(k_batch * k_vocab), dx(train ? k_batch * k_vocab : 1), loss(k_batch), log_sum(k_batch);
  std::vector<std::int32_t> target(k_batch);
  for (std::size_t r = 0; r < k_batch; ++r) target[r] = std::int32_t(r * 7919 % k_vocab);
  const float one = 1.0f / k_batch;
  for (auto _ : state) {
    kernels->cross_entropy(x.data, target.data(), loss.data, log_sum.data, k_batch, k_vocab, 0, -100);
    if (train)
      training(*kernels).cross_entropy_bwd(x.data, target.data(), log_sum.data, &one, 0, dx.data, k_batch, k_vocab, 0,
                                           -100, false);
    benchmark::ClobberMemory();
  }
  count(state, train ? 2 : 1, k_batch * k_vocab);
}

constexpr std::size_t k_parameters = 9 * 1024 * 1024 + 550 * 1024;
void adamw(benchmark::State& state) {
  Array p(k_parameters), g(k_parameters), m(k_parameters), v(k_parameters, 10);
  const AdamStep step{1e-4f, 0.9f, 0.999f, 1e-8f, 0.5f, 0.1f, 0.01f, 0, 0, 1, __builtin_inff()};
  for (auto _ : state) {
    training(*kernels).adam(p.data, g.data, m.data, v.data, k_parameters, step);
    benchmark::ClobberMemory();
  }
  count(state, 7, k_parameters);
}
void sgd(benchmark::State& state) {
  Array p(k_parameters), g(k_parameters), m(k_parameters);
  const SgdStep step{1e-4f, 0.9f, 0, false, false, 0, 0, 1, __builtin_inff()};
  for (auto _ : state) {
    training(*kernels).sgd(p.data, g.data, m.data, k_parameters, step);
    benchmark::ClobberMemory();
  }
  count(state, 5, k_parameters);
}

// x [rows, k] times weights [n, k] as they are packed, all with the same numbers. So many bytes of them at a time that a worker's task has.
void packed_product(benchmark::State& state, Packing packing, std::size_t rows, std::size_t n) {
  constexpr std::size_t k = 2048, k_task = 32768;
  const std::size_t panel_bytes = packed_panel_bytes(packing, k), panels = panels_of(n), bytes = panels * panel_bytes;
  Array x(rows * k), c(rows * n), packed(rows * packed_row_bytes(packing, k) / sizeof(float)),
      weights(bytes / sizeof(float));
  std::memset(weights.data, 0x21, bytes);
  kernels->pack_rows(packing, x.data, k, packed.data, rows, k, 0, rows);
  PackedProduct p{
      .packing = packing, .m = rows, .n = n, .k = k, .rows = packed.data, .weights = weights.data, .c = c.data};
  p.c_row = std::ptrdiff_t(n);
  const std::size_t part = panel_bytes < k_task ? k_task / panel_bytes : 1;
  for (auto _ : state) {
    for (std::size_t first = 0; first < panels; first += part)
      kernels->packed_product(p, first, first + part < panels ? first + part : panels);
    benchmark::ClobberMemory();
  }
  const auto rate = [&](double each) {
    return benchmark::Counter(1e-9 * each * double(state.iterations()), benchmark::Counter::kIsRate);
  };
  state.counters["Gop/s"] = rate(2.0 * double(rows) * double(n) * double(k));
  state.counters["GB/s"] = rate(double(bytes));
}

void register_packed() {
  constexpr const char* k_names[] = {"q4_0", "q4_1", "q5_0", "q5_1",   "q8_0",   "q2_k", "q3_k",
                                     "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "f16",  "bf16"};
  static_assert(sizeof k_names / sizeof *k_names == std::size_t(Packing::count_));
  for (int i = 0; i < int(Packing::count_); ++i) {
    const auto packing = Packing(i);
    const auto entry = [&](const std::string& rows, std::size_t m, std::size_t n) {
      benchmark::RegisterBenchmark(("packed_product/" + std::string(k_names[i]) + "/" + rows).c_str(),
                                   [=](benchmark::State& s) { packed_product(s, packing, m, n); });
    };
    for (const std::size_t rows : {1, 2, 3, 4, 6, 8, 12, 16, 64, 512}) entry(std::to_string(rows), rows, 2048);
    for (const std::size_t rows : {1, 4, 8})
      entry(std::to_string(rows) + "_from_memory", rows,
            (std::size_t(256) << 20) / packed_panel_bytes(packing, 2048) * k_panel);
  }
}

void register_all() {
  const auto entry = [](const char* name, auto f) { benchmark::RegisterBenchmark(name, f); };
  entry("copy_into", copy);
  entry("copy_large", copy_large);
  entry("add_into", add);
  entry("softmax", softmax);
  entry("softmax_train", softmax_train);
  entry("layernorm", layernorm);
  entry("layernorm_train", layernorm_train);
  entry("layernorm_train_weights", layernorm_train_weights);
  entry("rmsnorm", rmsnorm);
  entry("rmsnorm_train", rmsnorm_train);
  const struct {
    const char* name;
    Unary op;
    bool train;
  } operations[] = {{"gelu", Unary::gelu, true},       {"gelu_tanh", Unary::gelu_tanh, true},
                    {"silu", Unary::silu, true},       {"relu", Unary::relu, true},
                    {"sigmoid", Unary::sigmoid, true}, {"tanh", Unary::tanh, true},
                    {"exp", Unary::exp, true},         {"log", Unary::log, false},
                    {"pow", Unary::pow, false},        {"sin", Unary::sin, false}};
  for (const auto& o : operations) {
    const Unary op = o.op;
    entry(o.name, [op](benchmark::State& s) { unary(s, op); });
    if (o.train) entry((std::string(o.name) + "_train").c_str(), [op](benchmark::State& s) { unary_train(s, op); });
  }
  entry("cross_entropy", [](benchmark::State& s) { cross_entropy(s, false); });
  entry("cross_entropy_train", [](benchmark::State& s) { cross_entropy(s, true); });
  entry("adamw_fused", adamw);
  entry("sgd", sgd);
  entry("dropout", dropout);
  entry("sum_rows", sum_rows);
  entry("sum_columns", sum_columns);
  entry("transpose", transpose);
  entry("to_f16", to_f16);
  entry("to_bf16", to_bf16);
  register_packed();
}

}  // namespace

int main(int argc, char** argv) {
  kernels = &active();
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--isa=", 6) == 0) {
      kernels = table(argv[i] + 6);
      if (!kernels) return std::fprintf(stderr, "bench_kernels: this CPU has no %s\n", argv[i] + 6), 2;
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  register_all();
  benchmark::AddCustomContext("isa", kernels->isa);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
