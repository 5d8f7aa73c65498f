// The layers of a language model: one block for every architecture, whose parts are there or not, as its file has them.
export module qorus.llm:network;
import qorus.std;
import qorus.nn;
import :packing;

export namespace qorus::llm {

// An RMS norm, a layer norm, or nothing: x itself.
struct Norm {
  enum class Kind : std::uint8_t { none, rms, layer };
  nn::Param weight{.role = nn::Role::gain}, bias{.role = nn::Role::bias};
  float eps = 1e-5f;
  Kind kind = Kind::none;

  static constexpr auto fields() { return nn::fields("weight", &Norm::weight, "bias", &Norm::bias); }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
};

// y = activation(x weight^T + bias + scale (x a^T) b^T): a linear layer which an adapter of low rank may have changed (Hu et al. 2021), and
// whose weight may be of any type that files have. Laid out for products it is read so; while that goes on, panel by panel from where it is
// stored, to the same bits (:product); where there is to be no such copy, as it is stored (frozen_linear).
struct Projection : nn::Linear {
  nn::Param lora_a, lora_b;  // [rank, in], [out, rank]; unbound where there is no adapter
  float lora_scale = 1;
  Laying laying;

  static constexpr auto fields() {
    return nn::fields("weight", &Projection::weight, "bias", &Projection::bias, "lora_a", &Projection::lora_a, "lora_b",
                      &Projection::lora_b);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return with(x, Activation::none); }
  // transient: as ops::LinearParts has it.
  [[nodiscard]] Result<Tensor> with(const Tensor& x, Activation activation, bool transient = false) const noexcept;
};

// down(act(gate x) * up x), or down(act(up x)) where there is no gate.
struct Feed {
  Projection gate, up, down;
  bool gated = true;
  Activation activation = Activation::silu;

  static constexpr auto fields() {
    return nn::fields("ffn_gate", &Feed::gate, "ffn_up", &Feed::up, "ffn_down", &Feed::down);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return run(x, false); }
  [[nodiscard]] Result<Tensor> run(const Tensor& x, bool transient) const noexcept;
};

// Each row goes through the `used` experts that the router rates highest, and their results are added, each times its share of a
// softmax over all experts (normalised: over the chosen ones); then those of an expert for every row, times sigmoid of its own gate.
// x, y: [rows, d_model]. A row's bits do not depend on the other rows. Shazeer et al. 2017.
struct Experts {
  nn::Linear router, shared_gate;
  List<Feed> each;
  Feed shared;
  std::int64_t used = 0;
  bool normalised = true, has_shared = false;

  template <class Self, class F>
  static void visit_parts(Self& self, F&& f) {
    f(std::string_view("ffn_gate_inp"), self.router);
    for (std::size_t i = 0; i < self.each.size(); ++i) {
      Text name;
      (name += "experts.") += static_cast<std::int64_t>(i);
      f(name.view(), self.each[i]);
    }
    if (!self.has_shared) return;
    f(std::string_view("ffn_gate_inp_shexp"), self.shared_gate);
    f(std::string_view("shared"), self.shared);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
};

// x + norm(o_proj(attention(norm x))), then x + norm(feed(norm x)); which norms there are depends on the architecture.
struct Block {
  Norm attn_norm, attn_post_norm, ffn_norm, ffn_post_norm;
  Norm q_norm, k_norm;  // of each head
  Projection q_proj, k_proj, v_proj, o_proj;
  Feed feed;
  Experts experts;          // instead of feed, where there are any
  std::int64_t window = 0;  // positions that a query sees; 0: all before it

  template <class Self, class F>
  static void visit_parts(Self& self, F&& f) {
    f(std::string_view("attn_norm"), self.attn_norm);
    f(std::string_view("attn_q"), self.q_proj);
    f(std::string_view("attn_k"), self.k_proj);
    f(std::string_view("attn_v"), self.v_proj);
    f(std::string_view("attn_q_norm"), self.q_norm);
    f(std::string_view("attn_k_norm"), self.k_norm);
    f(std::string_view("attn_output"), self.o_proj);
    f(std::string_view("post_attention_norm"), self.attn_post_norm);
    f(std::string_view("ffn_norm"), self.ffn_norm);
    if (self.experts.each.empty()) {
      f(std::string_view("ffn_gate"), self.feed.gate);
      f(std::string_view("ffn_up"), self.feed.up);
      f(std::string_view("ffn_down"), self.feed.down);
    } else {
      Experts::visit_parts(self.experts, f);
    }
    f(std::string_view("post_ffw_norm"), self.ffn_post_norm);
  }
  // What follows attention, given what it made of norm(x): the rest of y, both sums.
  [[nodiscard]] Result<Tensor> around(const Tensor& x, const Result<Tensor>& attended) const noexcept;
  // norm(feed(norm x))
  [[nodiscard]] Result<Tensor> feed_forward(const Tensor& x) const noexcept;
};

// Parameters are named as in GGUF: token_embd.weight, blk.0.attn_q.weight, … Those of parts that are not there are unbound.
struct Network {
  nn::Embedding embedding, positions;
  List<Block> blocks;
  Norm norm;
  Projection head;  // shares the embedding's weight where the file has none of its own

  template <class Self, class F>
  static void visit_parts(Self& self, F&& f) {
    f(std::string_view("token_embd"), self.embedding);
    f(std::string_view("position_embd"), self.positions);
    for (std::size_t i = 0; i < self.blocks.size(); ++i) {
      Text name;
      (name += "blk.") += static_cast<std::int64_t>(i);
      f(name.view(), self.blocks[i]);
    }
    f(std::string_view("output_norm"), self.norm);
    f(std::string_view("output"), self.head);
  }
};

}  // namespace qorus::llm
