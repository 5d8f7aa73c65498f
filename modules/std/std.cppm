// qorus.std: what Qorus uses of the standard library and of tl-expected, compiled once. Modules import it instead of including headers: one that
// includes them carries a copy of all their declarations, which every importer must merge with those of every other module. That was half
// of the time a build took, and seven eighths of the compiled interfaces' bytes. A name that is missing is added here; macros, and functions of
// C alone, still want their headers.
module;
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <charconv>
#include <chrono>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <memory>
#include <new>
#include <numbers>
#include <numeric>
#include <optional>
#include <source_location>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <tl/expected.hpp>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>
export module qorus.std;

export namespace std {
using std::abs;
using std::adjacent_find;
using std::align_val_t;
using std::all_of;
using std::any_of;
using std::apply;
using std::array;
using std::as_bytes;
using std::as_const;
using std::as_writable_bytes;
using std::atomic;
using std::atomic_flag;
using std::atomic_thread_fence;
using std::begin;
using std::bit_cast;
using std::bit_ceil;
using std::byte;
using std::ceil;
using std::chars_format;
using std::clamp;
using std::common_type_t;
using std::construct_at;
using std::convertible_to;
using std::copy;
using std::copy_constructible;
using std::copy_n;
using std::copysign;
using std::cos;
using std::count;
using std::count_if;
using std::default_sentinel_t;
using std::destroy_at;
using std::end;
using std::endian;
using std::equal;
using std::errc;
using std::exchange;
using std::exp;
using std::exp2;
using std::fabs;
using std::fclose;
using std::fflush;
using std::fill;
using std::fill_n;
using std::find;
using std::find_if;
using std::floor;
using std::fmod;
using std::fopen;
using std::forward;
using std::fprintf;
using std::free;
using std::from_chars;
using std::fscanf;
using std::gcd;
using std::get;
using std::getenv;
using std::greater;
using std::has_single_bit;
using std::in_range;
using std::index_sequence;
using std::index_sequence_for;
using std::initializer_list;
using std::input_iterator_tag;
using std::int16_t;
using std::int32_t;
using std::int64_t;
using std::int8_t;
using std::iota;
using std::is_arithmetic_v;
using std::is_enum_v;
using std::is_floating_point_v;
using std::is_integral_v;
using std::is_invocable_v;
using std::is_nothrow_copy_constructible_v;
using std::is_nothrow_default_constructible_v;
using std::is_nothrow_destructible_v;
using std::is_nothrow_invocable_r_v;
using std::is_nothrow_invocable_v;
using std::is_nothrow_move_constructible_v;
using std::is_same_v;
using std::is_sorted;
using std::is_trivially_copyable_v;
using std::is_trivially_destructible_v;
using std::is_unsigned_v;
using std::isfinite;
using std::isinf;
using std::isnan;
using std::launder;
using std::ldexp;
using std::llround;
using std::log;
using std::log1p;
using std::log2;
using std::lower_bound;
using std::make_heap;
using std::make_index_sequence;
using std::max;
using std::max_align_t;
using std::max_element;
using std::memcmp;
using std::memcpy;
using std::memmove;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::memset;
using std::min;
using std::min_element;
using std::minmax_element;
using std::mismatch;
using std::move;
using std::nan;
using std::nearbyint;
using std::nextafter;
using std::none_of;
using std::nothrow;
using std::nth_element;
using std::numeric_limits;
using std::operator&;
using std::operator<<;
using std::operator<=>;
using std::operator==;
using std::operator>>;
using std::operator|;
using std::optional;
using std::pair;
using std::partition;
using std::pop_heap;
using std::pow;
using std::printf;
using std::ptrdiff_t;
using std::push_heap;
using std::puts;
using std::remove_const_t;
using std::remove_cvref_t;
using std::remove_reference_t;
using std::reverse;
using std::reverse_copy;
using std::round;
using std::same_as;
using std::sin;
using std::size;
using std::size_t;
using std::snprintf;
using std::sort;
using std::sort_heap;
using std::source_location;
using std::span;
using std::sqrt;
using std::strcmp;
using std::strftime;
using std::string;
using std::string_view;
using std::strncpy;
using std::strrchr;
using std::swap;
using std::swap_ranges;
using std::time;
using std::time_t;
using std::tm;
using std::to_chars;
using std::to_integer;
using std::transform;
using std::tuple;
using std::tuple_cat;
using std::tuple_element;
using std::tuple_element_t;
using std::tuple_size;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;
using std::uintptr_t;
using std::uninitialized_copy;
using std::unique;
using std::unique_ptr;
using std::upper_bound;
using std::vector;
}  // namespace std
export namespace std::chrono {
using std::chrono::duration;
using std::chrono::steady_clock;
using std::chrono::operator-;
}  // namespace std::chrono

export namespace std::numbers {
using std::numbers::pi;
}

#ifdef __GLIBCXX__  // the iterators of its spans and strings are of this namespace
export namespace __gnu_cxx {
using __gnu_cxx::operator==;
using __gnu_cxx::operator<=>;
using __gnu_cxx::operator-;
using __gnu_cxx::operator+;
}  // namespace __gnu_cxx
#endif

export namespace tl {
using tl::expected;
using tl::unexpected;
using tl::operator==;
using tl::operator!=;
}  // namespace tl

export {
  using ::operator new;
  using ::operator new[];
  using ::operator delete;
  using ::operator delete[];
}
