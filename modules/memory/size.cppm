// Sizes that cannot wrap: arithmetic that says so instead, and byte literals.
export module qorus.memory:size;
import qorus.std;
import :error;

export namespace qorus {

// Of every slab, slice and parameter, in bytes: one cache line, one AVX-512 register.
inline constexpr std::size_t k_alignment = 64;

consteval std::size_t operator""_KiB(unsigned long long n) { return static_cast<std::size_t>(n) << 10; }
consteval std::size_t operator""_MiB(unsigned long long n) { return static_cast<std::size_t>(n) << 20; }
consteval std::size_t operator""_GiB(unsigned long long n) { return static_cast<std::size_t>(n) << 30; }

// An unsigned size that remembers whether any step on its way overflowed. `(Checked(rows) * cols * 4 + 64).get("load")`.
class Checked {
 public:
  constexpr Checked(std::uint64_t value) noexcept : value_(value) {}  // implicit: a number is a size

  [[nodiscard]] constexpr bool ok() const noexcept { return ok_; }
  // The value, or Errc::overflow.
  [[nodiscard]] Result<std::size_t> get(const char* op) const noexcept {
    if (!ok_) return fail(Errc::overflow, op, "a size does not fit 64 bits");
    return static_cast<std::size_t>(value_);
  }
  [[nodiscard]] constexpr std::uint64_t value_or(std::uint64_t other) const noexcept { return ok_ ? value_ : other; }

  friend constexpr Checked operator+(Checked a, Checked b) noexcept {
    Checked sum = a;
    sum.ok_ = !__builtin_add_overflow(a.value_, b.value_, &sum.value_) && a.ok_ && b.ok_;
    return sum;
  }
  friend constexpr Checked operator-(Checked a, Checked b) noexcept {
    Checked rest = a;
    rest.ok_ = !__builtin_sub_overflow(a.value_, b.value_, &rest.value_) && a.ok_ && b.ok_;
    return rest;
  }
  friend constexpr Checked operator*(Checked a, Checked b) noexcept {
    Checked product = a;
    product.ok_ = !__builtin_mul_overflow(a.value_, b.value_, &product.value_) && a.ok_ && b.ok_;
    return product;
  }
  // The next multiple of a power of two.
  [[nodiscard]] constexpr Checked aligned(std::uint64_t alignment) const noexcept {
    Checked up = *this + (alignment - 1);
    up.value_ &= ~(alignment - 1);
    return up;
  }

 private:
  std::uint64_t value_;
  bool ok_ = true;
};

// The next multiple of `alignment` (a power of two); the sum must not wrap.
[[nodiscard]] constexpr std::size_t align_up(std::size_t n, std::size_t alignment = k_alignment) noexcept {
  return (n + alignment - 1) & ~(alignment - 1);
}

}  // namespace qorus
