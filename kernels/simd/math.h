// Vector mathematics on f32, written once over the vector type: include kernels/avx2/vec.h or kernels/avx512/vec.h
// first. Each function is right for every f32: at both zeros, infinities, NaN, denormals and where the result over- or
// underflows. The tests print the worst error of each in units of the last place, over all exponents. Polynomials are
// minimax fits (Remez) made for these intervals; the error beside each is that of the fit alone.
#pragma once
#include <cstddef>
#include <cstdint>

namespace qorus::kernels {
namespace {

constexpr float k_infinity = __builtin_inff();
constexpr float k_largest = 0x1.fffffep127f;
constexpr float k_log2e = 1.44269504f;
constexpr float k_ln2_high = 0.693147182f, k_ln2_low = -1.90465421e-9f;  // their sum is ln 2 to 48 bits

// The sum of c[i] x^i, given x^2: even and odd powers side by side, each from the highest down. Half the latency of one
// chain, and no more work where x^2 is needed anyway.
template <class V, class Number, std::size_t count>
QORUS_INLINE V polynomial(V x, V square, const Number (&c)[count]) {
  constexpr std::size_t odd_top = count - 1 - count % 2, even_top = count - 2 + count % 2;
  V even = set(c[even_top]), odd = set(c[odd_top]);
#pragma unroll
  for (std::size_t i = even_top; i >= 2; i -= 2) even = fma(even, square, set(c[i - 2]));
#pragma unroll
  for (std::size_t i = odd_top; i >= 3; i -= 2) odd = fma(odd, square, set(c[i - 2]));
  return fma(odd, x, even);
}
template <class V, class Number, std::size_t count>
QORUS_INLINE V polynomial(V x, const Number (&c)[count]) {
  return polynomial(x, x * x, c);
}

// --- exp ---
// x + low = n ln 2 + r, |r| <= ln 2 / 2, n whole; exp r = 1 + r + r^2 P(r).
struct Reduced {
  F32 n, r;
};
QORUS_INLINE Reduced reduced(F32 x) {
  const F32 n = round(x * set(k_log2e));
  return {n, fnma(n, set(k_ln2_low), fnma(n, set(k_ln2_high), x))};
}
QORUS_INLINE F32 exp_curve(F32 r, F32 square) {                                                     // P
  constexpr float p[] = {0.49999994f, 0.166665152f, 0.041668456f, 0.00836941879f, 0.00138131436f};  // 2^-28
  return polynomial(r, square, p);
}
QORUS_INLINE F32 exp(Reduced x) {
  const F32 one = set(1.0f), start = one + x.r, lost = x.r - (start - one);  // 1 + r as a rounded sum and what it lost
  const F32 square = x.r * x.r;
  return scale2(start + fma(square, exp_curve(x.r, square), lost), x.n);
}
QORUS_INLINE F32 expm1_reduced(F32 r) {  // exp r - 1
  const F32 square = r * r;
  return fma(exp_curve(r, square), square, r);
}

QORUS_INLINE F32 exp(F32 x) { return exp(reduced(min(set(89.0f), max(set(-104.0f), x)))); }

// exp x for x <= 0 (or NaN).
QORUS_INLINE F32 exp_below(F32 x) { return exp(reduced(max(set(-104.0f), x))); }

// exp x - 1, as exact near 0 as elsewhere: 2^n (exp r - 1) + (2^n - 1).
QORUS_INLINE F32 expm1(F32 x) {
  const Reduced e = reduced(min(set(89.0f), max(set(-25.0f), x)));
  const F32 half = scale2(set(0.5f), e.n);  // 2^(n-1), so that n = 128 does not overflow on the way
  const F32 value = fma(half, expm1_reduced(e.r), half - set(0.5f)) * set(2.0f);
  return select(x == set(0.0f), x, value);  // keeps -0
}

// --- log ---
// log(1 + f) + k ln 2 for f in [sqrt(1/2) - 1, sqrt 2 - 1]:  f - f^2/2 + f^3 Q(f).
QORUS_INLINE F32 log1p_reduced(F32 f, F32 k) {
  constexpr float q[] = {0.333333135f,  -0.250000089f, 0.200021192f,  -0.166679963f, 0.142195508f,
                         -0.124055862f, 0.118881665f,  -0.116756693f, 0.0674665123f};  // 2^-30
  const F32 square = f * f;
  F32 total = fma(k, set(k_ln2_low), polynomial(f, square, q) * f * square);
  total = fma(set(-0.5f), square, total);
  return fma(k, set(k_ln2_high), total + f);
}

QORUS_INLINE F32 log(F32 x) {
  const Mask small = x < set(0x1p-126f);
  const F32 scaled = select(small, x * set(0x1p23f), x);
  constexpr std::int32_t sqrt_half = 0x3f3504f3;
  const I32 offset = bits(scaled) - set(sqrt_half);
  const F32 k = to_float(shift_right_signed<23>(offset)) - where(set(23.0f), small);
  const F32 m = from_bits((offset & set(0x7fffff)) + set(sqrt_half));  // [sqrt 1/2, sqrt 2)
  F32 y = log1p_reduced(m - set(1.0f), k);
  y = select(x < set(k_infinity), y, x);  // infinity and NaN stay
  y = select(x == set(0.0f), set(-k_infinity), y);
  return select(x < set(0.0f), set(__builtin_nanf("")), y);
}

// log(1 + e) for e in [0, 1].
QORUS_INLINE F32 log1p_unit(F32 e) {
  const Mask upper = e > set(0.41421354f);
  const F32 f = select(upper, fma(e, set(0.5f), set(-0.5f)), e);  // 1 + f = (1 + e) / 2
  return log1p_reduced(f, where(set(1.0f), upper));
}

// --- sigmoid and what is made of it: from exp(-|x|), which does not overflow ---
QORUS_INLINE F32 sigmoid(F32 x) {
  const F32 e = exp_below(-abs(x)), one = set(1.0f), bottom = e + one, lost = e - (bottom - one);
  const F32 y = select(signed_bit(x), e, one) / bottom;
  const F32 share = select(signed_bit(x), one - y, y);  // 1 / (1 + e); mends what the rounding of 1 + e lost
  return fnma(y * share, lost, y);
}
// x sigmoid(z), for z of x's sign; x at least -k_largest, so that -infinity gives -0.
QORUS_INLINE F32 gated(F32 x, F32 z) {
  const F32 e = exp_below(-abs(z)), bounded = max(set(-k_largest), x);
  return select(signed_bit(x), bounded * e, bounded) / (e + set(1.0f));
}
QORUS_INLINE F32 silu(F32 x) { return gated(x, x); }
// d/dx x s(x) = s (1 + x (1 - s)); 1 - s = s(-x). Beyond +-110 it is 0 or 1.
QORUS_INLINE F32 silu_slope(F32 x) {
  const F32 t = min(set(110.0f), max(set(-110.0f), x)), one = set(1.0f);
  const F32 e = exp_below(-abs(t)), scale = one / (e + one);
  const F32 s = select(signed_bit(t), e, one) * scale, rest = select(signed_bit(t), one, e) * scale;
  return s * fma(t, rest, one);
}
QORUS_INLINE F32 softplus(F32 x) {  // max(x, 0) + log(1 + exp(-|x|))
  return max(set(0.0f), x) + log1p_unit(exp_below(-abs(x)));
}

// tanh x = x + x^3 T(x^2) near 0; beyond, with e = exp(-2|x|), 1 - 2 e / (1 + e) with the sign of x.
QORUS_INLINE F32 tanh(F32 x) {
  constexpr float c[] = {-0.33333236f, 0.133302033f, -0.0536386445f, 0.0203183889f,
                         -0.00535772974f};  // 2^-26, |x| <= 0.67
  const F32 one = set(1.0f), size = abs(x), square = x * x;
  const F32 e = exp(reduced(max(set(-20.0f), size * set(-2.0f))));
  const F32 far = one - (e + e) / (e + one);
  return copy_sign(select(size < set(0.65f), fma(polynomial(square, c) * square, x, x), far), x);
}

// --- gelu ---
// The upper tail of the normal distribution, 1 - Phi(t) = exp(z) N / D, z = -t^2 / 2, for t in [0, 14.6], beyond which
// it is 0 in f32. All terms of N and D are positive; relative error 2^-27. z keeps its digits: what the product lost is
// added to the reduced argument. The reduction has one part of ln 2 only; the other's effect, exp(2.7e-9 z), is within
// N / D.
struct Tail {
  F32 gauss;  // exp(z)
  F32 numerator, denominator;
};
QORUS_INLINE Tail normal_tail(F32 t) {
  constexpr float n[] = {0.5f, 0.440034002f, -2 * 0.184494585f, -2 * 0.041051235f, 4 * 0.00417687697f};  // t^2 is -2 z
  constexpr float d[] = {1.0f, 1.677953f, -2 * 1.20779681f, -2 * 0.472792774f, 4 * 0.102905691f, 4 * 0.0104697915f};
  const F32 half = t * set(-0.5f), z = t * half, lost = fms(t, half, z), whole = round(z * set(k_log2e));
  const F32 r = fnma(whole, set(k_ln2_high), z) + lost;
  constexpr float p[] = {0.499992013f, 0.166671336f, 0.0418944992f,
                         0.00831204932f};  // 2^-23: one step fewer than exp's
  const F32 one = set(1.0f), start = one + r, square = r * r;
  const F32 power = start + fma(square, polynomial(r, square, p), r - (start - one));
  return {scale2(power, whole), polynomial(t, z, n), polynomial(t, z, d)};
}
// max(x, 0) by the sign bit, on the ports that products do not need; a NaN may become 0.
QORUS_INLINE F32 positive_part(F32 x) { return from_bits(max(bits(x), set(0))); }
// x Phi(x) = max(x, 0) - |x| tail(|x|).
QORUS_INLINE F32 gelu(F32 x) {
  const F32 t = min(set(14.6f), abs(x));
  const Tail tail = normal_tail(t);
  return fnma(tail.numerator * t / tail.denominator, tail.gauss, positive_part(x));
}
// d/dx x Phi(x) = Phi(x) + x phi(x), phi(x) = exp(-x^2/2) / sqrt(2 pi).
QORUS_INLINE F32 gelu_slope(F32 x) {
  const F32 t = min(set(14.6f), abs(x));
  const Tail tail = normal_tail(t);
  // On the upper side 1 - s, on the lower s, with s = gauss (R - t / sqrt(2 pi)).
  const F32 s = tail.gauss * fnma(t, set(0.398942280f), tail.numerator / tail.denominator);
  return select(signed_bit(x), s, set(1.0f) - s);
}

constexpr float k_gelu_linear = 1.59576912f, k_gelu_cubic = 0.0713548163f;  // 2 sqrt(2/pi), times 0.044715
// x/2 (1 + tanh u) = x sigmoid(2 u), 2 u = x (k_gelu_linear + k_gelu_cubic x^2).
QORUS_INLINE F32 gelu_tanh(F32 x) { return gated(x, x * fma(x * x, set(k_gelu_cubic), set(k_gelu_linear))); }
QORUS_INLINE F32 gelu_tanh_slope(F32 x) {
  const F32 t = min(set(20.0f), max(set(-20.0f), x)), square = t * t, one = set(1.0f);
  const F32 z = t * fma(square, set(k_gelu_cubic), set(k_gelu_linear));
  const F32 z_slope = fma(square, set(3 * k_gelu_cubic), set(k_gelu_linear));
  const F32 e = exp_below(-abs(z)), scale = one / (e + one);
  const F32 s = select(signed_bit(t), e, one) * scale, rest = select(signed_bit(t), one, e) * scale;
  return s * fma(t * rest, z_slope, one);
}

// --- erf: x + x E(x^2) near 0; elsewhere 1 - 2 tail(sqrt 2 |x|) with the sign of x ---
QORUS_INLINE F32 erf(F32 x) {
  constexpr float c[] = {0.128379226f,   -0.376126349f,    0.112837151f,   -0.0268605091f,  // 2^-31 for |x| <= 0.9
                         0.00520385895f, -0.000817563967f, 8.51310469e-05f};
  const F32 t = min(set(4.0f), abs(x)), t2 = t * set(1.41421356f);
  const Tail tail = normal_tail(t2);
  const F32 far = fnma(tail.numerator / tail.denominator, tail.gauss * set(2.0f), set(1.0f));
  const F32 square = x * x;
  return select(abs(x) < set(0.9f), fma(polynomial(square, c), x, x), copy_sign(far, x));
}

// --- sin, cos, pow: by way of f64, which makes them right to the last bit or nearly so ---
// x = n pi/2 + r; the quadrant n mod 4 says which of sin r and cos r, and its sign. |x| <= 2^30: n is then exact and
// the two parts of pi/2 suffice.
QORUS_INLINE F64 sine(F64 x, std::int64_t quadrant) {  // quadrant 0 for sin, 1 for cos
  constexpr double s[] = {-0.16666666666631272, 0.0083333333252126659, -0.00019841263789790447, 2.755535053677513e-06,
                          -2.4761118083956007e-08};  // 2^-47
  constexpr double c[] = {0.041666666622477158, -0.0013888883722635026, 2.4799511767055861e-05,
                          -2.720954802230977e-07};  // 2^-43
  const F64 n = round(x * set(0.63661977236758134));
  const F64 r = fnma(n, set(6.123233995736766e-17), fnma(n, set(1.5707963267948966), x)), square = r * r;
  const F64 sin_r = fma(polynomial(square, s) * square, r, r);
  const F64 cos_r = fma(polynomial(square, c) * square, square, fma(square, set(-0.5), set(1.0)));
  const I64 q = bits(n + set(0x1.8p52)) + set64(quadrant);  // whole, in the low bits
  const F64 value = select_signed(shift_left<63>(q), cos_r, sin_r);
  return from_bits(bits(value) ^ shift_left<63>(shift_right<1>(q)));
}
template <std::int64_t quadrant>
QORUS_INLINE F32 sine(F32 x) {
  F32 y = narrow(sine(low_half(x), quadrant), sine(high_half(x), quadrant));
  if (any(abs(x) > set(0x1p30f))) {  // rare: one by one, by the C library's reduction
    alignas(64) float from[k_lanes], to[k_lanes];
    store(from, x);
    store(to, y);
    for (std::size_t i = 0; i < k_lanes; ++i)
      if (from[i] > 0x1p30f || from[i] < -0x1p30f)
        to[i] = float(quadrant == 0 ? __builtin_sin(double(from[i])) : __builtin_cos(double(from[i])));
    y = load(to);
  }
  return quadrant == 0 ? select(x == set(0.0f), x, y) : y;  // keeps -0
}

// log2 of a positive normal double (every positive f32 is one): m 2^k, m in [sqrt 1/2, sqrt 2), s = (m-1)/(m+1), s
// L(s^2).
QORUS_INLINE F64 log2_positive(F64 x) {
  constexpr double l[] = {2.8853900817778495,  0.9617966941142615,  0.57707794207440444,
                          0.41220928389578743, 0.31990432180046735, 0.28292090600407688};  // 2^-45
  constexpr std::int64_t one = 0x3ff0000000000000, sqrt_half = 0x3fe6a09e667f3bcd;
  const I64 k = shift_right<52>(bits(x) + set64(one - sqrt_half));  // biased by 1023
  const F64 m = from_bits(bits(x) - shift_left<52>(k) + set64(one));
  const F64 s = (m - set(1.0)) / (m + set(1.0));
  const F64 whole = from_bits(k | set64(0x4330000000000000)) - set(0x1p52 + 1023);
  return fma(polynomial(s * s, l), s, whole);
}
QORUS_INLINE F64 exp2_clamped(F64 x) {  // beyond +-300, which f32 does not hold, as at +-300
  constexpr double p[] = {1,
                          0.69314718054821234,
                          0.24022650698110548,
                          0.055504109352663783,
                          0.0096181286161342999,
                          0.0013333454860505866,
                          0.00015403825455439309,
                          1.5309156176984084e-05,
                          1.3178934965345227e-06};  // 2^-40
  const F64 z = min(set(300.0), max(set(-300.0), x)), n = round(z);
  return polynomial(z - n, p) * from_bits(shift_left<52>(bits(n + set(0x1p52 + 1023))));
}

// x^a for any pair, as in C: what is special is put in afterwards.
QORUS_INLINE F32 pow(F32 x, F32 a) {
  const F32 zero = set(0.0f), one = set(1.0f), infinity = set(k_infinity), size = abs(x);
  const F32 inside = select(size == zero, one, min(set(k_largest), size));  // keeps a NaN
  const F64 low = exp2_clamped(log2_positive(low_half(inside)) * low_half(a));
  const F64 high = exp2_clamped(log2_positive(high_half(inside)) * high_half(a));
  F32 y = narrow(low, high);
  // An x of 0 or infinity, or an infinite a: the result is 0, 1 or infinity.
  const Mask x_edge = (size == zero) | (size == infinity), a_edge = abs(a) == infinity;
  const Mask grows = (size > one) & (a > zero) | (size < one) & (a < zero);
  const Mask shrinks = (size > one) & (a < zero) | (size < one) & (a > zero);
  y = select((x_edge | a_edge) & grows, infinity, select((x_edge | a_edge) & shrinks, zero, y));
  y = select(a_edge & (size == one), one, y);
  // A negative x: the sign of an odd whole power, NaN for a fraction.
  const F32 half = a * set(0.5f);
  const Mask whole = floor(a) == a, odd = whole & !(floor(half) == half);
  y = select(signed_bit(x) & odd, -y, y);
  y = select((x < zero) & !whole & !x_edge, set(__builtin_nanf("")), y);
  y = select(is_nan(x) | is_nan(a), x + a, y);
  return select((a == zero) | (x == one), one, y);
}

}  // namespace
}  // namespace qorus::kernels
