// The kernels' one door: a table of function pointers per instruction set, chosen once from what the CPU offers.
// Plain C++ over pointers and sizes: no modules, no Tensor, no allocation, no errors (callers have checked), no globals.
//
// Conventions, unless a declaration says otherwise: f32, row-major, contiguous; any alignment; any n including 0; an output
// may be exactly an input of the same size (in place), otherwise arrays do not overlap. "accumulate" adds to the output
// instead of replacing it. Every result depends on the arguments alone: never on threads, time or earlier calls; and an
// element's result (a row's) on that element (row) alone, not on its place, so that a caller may cut an array as it likes.
// Where it cuts matters for speed: a call that writes 2^21 elements or more sends them past the caches, which is up to twice as
// fast for arrays that the caches cannot hold, and shorter calls leave their output where the next operation finds it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace qorus::kernels {

// y = f(x), with one parameter `a` where the formula has one.
enum class Unary : std::uint8_t {
  // clang-format off
  neg, abs, sign, sqrt, square, reciprocal, exp, log, sin, cos, erf, floor, ceil, round,  // round: half to even
  // clang-format on
  relu,        // max(x, 0)
  leaky_relu,  // x > 0 ? x : a x
  elu,         // x > 0 ? x : a (exp x - 1)
  gelu,        // x/2 (1 + erf(x / sqrt 2))
  gelu_tanh,   // x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
  silu,        // x / (1 + exp -x)
  sigmoid,     // 1 / (1 + exp -x)
  tanh,
  softplus,  // log(1 + exp x)
  pow,       // x^a
  add,       // x + a
  mul,       // x a
  rsub,      // a - x
  rdiv,      // a / x
  rpow,      // a^x
  max,       // max(x, a); NaN if either is
  min,       // min(x, a); NaN if either is
  count_     // not an operation
};
enum class Binary : std::uint8_t { add, sub, mul, div, pow, max, min, count_ };  // max, min: NaN if either is
enum class Compare : std::uint8_t { eq, ne, lt, le, gt, ge, count_ };
enum class Reduce : std::uint8_t { sum, sum_abs, sum_square, max, min, prod, count_ };
enum class Act : std::uint8_t { none, relu, gelu, gelu_tanh, silu, sigmoid, tanh, count_ };

// Block formats of weights, as GGUF files hold them: so many elements in a row as one block of bytes, at any address.
enum class Quant : std::uint8_t { q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, count_ };
struct QuantBlock {  // NOLINT(performance-trivially-destructible): it is; the check errs through modules
  std::uint16_t elements = 1, bytes = 0;
};
constexpr QuantBlock k_quant_blocks[] = {{32, 18},   {32, 20},   {32, 22},   {32, 24},   {32, 34}, {256, 84},
                                         {256, 110}, {256, 144}, {256, 176}, {256, 210}, {32, 18}, {256, 136}};

