// Bodies of qorus.llm:product.
module;
#include "kernels/kernels.h"
#include "modules/ops/packed.h"
module qorus.llm;
import qorus.std;
import :product;

namespace qorus::llm {
namespace {

using kernels::k_panel;
using kernels::PackedProduct;

// One of the weights, its panels cut into tasks.
struct Matrix {
  PackedProduct product;  // its weights: null while they are not laid out
  const Tensor* stored = nullptr;
  std::size_t stored_row = 0, panels = 0, part = 1,
              first_task = 0;  // bytes; panels of a task; in the order of all weights' tasks
  Activation activation = Activation::none;
};

// Weights and x must fit what the product reads of them.
Status check(const Tensor& x, const Factor& factor) noexcept {
  const nn::Param& weight = factor.projection->weight;
  if (auto ok = weight.tensor.check("linear"); !ok) return ok;
  const Shape& shape = weight.tensor.shape();
  if (shape.rank() != 2 || shape[1] != x.dim(-1) ||
      weight.packed.numel() != ops::packed_bytes(weight.tensor.dtype(), shape))
    return fail(Errc::invalid_size, "linear", "x: [..., in] and weight: [out, in] must agree on in", x.shape().dims(),
                shape.dims());
  if (!factor.projection->has_bias) return {};
  const Tensor& bias = factor.projection->bias.tensor;
  if (auto ok = bias.check(DType::f32, "linear"); !ok) return ok;
  if (bias.shape() != Shape{shape[0]} || !bias.contiguous())
    return fail(Errc::invalid_size, "linear", "bias: [out] and weight: [out, in] must agree on out",
                bias.shape().dims(), shape.dims());
  return {};
}

Matrix matrix_of(const Factor& factor, std::size_t rows, std::size_t tasks_before) noexcept {
  const nn::Param& weight = factor.projection->weight;
  const std::size_t n = static_cast<std::size_t>(weight.tensor.dim(0)),
                    k = static_cast<std::size_t>(weight.tensor.dim(1));
  Matrix m;
  m.product.packing = packing_of(weight.tensor.dtype());
  m.product.m = rows;
  m.product.n = n;
  m.product.k = k;
  m.product.weights = factor.projection->laying.over() ? weight.packed.data() : nullptr;
  m.product.c_row = static_cast<std::ptrdiff_t>(n);
  m.product.bias = factor.projection->has_bias ? factor.projection->bias.tensor.f32() : nullptr;
  m.stored = &weight.tensor;
  m.stored_row = row_bytes(weight.tensor.dtype(), k);
  m.panels = kernels::panels_of(n);
  m.part = panels_of_task(m.product);
  m.first_task = tasks_before;
  m.activation = factor.activation;
  return m;
}

std::size_t tasks_of(const Matrix& m) noexcept { return (m.panels + m.part - 1) / m.part; }

// Reads a byte of each page from begin to end of what is stored, so that it is there: what is not mapped yet cannot be fetched ahead.
void touch(const Matrix& m, std::size_t begin, std::size_t end) noexcept {
  constexpr std::size_t k_page = 4096;
  for (end = std::min(end, m.product.n * m.stored_row); begin < end; begin += k_page)
    static_cast<void>(*static_cast<const volatile std::byte*>(m.stored->data() + begin));
}

// Columns of panels first to last-1. room: for one panel. Of the next panel one row's product fetches the first part, laying out the rest.
void run_panels(const Matrix& m, std::size_t first, std::size_t last, std::byte* room) noexcept {
  const kernels::Table& table = kernels::active();
  const PackedProduct& all = m.product;
  if (all.weights) table.packed_product(all, first, last);
  const std::size_t fetched = all.m == 1 ? k_panel * m.stored_row * 3 / 5 : 0;
  for (std::size_t panel = first; panel < last && !all.weights; ++panel) {
    const std::size_t row = panel * k_panel, next = (row + k_panel) * m.stored_row;
    touch(m, next, next + k_panel * m.stored_row);
    PackedProduct one = all;
    one.n = std::min(k_panel, one.n - row);
    table.pack_weights(one.packing, m.stored->data() + row * m.stored_row, room, one.n, one.k, 0, 1, fetched);
    one.weights = room;
    one.c += row;
    if (one.bias) one.bias += row;
    one.fetch = m.stored->data() + next;
    one.fetch_bytes = fetched;
    table.packed_product(one, 0, 1);
  }
  if (m.activation != Activation::none) activate(unary_of(m.activation), m.product, first, last);
}

// Packs x once for each kind of rows that the products read.
Status pack_once(Context& context, const float* x, std::span<Matrix> matrices) noexcept {
  for (std::size_t i = 0; i < matrices.size(); ++i) {
    PackedProduct& p = matrices[i].product;
    for (std::size_t j = 0; j < i && !p.rows; ++j) {
      if (kernels::same_rows(matrices[j].product.packing, p.packing)) p.rows = matrices[j].product.rows;
    }
    if (p.rows) continue;
    auto rows = context.scratch->take(p.m * packed_row_bytes(p.packing, p.k));
    if (!rows) return fail(rows.error());
    p.rows = rows->data;
    pack_rows(context, p, x, rows->data);
  }
  return {};
}

Status run(Context& context, const float* x, std::span<Matrix> matrices) noexcept {
  if (auto done = pack_once(context, x, matrices); !done) return done;
  std::size_t room = 0;
  for (const Matrix& m : matrices) {
    if (!m.product.weights) room = std::max(room, align_up(packed_panel_bytes(m.product.packing, m.product.k)));
  }
  auto rooms = context.scratch->take(room * static_cast<std::size_t>(context.executor.width));
  if (!rooms) return fail(rooms.error());
  const std::size_t tasks = matrices.back().first_task + tasks_of(matrices.back());
  parallel_products(context, matrices[0].product.m, tasks, [&](std::size_t task, int worker) {
    std::size_t i = matrices.size() - 1;
    while (task < matrices[i].first_task) --i;
    const Matrix& m = matrices[i];
    const std::size_t first = (task - m.first_task) * m.part;
    run_panels(m, first, std::min(m.panels, first + m.part), rooms->data + static_cast<std::size_t>(worker) * room);
  });
  return {};
}

}  // namespace

bool is_packed(const Projection& projection, const Tensor& x) noexcept {
  const nn::Param& weight = projection.weight;
  return weight.packed.shape().valid() && weight.packed.dtype() == DType::u8 && weight.packed.alive() && x.alive() &&
         x.context() && !recorded(x);
}

Status products(const Tensor& given, std::span<const Factor> factors, std::span<Tensor> y) noexcept {
  const auto x = ops::contiguous(given);
  if (!x) return fail(x.error());
  if (auto ok = x->check(DType::f32, "linear"); !ok) return ok;
  Context& context = *x->context();
  const std::size_t rows = x->numel() / static_cast<std::size_t>(std::max<std::int64_t>(x->dim(-1), 1));
  Matrix matrices[k_most_factors];
  std::size_t tasks = 0;
  for (std::size_t i = 0; i < factors.size(); ++i) {
    if (auto good = check(*x, factors[i]); !good) return good;
    matrices[i] = matrix_of(factors[i], rows, tasks);
    tasks += tasks_of(matrices[i]);
    auto fresh = Fresh::make(context, x->shape().with(-1, factors[i].projection->weight.tensor.dim(0)));
    if (!fresh) return fail(fresh.error());
    matrices[i].product.c = fresh->f32();
    y[i] = std::move(*fresh).freeze();
  }
  if (context.planning || rows == 0) return {};
  const std::size_t mark = context.scratch->mark();
  auto done = run(context, x->f32(), std::span(matrices).first(factors.size()));
  context.scratch->shrink_to(mark);
  return done;
}

Status project(const Tensor& x, std::span<const Factor> factors, std::span<Tensor> y) noexcept {
  const bool together = std::all_of(factors.begin(), factors.end(), [&](const Factor& factor) {
    return is_packed(*factor.projection, x) && !factor.projection->lora_a.bound();
  });
  if (together) return products(x, factors, y);
  for (std::size_t i = 0; i < factors.size(); ++i) {
    auto one = factors[i].projection->with(x, factors[i].activation);
    if (!one) return fail(one.error());
    y[i] = *one;
  }
  return {};
}

}  // namespace qorus::llm
