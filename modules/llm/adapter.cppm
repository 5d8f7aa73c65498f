// Adapters of low rank (LoRA, Hu et al. 2021): what fine-tuning adds to a model's matrices, in files of its own. As llama.cpp has them (GGUF)
// and as PEFT has them (a folder with adapter_config.json and adapter_model.safetensors).
export module qorus.llm:adapter;
import qorus.std;
import qorus.nn;
import qorus.io;
import :config;
import :network;

export namespace qorus::llm {

// What is added to one matrix: scale b a.
struct AdapterPart {
  Text weight;  // its name, as GGUF has it: blk.3.attn_q.weight
  Owned a, b;   // [rank, in], [out, rank], f32
};
struct Adapter {
  float alpha = 0;  // scale: alpha / rank; 1 if this is 0
  List<AdapterPart> parts;
};

// Reads one for a model of these numbers; rows of queries and keys come in the order that the model's file has. Errors, with the file's name:
// those of read_gguf and read_safetensors; corrupt (half a pair, ranks that differ), unsupported (another kind of adapter; one that holds
// more than pairs; by name), invalid_argument (for another architecture), not_found (no adapter there), out_of_memory.
[[nodiscard]] Result<Adapter> read_adapter(std::string_view path, const Config& config) noexcept;
// Binds the parts to the model's matrices, which must live as long; together with `scale`. Errors: not_found (a matrix that the model lacks, by
// name), invalid_size (the matrix's shape and the adapter's), invalid_argument (there is one already).
[[nodiscard]] Status add_adapter(Network& network, const Adapter& adapter, float scale = 1) noexcept;

// Rows of queries and keys turn in pairs: halves of a head (Hugging Face), or neighbours (GGUF of Llama's kind). Gives b: [heads head_dim,
// rank] the other order, in place. Errors: out_of_memory.
[[nodiscard]] Status reorder_pairs(Owned& b, std::int64_t head_dim, bool to_neighbours) noexcept;
// Whether Llama's kind of GGUF file has the rows of this matrix in another order than Hugging Face's files.
[[nodiscard]] inline bool reordered(const Config& config, std::string_view weight) noexcept {
  return config.architecture->interleaved && (weight.ends_with(".attn_q.weight") || weight.ends_with(".attn_k.weight"));
}
// Whether the model has them as those GGUF files do.
[[nodiscard]] inline bool in_neighbours(const Config& config) noexcept {
  return config.pairs == ops::RopePairs::interleaved;
}

// Calls f(name without ".weight", projection) for every matrix that adapters may change; f gives a Status. Experts are none.
template <class F>
[[nodiscard]] Status each_projection(Network& network, F&& f) noexcept {
  for (std::size_t i = 0; i < network.blocks.size(); ++i) {
    Block& block = network.blocks[i];
    const struct {
      std::string_view name;
      Projection* projection;
    } parts[] = {{"attn_q", &block.q_proj},      {"attn_k", &block.k_proj},      {"attn_v", &block.v_proj},
                 {"attn_output", &block.o_proj}, {"ffn_gate", &block.feed.gate}, {"ffn_up", &block.feed.up},
                 {"ffn_down", &block.feed.down}};
    for (const auto& part : parts) {
      if (!part.projection->weight.bound()) continue;
      Text name;
      (((name += "blk.") += static_cast<std::int64_t>(i)) += ".") += part.name;
      if (auto done = f(name.view(), *part.projection); !done) return done;
    }
  }
  return f(std::string_view("output"), network.head);
}

}  // namespace qorus::llm
