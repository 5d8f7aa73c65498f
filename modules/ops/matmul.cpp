// ops::matmul and its rule.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :rules;
import :product;

namespace qorus {
namespace {

using kernels::Gemm;

// a: [batch…, m, k], b: [batch…, k, n], broadcast to the batch's shape with strides of 0; c dense.
struct MatmulSaved {
  Tensor a, b;            // of rank >= 2, their own batch extents
  Layout wide_a, wide_b;  // broadcast to the batch
  Shape batch, out;
};

Shape batch_of(const Shape& shape) noexcept {
  return Shape(shape.extents().first(static_cast<std::size_t>(shape.rank() - 2)));
}

Shape with_matrix(const Shape& batch, std::int64_t rows, std::int64_t cols) noexcept {
  return batch.inserted(batch.rank(), rows).inserted(batch.rank() + 1, cols);
}

std::size_t extent(const Tensor& t, int i) noexcept { return static_cast<std::size_t>(t.dim(i)); }

// The strides of a tensor's batch extents under the common batch, for the gradient of `t`, which is dense.
std::array<std::int64_t, k_max_rank> dense_batch_strides(const Tensor& t, const Shape& batch) noexcept {
  const Layout dense = Layout::dense(t.shape());
  std::array<std::int64_t, k_max_rank> strides{};
  const int extra = batch.rank() - (t.rank() - 2);
  for (int d = extra; d < batch.rank(); ++d) {
    if (t.dim(d - extra) != 1) strides[d] = dense.stride[d - extra];
  }
  return strides;
}

// [batch…, m, k] times [k, n] is one product of batch m rows, if a's rows lie evenly.
bool fold_rows(Tensor& a, const Tensor& b) noexcept {
  if (b.rank() != 2 || a.rank() == 2) return false;
  Layout rows;
  const std::int64_t k = a.dim(-1);
  const auto count = static_cast<std::int64_t>(k ? a.numel() / static_cast<std::size_t>(k) : 0);
  if (k == 0 || !a.layout().reshaped(Shape{count, k}, rows)) return false;
  a = a.seen_as(rows).with_slot(a.tracked() ? a.grad_ref().slot : 0);
  return true;
}

Result<Tensor> multiply(const Tensor& left, const Tensor& right, bool vector, Context& context) noexcept {
  Tensor a = left;
  const Tensor& b = right;
  const Shape batch = broadcast(batch_of(a.shape()), batch_of(b.shape()));
  if (a.dim(-1) != b.dim(-2))
    return fail(Errc::invalid_size, "matmul", "inner sizes differ", a.shape().dims(), b.shape().dims());
  if (!batch.valid())
    return fail(Errc::invalid_size, "matmul", "the leading extents do not broadcast", a.shape().dims(),
                b.shape().dims());
  const Shape out = with_matrix(batch, a.dim(-2), b.dim(-1));
  auto c = Fresh::make(context, out);
  if (!c) return fail(c.error());
  MatmulSaved saved{.b = b, .out = out};
  saved.batch = fold_rows(a, b) ? Shape{} : batch;
  saved.a = a;
  auto wide_a = a.layout().broadcast_to(with_matrix(saved.batch, a.dim(-2), a.dim(-1)));
  auto wide_b = b.layout().broadcast_to(with_matrix(saved.batch, b.dim(-2), b.dim(-1)));
  if (!wide_a) return fail(wide_a.error());
  if (!wide_b) return fail(wide_b.error());
  saved.wide_a = *wide_a;
  saved.wide_b = *wide_b;
  const std::size_t m = extent(a, -2), n = extent(b, -1), k = extent(a, -1);
  const Gemm gemm{.m = m,
                  .n = n,
                  .k = k,
                  .a = a.f32(),
                  .a_row = a.stride(-2),
                  .a_col = a.stride(-1),
                  .b = b.f32(),
                  .b_row = b.stride(-2),
                  .b_col = b.stride(-1),
                  .c = c->f32(),
                  .c_row = static_cast<std::ptrdiff_t>(n),
                  .vector = vector};
  const Batch spread{
      saved.batch, saved.wide_a.stride, saved.wide_b.stride,
      Layout::dense(with_matrix(saved.batch, static_cast<std::int64_t>(m), static_cast<std::int64_t>(n))).stride};
  if (auto done = run_products(context, gemm, spread); !done) return fail(done.error());
  return std::move(*c).freeze(rule(RuleId::matmul), {&left, &right}, saved);
}

}  // namespace

// da = dc b^T, db = a^T dc, each summed over the batch indices that its operand was repeated for.
void rules::matmul(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const MatmulSaved*>(saved);
  const std::size_t m = extent(s.a, -2), n = extent(s.b, -1), k = extent(s.a, -1);
  const auto dc_batch = Layout::dense(with_matrix(s.batch, s.a.dim(-2), s.b.dim(-1))).stride;
  if (const Into da = grads.into(s.a.grad_ref())) {
    const Gemm gemm{.m = m,
                    .n = k,
                    .k = n,
                    .a = grads.out(),
                    .a_row = static_cast<std::ptrdiff_t>(n),
                    .a_col = 1,
                    .b = s.b.f32(),
                    .b_row = s.b.stride(-1),
                    .b_col = s.b.stride(-2),
                    .c = da.data,
                    .c_row = static_cast<std::ptrdiff_t>(k),
                    .accumulate = da.accumulate};
    grads.settle(
        run_products(grads.context(), gemm, {s.batch, dc_batch, s.wide_b.stride, dense_batch_strides(s.a, s.batch)}));
  }
  if (const Into db = grads.into(s.b.grad_ref())) {
    const Gemm gemm{.m = k,
                    .n = n,
                    .k = m,
                    .a = s.a.f32(),
                    .a_row = s.a.stride(-1),
                    .a_col = s.a.stride(-2),
                    .b = grads.out(),
                    .b_row = static_cast<std::ptrdiff_t>(n),
                    .b_col = 1,
                    .c = db.data,
                    .c_row = static_cast<std::ptrdiff_t>(n),
                    .accumulate = db.accumulate};
    grads.settle(
        run_products(grads.context(), gemm, {s.batch, s.wide_a.stride, dc_batch, dense_batch_strides(s.b, s.batch)}));
  }
}

namespace ops {

Result<Tensor> matmul(const Operand& a, const Operand& b) noexcept {
  auto context = float_context("matmul", {&a, &b});
  if (!context) return fail(context.error());
  if (a->rank() == 0 || b->rank() == 0) {
    return fail(Errc::invalid_size, "matmul", "needs vectors, matrices or batches of them", a->shape().dims(),
                b->shape().dims());
  }
  const Result<Tensor> left = a->rank() == 1 ? unsqueeze(a, 0) : Result<Tensor>(*a);
  const Result<Tensor> right = b->rank() == 1 ? unsqueeze(b, 1) : Result<Tensor>(*b);
  if (!left) return left;
  if (!right) return right;
  auto c = multiply(*left, *right, a->rank() == 1 || b->rank() == 1, **context);
  if (c && a->rank() == 1) c = squeeze(c, -2);
  if (c && b->rank() == 1) c = squeeze(c, -1);
  return c;
}

}  // namespace ops
}  // namespace qorus
