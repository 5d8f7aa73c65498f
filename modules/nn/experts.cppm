// A sparse mixture of experts in place of a feed-forward layer.
export module qorus.nn:experts;
import qorus.std;
import qorus.ops;
import :param;
import :layers;

export namespace qorus::nn {

struct ExpertsOptions {
  std::int64_t top_k = 2;
  float capacity =
      0;  // above 0: an expert takes at most ceil(capacity tokens top_k / experts) choices; 0: none is dropped
  float balance = 0.01f;  // times experts sum_e load_e mean p_e is added to the loss: Fedus et al. 2022
  bool normalize = true;  // the chosen experts' weights add up to 1 (Mixtral); otherwise they are the softmax's
};

// y = sum over the top_k experts e of p = softmax(router x) of p_e down_e(silu(gate_e x) up_e x). x, y: […, d_model]. A token whose choices
// are all dropped gives 0.
struct Experts {
  static constexpr std::string_view k_name = "experts";
  Linear router;
  Param gate_proj, up_proj, down_proj;  // [experts d_ff, d_model] twice, [experts d_model, d_ff]
  std::int64_t experts = 1, d_ff = 0;
  ExpertsOptions options = {};

  static constexpr auto fields() {
    return nn::fields("router", &Experts::router, "gate_proj", &Experts::gate_proj, "up_proj", &Experts::up_proj,
                      "down_proj", &Experts::down_proj);
  }
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("experts", self.experts);
    f("d_ff", self.d_ff);
    f("top_k", self.options.top_k);
    f("capacity", self.options.capacity);
    f("balance", self.options.balance);
    f("normalize", self.options.normalize);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
};
[[nodiscard]] inline Experts experts(std::int64_t count, std::int64_t d_ff,
                                     const ExpertsOptions& options = {}) noexcept {
  return {.router = linear(count, {.bias = false}), .experts = count, .d_ff = d_ff, .options = options};
}

}  // namespace qorus::nn