// Weights [n, k] laid out for products, `packed_weights`: panels of 16 rows (the last filled up with zeros), k from end to end in each, so
// that a vector of 4-byte pieces holds the same elements of k of 16 rows. Block formats, which come first and in the order of Quant, keep
// their bytes; f16 and bf16 become whole numbers of 14 bits with a bf16 scale for every 32 of them, which is a tenth less.
// clang-format off
enum class Packing : std::uint8_t { q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, f16, bf16, count_ };
// clang-format on
constexpr QuantBlock packing_block(Packing packing) noexcept {
  return packing < Packing::f16 ? k_quant_blocks[static_cast<int>(packing)] : QuantBlock{32, 58};
}
// What packed rows of x are for: weights that count from -offset, or with a minimum where that is 0; both of them for every half of 32
// elements (halves); or weights of 16 bits (wide). Products with packings of equal kinds read the same rows.
struct PackingRows {
  std::uint8_t offset;
  bool halves, wide;
};
constexpr PackingRows k_packing_rows[] = {
    {8, false, false},    // q4_0
    {0, false, false},    // q4_1
    {16, false, false},   // q5_0
    {0, false, false},    // q5_1
    {128, false, false},  // q8_0
    {0, true, false},     // q2_k
    {4, true, false},     // q3_k
    {0, false, false},    // q4_k
    {0, false, false},    // q5_k
    {32, true, false},    // q6_k
    {128, false, false},  // iq4_nl
    {128, false, false},  // iq4_xs
    {0, false, true},     // f16
    {0, false, true},     // bf16
};
constexpr bool same_rows(Packing a, Packing b) noexcept {
  const PackingRows x = k_packing_rows[static_cast<int>(a)], y = k_packing_rows[static_cast<int>(b)];
  return x.offset == y.offset && x.halves == y.halves && x.wide == y.wide;
}
constexpr std::size_t k_panel = 16;
constexpr std::size_t panels_of(std::size_t n) noexcept { return (n + k_panel - 1) / k_panel; }
constexpr std::size_t packed_panel_bytes(Packing packing, std::size_t k) noexcept {
  const QuantBlock block = packing_block(packing);
  return k / block.elements * block.bytes * k_panel;
}
// Bytes of a packed row of x, for every 32 elements: 32 int8, a scale and two sums, or 32 int16 and a scale for f16 and bf16.
constexpr std::size_t packed_row_bytes(Packing packing, std::size_t k) noexcept {
  return k / 32 * (packing >= Packing::f16 ? 68 : 44);
}

// c[i,j] = x[i,:] . w[j,:] (+ c[i,j] if accumulate) + bias[j], of rows and weights that are packed. c[i,j] starts from c and the bias and
// is one chain in the order of k; it does not depend on m, nor on how the panels are cut, nor on the table.
// Per block of 32 elements with x = scale q (see pack_rows) and w = ws qw - wm, q and qw whole numbers: t = ws (sum q qw), the sum exact;
// where a half of the block has a ws of its own: t = fma(ws', sum', t); where the format has a minimum: t = fma(wm, -sum q, t), where
// halves have one each: fma(wm', -sum' q, t) then; f16 and bf16: t = ws (sum' + sum'') of the halves, each rounded to f32; chain = fma(t, scale, chain). ws and wm are rounded to f32 first (scale
// times group's scale).
struct PackedProduct {
  Packing packing = Packing::q8_0;
  std::size_t m = 0, n = 0, k = 0;  // k a multiple of the packing's elements
  const void* rows = nullptr;
  const void* weights = nullptr;
  float* c = nullptr;
  std::ptrdiff_t c_row = 0;
  const float* bias = nullptr;  // [n] or null
  bool accumulate = false;
  // Of one row: bytes that are fetched into the caches meanwhile, a line now and then; null for the weights that come next.
  const void* fetch = nullptr;
  std::size_t fetch_bytes = 0;
};

// m' = b1 m + (1-b1) g ; v' = b2 v + (1-b2) g^2 ; p' = p (1 - lr wd) - lr (m'/c1) / (sqrt(v'/c2) + eps)
struct AdamStep {
  float lr, beta1, beta2, eps;
  float correction1, correction2;  // 1 - beta1^t and 1 - beta2^t, t counted from 1
  float weight_decay;              // decoupled (AdamW)
  float l2, l1;                    // added to the gradient: g + l2 p + l1 sign(p)
  float grad_scale;                // the gradient is multiplied by this first (clipping by norm, averaging)
  float grad_limit;                // then limited to [-grad_limit, grad_limit]; infinity for none
};
// g' = g + l2 p + l1 sign p ; b' = first ? g' : momentum b + (1 - dampening) g' ;
// p' = p - lr (nesterov ? g' + momentum b' : b')
struct SgdStep {
  float lr, momentum, dampening;
  bool nesterov, first;
  float l2, l1, grad_scale, grad_limit;  // as in AdamStep
};

