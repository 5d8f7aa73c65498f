// Bodies of qorus.tune:dialogue: samples packed into rows.
module qorus.tune;
import qorus.std;
import :dialogue;

namespace qorus::tune {
namespace {

constexpr const char* k_op = "data";

std::size_t length_of(const Sample& sample) noexcept { return sample.ids.size() - 1; }  // places it takes in a row

std::uint64_t mixed(std::uint64_t x) noexcept {  // Steele, Lea & Flood 2014
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Where samples go: their row, the place within it and how many came before.
struct Place {
  std::size_t row = 0, at = 0;
  std::int32_t number = 0;
};
struct RowState {
  std::size_t taken = 0;
  std::int32_t samples = 0;
};

}  // namespace

data::Examples Rows::examples() const noexcept { return {inputs.tensor(), targets.tensor()}; }

Result<List<std::uint32_t>> shuffled(std::size_t count, std::uint64_t seed) noexcept {
  List<std::uint32_t> order;
  if (auto room = order.resize(count); !room) return fail(room.error());
  for (std::size_t i = 0; i < count; ++i) order[i] = static_cast<std::uint32_t>(i);
  for (std::size_t i = count; i > 1; --i) std::swap(order[i - 1], order[mixed(seed ^ mixed(i)) % i]);
  return order;
}

Result<Rows> pack_rows(std::span<const Sample> samples, std::span<const std::uint32_t> order,
                       std::int64_t context) noexcept {
  const std::size_t count = order.empty() ? samples.size() : order.size();
  if (count == 0 || context < 1) return fail(Errc::invalid_size, k_op, "there is nothing to learn from");
  const auto sample_at = [&](std::size_t i) -> const Sample& { return samples[order.empty() ? i : order[i]]; };
  Rows rows{.samples = count};
  for (std::size_t i = 0; i < count; ++i) rows.places += length_of(sample_at(i));
  const std::size_t seq = std::min(static_cast<std::size_t>(context), std::max<std::size_t>(rows.places, 1));
  List<Place> places;
  List<RowState> states;
  std::size_t first_open = 0;  // of the last k_open rows: earlier ones are taken as full
  constexpr std::size_t k_open = 256;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t n = length_of(sample_at(i));
    if (n > seq)
      return fail(Errc::invalid_size, k_op, "a sample longer than the context: its tokens, and the context",
                  Dims{.extent = {static_cast<std::int64_t>(n), static_cast<std::int64_t>(seq)}, .rank = 2});
    first_open = std::max(first_open, states.size() > k_open ? states.size() - k_open : 0);
    std::size_t row = first_open;
    while (row < states.size() && states[row].taken + n > seq) ++row;
    if (row == states.size()) {
      if (auto made = states.push({}); !made) return fail(made.error());
    }
    if (auto kept = places.push({row, states[row].taken, states[row].samples}); !kept) return fail(kept.error());
    states[row].taken += n;
    ++states[row].samples;
  }
  const auto all = static_cast<std::int64_t>(states.size()), length = static_cast<std::int64_t>(seq);
  auto inputs = Owned::zeros(Shape{all, 2, length}, DType::i32), targets = Owned::zeros(Shape{all, length}, DType::i32);
  if (!inputs) return fail(inputs.error());
  if (!targets) return fail(targets.error());
  const std::span<std::int32_t> x = inputs->fill<std::int32_t>(), y = targets->fill<std::int32_t>();
  std::fill(y.begin(), y.end(), -1);
  for (std::size_t row = 0; row < states.size(); ++row)  // what nobody takes is a sample of its own
    std::fill_n(x.begin() + static_cast<std::ptrdiff_t>((2 * row + 1) * seq), seq, states[row].samples);
  for (std::size_t i = 0; i < count; ++i) {
    const Sample& sample = sample_at(i);
    const Place& place = places[i];
    std::int32_t *ids = x.data() + 2 * place.row * seq + place.at, *numbers = ids + seq,
                 *wanted = y.data() + place.row * seq + place.at;
    for (std::size_t k = 0; k < length_of(sample); ++k) {
      ids[k] = sample.ids[k];
      numbers[k] = place.number;
      if (!sample.counts[k + 1]) continue;
      wanted[k] = sample.ids[k + 1];
      ++rows.tokens;
    }
  }
  rows.inputs = std::move(*inputs);
  rows.targets = std::move(*targets);
  rows.count = states.size();
  rows.context = length;
  return rows;
}

}  // namespace qorus::tune
