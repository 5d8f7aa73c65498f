// A model made from the JSON of its structure.
export module qorus.nn:structure;
import qorus.std;
import qorus.ops;
import :param;
import :description;
import :any;

export namespace qorus::nn {

// A kind of layer that from_json can make: `nn::layer_kind<MyLayer>()` for a default-constructible one with a k_name.
struct LayerKind {
  std::string_view name;
  Result<Any> (*make)(const Description& from, const Described& object) noexcept;
};
template <class L>
[[nodiscard]] constexpr LayerKind layer_kind(std::string_view name = L::k_name) noexcept {
  return {name, [](const Description& from, const Described& object) noexcept -> Result<Any> {
            L layer{};
            if (auto ok = restore(layer, from, object); !ok) return fail(ok.error());
            Any made(std::move(layer));
            if (auto ok = made.status(); !ok) return fail(ok.error());
            return made;
          }};
}

// What to_json wrote, as a layer to build: the library's own kinds, and those given. Any text is an error or a layer.
// Errors: corrupt (no JSON, a setting out of range, a structure that is not one), not_found (a kind that is unknown, by name),
// unsupported (beyond the bounds), out_of_memory.
[[nodiscard]] Result<Any> from_json(std::string_view text, std::span<const LayerKind> more = {}) noexcept;

}  // namespace qorus::nn