// One f32 matrix product. c[i,j] = act( sum over k of a[i,k] b[k,j]  (+ c[i,j] if accumulate)  + bias[j] ) + residual[i,j].
// Any strides in elements; the leading dimension of c, pre and residual is in elements too and their rows are contiguous.
// k = 0 gives the sum 0. Sums over k in one fixed order that depends on m, n, k and the instruction set alone, so a
// product is the same bits whoever computes which task; and row i of the result does not depend on m (but see `vector`).
struct Gemm {
  std::size_t m = 0, n = 0, k = 0;
  const float* a = nullptr;
  std::ptrdiff_t a_row = 0, a_col = 0;
  const float* b = nullptr;
  std::ptrdiff_t b_row = 0, b_col = 0;
  const float* b_packed = nullptr;  // B as gemm_pack wrote it; then b and its strides are not read
  float* c = nullptr;
  std::ptrdiff_t c_row = 0;
  bool accumulate = false;
  // For m = 1, n = 1: the row, or the column, is a vector and not one of a batch, so that the sums may go in another order than
  // those of products with more rows: dot products, which read weights [n,k] as fast as memory gives them.
  bool vector = false;
  const float* bias = nullptr;  // [n] or null
  Act act = Act::none;
  float* pre = nullptr;  // if not null: receives the value before act, [m,n]
  std::ptrdiff_t pre_row = 0;
  const float* residual = nullptr;  // [m,n] or null
  std::ptrdiff_t residual_row = 0;
};

// How a product is cut: phases one after the other, each of some tasks that may run at once and in any order. Depends on
// the sizes and strides alone, never on the number of threads.
struct GemmPlan {
  std::uint32_t phases = 0;
  std::uint32_t tasks[4] = {};
  std::size_t shared_bytes = 0;  // scratch of the whole product, 64-byte aligned
  std::size_t worker_bytes = 0;  // scratch of each worker, 64-byte aligned
  std::size_t detail[8] = {};    // the implementation's own
  // Of a convolution: the first phase writes the shared scratch, all of it, from the weights alone, the same for every input. Who
  // keeps it may begin with the next phase, as long as another input's plan says so too.
  bool weights_first = false;
};

// One convolution, or one phase of a transposed one: y[n,g,o,p] (+)= relu?( bias[g,o] + sum over i and taps t of
// w[g,o,i,t] x[n,g,i,q] ), where q = p step + first + t tap_step on each of three axes (the last contiguous in x; unused ones
// have one place and one tap) and x is 0 outside its extents. The order of the sum depends on the sizes and the instruction set
// alone, not on the number of images. Pointers into w and y are those of the first tap and place; their strides may be negative. x is
// dense. A product for 2 by 2 outputs at once (simd/conv_winograd.h) may carry what is not finite to all four.
struct ConvAxis {
  std::size_t in = 1, out = 1, taps = 1, step = 1;
  std::ptrdiff_t first = 0, tap_step = 1;  // in places of x
  std::ptrdiff_t w_tap = 0, y_step = 0;    // in floats
};
struct Conv {
  std::size_t images = 0, groups = 1, ins = 0, outs = 0;  // channels of each group
  ConvAxis axis[3];
  const float* x = nullptr;  // [images, groups ins, in0, in1, in2]
  const float* w = nullptr;
  std::ptrdiff_t w_group = 0, w_out = 0, w_in = 0;
  const float* bias = nullptr;  // [groups outs] or null
  bool relu = false, accumulate = false;
  float* y = nullptr;
  std::ptrdiff_t y_image = 0, y_channel = 0;
};

// Windows of a pool on three axes: output place i of an axis looks at places begin[i], begin[i] + step, … below end[i], at least one.
// An average divides by the product of the axes' count[i].
struct PoolAxis {
  std::size_t in = 1, out = 1, step = 1;
  const std::int32_t *begin = nullptr, *end = nullptr, *count = nullptr;
  bool pairs = false;  // begin[i] = 2 i, end[i] = 2 i + 2, step 1
};
struct Pool {
  PoolAxis axis[3];
};

struct Table {
  const char* isa;  // "scalar", "avx2", "avx512"

