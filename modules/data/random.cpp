// Bodies of qorus.data:random.
module qorus.data;
import qorus.std;
import :random;

namespace qorus::data {

void shuffle_front(std::span<std::uint32_t> order, std::size_t count, Random random) noexcept {
  for (std::size_t i = 0; i < count && i + 1 < order.size(); ++i) {
    std::swap(order[i], order[i + random.below(order.size() - i)]);
  }
}

}  // namespace qorus::data