  // --- element-wise ---------------------------------------------------------------------------------------------------
  void (*unary)(Unary op, const float* x, float* y, std::size_t n, float a) noexcept;
  // y[i] = op(a[i*sa], b[i*sb]); sa, sb are 0 or 1.
  void (*binary)(Binary op, const float* a, std::size_t sa, const float* b, std::size_t sb, float* y,
                 std::size_t n) noexcept;
  void (*compare)(Compare op, const float* a, std::size_t sa, const float* b, std::size_t sb, std::uint8_t* y,
                  std::size_t n) noexcept;  // 1 or 0; a NaN is unequal to all
  // y[i] = mask[i*sm] ? a[i*sa] : b[i*sb]; strides 0 or 1.
  void (*select)(const std::uint8_t* mask, std::size_t sm, const float* a, std::size_t sa, const float* b,
                 std::size_t sb, float* y, std::size_t n) noexcept;
  void (*axpy)(float alpha, const float* x, float* y, std::size_t n) noexcept;    // y += alpha x
  void (*fma)(const float* a, const float* b, float* y, std::size_t n) noexcept;  // y += a b, element by element
  // min(max(x, low), high); NaN stays
  void (*clamp)(const float* x, float* y, std::size_t n, float low, float high) noexcept;

  // --- copies and casts ------------------------------------------------------------------------------------------------
  // y[c, r] = x[r, c]; leading dimensions in elements. No overlap.
  void (*transpose)(const float* x, std::size_t x_row, float* y, std::size_t y_row, std::size_t rows,
                    std::size_t cols) noexcept;
  void (*f16_to_f32)(const std::uint16_t* x, float* y, std::size_t n) noexcept;
  // round to nearest even; NaN stays NaN
  void (*f32_to_f16)(const float* x, std::uint16_t* y, std::size_t n) noexcept;
  void (*bf16_to_f32)(const std::uint16_t* x, float* y, std::size_t n) noexcept;
  // round to nearest even; NaN stays NaN
  void (*f32_to_bf16)(const float* x, std::uint16_t* y, std::size_t n) noexcept;
  // x scale + shift
  void (*u8_to_f32)(const std::uint8_t* x, float* y, std::size_t n, float scale, float shift) noexcept;

  // --- block formats: rows are whole blocks ----------------------------------------------------------------------------
  // n elements, a multiple of the format's block. The same bits in every table (but for a NaN's): each element is its scale times its
  // whole number, plus or minus a minimum where the format has one; both rounded.
  void (*dequantize)(Quant format, const void* blocks, float* y, std::size_t n) noexcept;
  // [rows, cols] to q4_0 or q8_0; the same bytes in every table. A block's scale comes from its largest magnitude, or, for q4_0 with
  // importance [cols] (else null), from the least error weighted by it.
  void (*quantize)(Quant format, const float* x, const float* importance, void* blocks, std::size_t rows,
                   std::size_t cols) noexcept;

  // --- products with weights of 16 bits and less -------------------------------------------------------------------------
  // Panels first to last-1 of weights [n, k]. The same bytes in every table. 32 elements w of f16 or bf16 become qw = w (1 / ws) to the
  // nearest, halves to even, ws = largest magnitude / 8191 rounded up to bf16: the error is below that of f16 itself for all within a factor
  // of 4 of the largest. 0 and 0 where the largest lies below 1e-30; 0 and NaN with a NaN or an infinity among them. Meanwhile a panel's
  // successor is fetched into the caches, but for its first `fetched` bytes.
  void (*pack_weights)(Packing packing, const void* rows, void* packed, std::size_t n, std::size_t k, std::size_t first,
                       std::size_t last, std::size_t fetched) noexcept;
  // Rows first to last-1 of x: [m, k], rows x_row apart; first is a multiple of 16, last too unless it is m. Every 32 elements become whole
  // numbers q from -127 to 127: q = x (127 / largest magnitude) to the nearest, halves to even, scale = largest / 127 rounded to 11 binary
  // digits, which within f16's range is ggml's q8_0 (for f16 and bf16: 8191 for 127, and the scale as it is); all 0 where the largest lies below 1e-30; with a NaN or an infinity among them, q =
  // 0 and the scale NaN. The same bytes in every table.
  void (*pack_rows)(Packing packing, const float* x, std::ptrdiff_t x_row, void* packed, std::size_t m, std::size_t k,
                    std::size_t first, std::size_t last) noexcept;
  // Columns of panels first to last-1.
  void (*packed_product)(const PackedProduct& p, std::size_t first, std::size_t last) noexcept;

  // --- reductions --------------------------------------------------------------------------------------------------------
  // y[o,i] = reduce over r of x[o,r,i]; x: [outer, reduced, inner]. sum, sum_abs, sum_square add in a fixed order with
  // enough partial sums that the error stays near sqrt(n) ulp. reduced = 0 gives 0, 1 (prod), -inf (max), +inf (min).
  // max and min give NaN if any element is NaN.
  void (*reduce)(Reduce op, const float* x, float* y, std::size_t outer, std::size_t reduced,
                 std::size_t inner) noexcept;
  // index of the first largest (or smallest, if !largest) element, [outer, reduced, inner] -> i32 [outer, inner]; a NaN counts as largest/smallest. reduced > 0
  void (*arg_reduce)(bool largest, const float* x, std::int32_t* y, std::size_t outer, std::size_t reduced,
                     std::size_t inner) noexcept;

  // --- rows: x, y: [rows, cols], cols > 0 -----------------------------------------------------------------------------------
  // y[r,:] = softmax(scale x[r,:])
  void (*softmax)(const float* x, float* y, std::size_t rows, std::size_t cols, float scale) noexcept;
  void (*log_softmax)(const float* x, float* y, std::size_t rows, std::size_t cols) noexcept;
  // loss[r] = -(1-smoothing) log p[target] - smoothing mean_c log p[c] where p = softmax(x[r,:]); 0 where target[r] ==
  // ignore. log_sum[r] = log sum exp x[r,:] is what the backward needs. Targets that are not `ignore` lie in [0, cols).
  void (*cross_entropy)(const float* x, const std::int32_t* target, float* loss, float* log_sum, std::size_t rows,
                        std::size_t cols, float smoothing, std::int32_t ignore) noexcept;
  // y = (x - mean) / sqrt(var + eps) * w + b; w, b: [cols] or null. mean, rstd: [rows] or null (not wanted).
  void (*layer_norm)(const float* x, const float* w, const float* b, float* y, float* mean, float* rstd,
                     std::size_t rows, std::size_t cols, float eps) noexcept;
  // y = x / sqrt(mean(x^2) + eps) * w; w: [cols] or null. rstd: [rows] or null.
  void (*rms_norm)(const float* x, const float* w, float* y, float* rstd, std::size_t rows, std::size_t cols,
                   float eps) noexcept;

  // --- recurrent cells: one step of `rows` sequences of n units; rows follow each other without gaps; a null c_prev, h_prev is zeros -----
  // gates: [rows, 4 n]: i, f, g, o before their functions. They become sigmoid i, sigmoid f, tanh g, sigmoid o; c = f c_prev + i g;
  // h = o tanh c. c may be exactly c_prev. Source: Hochreiter & Schmidhuber 1997, with forget gates (Gers et al. 2000).
  void (*lstm_cell)(float* gates, const float* c_prev, float* c, float* h, std::size_t rows, std::size_t n) noexcept;
  // x, s: [rows, 3 n]: r, z, n from the input and from the state. x becomes r = sigmoid(x_r + s_r), z = sigmoid(x_z + s_z),
  // n = tanh(x_n + r s_n); h = (1 - z) n + z h_prev. h may be exactly h_prev. Source: Cho et al. 2014, as PyTorch has it.
  void (*gru_cell)(float* x, const float* s, const float* h_prev, float* h, std::size_t rows, std::size_t n) noexcept;
  // --- channels: populations of `segments` runs of n floats, `step` floats apart; segments n > 0 -----------------------------------------
  // mean and (population) variance, in f64 on the way.
  void (*moments)(const float* x, std::size_t segments, std::size_t n, std::size_t step, float* mean,
                  float* variance) noexcept;
  // y = (x - center) scale + shift, then max(y, 0) if relu.
  void (*affine)(const float* x, float* y, std::size_t n, float center, float scale, float shift, bool relu) noexcept;

  // --- pools: x: [planes, in0, in1, in2], y: [planes, out0, out1, out2] -------------------------------------------------------------
  // The largest of each window (NaN if any is); index (or null): where the first such lies in its plane of x.
  void (*max_pool)(const Pool& pool, const float* x, float* y, std::int32_t* index, std::size_t planes) noexcept;
  void (*avg_pool)(const Pool& pool, const float* x, float* y, std::size_t planes) noexcept;

  // --- random numbers: Philox 4x32-10; element i uses counter (first + i) / 4, lane (first + i) % 4 -------------------------------
  void (*random_bits)(std::uint32_t* y, std::size_t n, std::uint64_t key, std::uint64_t first) noexcept;
  void (*random_uniform)(float* y, std::size_t n, std::uint64_t key, std::uint64_t first) noexcept;  // [0, 1), 24 bits
  // y[i] = keep(i) ? x[i] * (1 / (1 - p)) : 0 where keep(i) = uniform(i) >= p. Its own backward, with dy for x. 0 <= p < 1.
  void (*dropout)(const float* x, float* y, std::size_t n, float p, std::uint64_t key, std::uint64_t first,
                  bool accumulate) noexcept;

  // --- matrix products ----------------------------------------------------------------------------------------------------------
  GemmPlan (*gemm_plan)(const Gemm& g) noexcept;
  void (*gemm_task)(const Gemm& g, const GemmPlan& plan, std::uint32_t phase, std::uint32_t task, void* shared,
                    void* worker) noexcept;
  // B laid out ahead of time, for weights that do not change: floats needed, and the writing of it (b, b_row, b_col, k, n are read).
  std::size_t (*gemm_packed_size)(std::size_t n, std::size_t k) noexcept;
  void (*gemm_pack)(const Gemm& g, float* packed) noexcept;

  // --- convolutions: phases of tasks, as in a matrix product ---------------------------------------------------------------------
  GemmPlan (*conv_plan)(const Conv& c) noexcept;
  void (*conv_task)(const Conv& c, const GemmPlan& plan, std::uint32_t phase, std::uint32_t task, void* shared,
                    void* worker) noexcept;
};

// What only training needs, apart from the rest so that a program which only infers does not link it.
struct Training {
  // dx (+)= dy f'(x). Which of x and y (= f(x)) is read, by op: y for exp, sqrt, reciprocal, sigmoid, tanh; nothing for neg, add,
  // mul, rsub; 0 for sign, floor, ceil, round; x for the rest. At a kink the derivative is that of PyTorch
  // (relu'(0) = 0, abs'(0) = 0, leaky_relu'(0) = a, max/min: 1/2 at a tie). The pointer that is not read may be null.
  // dx may be exactly dy.
  void (*unary_bwd)(Unary op, const float* x, const float* y, const float* dy, float* dx, std::size_t n, float a,
                    bool accumulate) noexcept;
  void (*softmax_bwd)(const float* y, const float* dy, float* dx, std::size_t rows, std::size_t cols, float scale,
                      bool accumulate) noexcept;  // dx = scale y (dy - sum(dy y))
  void (*log_softmax_bwd)(const float* y, const float* dy, float* dx, std::size_t rows, std::size_t cols,
                          bool accumulate) noexcept;  // dx = dy - exp(y) sum(dy)
  // dx (+)= dloss[r * dloss_step] (p - (1-smoothing) onehot(target) - smoothing/cols), 0 for ignored rows. dloss_step is 0 or 1.
  void (*cross_entropy_bwd)(const float* x, const std::int32_t* target, const float* log_sum, const float* dloss,
                            std::size_t dloss_step, float* dx, std::size_t rows, std::size_t cols, float smoothing,
                            std::int32_t ignore, bool accumulate) noexcept;
  // dx (+)=; dw, db [cols] are always added to (may be null). whole: elements of the array that dx is a part of, or 0; a large one is written
  // past the caches.
  void (*layer_norm_bwd)(const float* x, const float* w, const float* mean, const float* rstd, const float* dy,
                         float* dx, float* dw, float* db, std::size_t rows, std::size_t cols, std::size_t whole,
                         bool accumulate) noexcept;
  void (*rms_norm_bwd)(const float* x, const float* w, const float* rstd, const float* dy, float* dx, float* dw,
                       std::size_t rows, std::size_t cols, std::size_t whole, bool accumulate) noexcept;
  // gates as lstm_cell left them become dL/d(before their functions); dc: dL/dc of later steps, becomes dL/dc_prev.
  void (*lstm_cell_bwd)(float* gates, const float* c_prev, const float* c, const float* dh, float* dc, std::size_t rows,
                        std::size_t n) noexcept;
  // x as gru_cell left it and its s become dL/dx and dL/ds; dh becomes the part of dL/dh_prev that does not go through s.
  void (*gru_cell_bwd)(float* x, float* s, const float* h_prev, float* dh, std::size_t rows, std::size_t n) noexcept;
  // With d = relu_of && !(relu_of > 0) ? 0 : dy: sum_d = sum of d, sum_dx = sum of d (x - center).
  void (*affine_sums)(const float* x, const float* dy, const float* relu_of, std::size_t segments, std::size_t n,
                      std::size_t step, float center, float* sum_d, float* sum_dx) noexcept;
  // dx (+)= a d + b (x - center) + c, d as above. dx may be dy.
  void (*affine_bwd)(const float* x, const float* dy, const float* relu_of, float* dx, std::size_t n, float center,
                     float a, float b, float c, bool accumulate) noexcept;
  // dx (+)= dy at the first place of its window where x = y, or x is NaN.
  void (*max_pool_bwd)(const Pool& pool, const float* x, const float* y, const float* dy, float* dx, std::size_t planes,
                       bool accumulate) noexcept;
  void (*avg_pool_bwd)(const Pool& pool, const float* dy, float* dx, std::size_t planes, bool accumulate) noexcept;
  void (*adam)(float* p, const float* g, float* m, float* v, std::size_t n, const AdamStep& step) noexcept;
  // momentum may be null if 0
  void (*sgd)(float* p, const float* g, float* momentum, std::size_t n, const SgdStep& step) noexcept;
  // The weights' gradient of a convolution: w[g,o,i,t] (+)= sum over n and p of y[n,g,o,p] x[n,g,i,q], where y holds dL/dy and w is
  // written through the pointer `dw` with the strides of w. bias and relu are not looked at; y is dense.
  GemmPlan (*conv_weight_plan)(const Conv& c) noexcept;
  void (*conv_weight_task)(const Conv& c, float* dw, const GemmPlan& plan, std::uint32_t phase, std::uint32_t task,
                           void* shared, void* worker) noexcept;
};
// The training kernels of a table's instruction set.
const Training& training(const Table& table) noexcept;

// The table in use: the best that this CPU and its operating system offer, lowered (never raised) by the environment
// variable QORUS_ISA=scalar|avx2|avx512. Chosen once, at first use; thread-safe.
const Table& active() noexcept;
inline const Training& training() noexcept { return training(active()); }

// A named table, or null if this CPU cannot run it (or there is none of that name). For tests and benchmarks.
const Table* table(const char* isa) noexcept;

struct CpuFeatures {
  bool avx2, fma, f16c, avx512, avx512_vnni, avx512_bf16;
};
CpuFeatures cpu_features() noexcept;

struct CacheSizes {
  std::size_t l1, l2, l3;  // bytes; of one core, of one core, of all that share it
};
const CacheSizes& cache_sizes() noexcept;

}  // namespace qorus::kernels
