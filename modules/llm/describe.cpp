// What is told about a model in GGUF: metadata from its numbers and its vocabulary.
module qorus.llm;
import qorus.std;
import :binder;
import :convert_plan;

namespace qorus::llm {
namespace {

constexpr const char* k_op = "convert";

tl::unexpected<Error> cannot(const char* text, std::string_view subject = {}) noexcept {
  return fail(Errc::unsupported, k_op, text, subject);
}

// Entries under the architecture's name; after a failure nothing more.
class Telling {
 public:
  Telling(io::GgufMetadata& to, std::string_view architecture) noexcept : to_(to), name_(architecture) {}
  void number(const char* key, std::int64_t value) noexcept {
    if (status_) status_ = to_.put(key_of(key).view(), static_cast<std::uint32_t>(value));
  }
  void real(const char* key, float value) noexcept {
    if (status_) status_ = to_.put(key_of(key).view(), value);
  }
  void text(const char* key, std::string_view value) noexcept {
    if (status_) status_ = to_.put_text(key_of(key).view(), value);
  }
  void refuse(bool bad, const char* what, std::string_view subject) noexcept {
    if (status_ && bad) status_ = cannot(what, subject);
  }
  [[nodiscard]] const Status& status() const noexcept { return status_; }

 private:
  [[nodiscard]] Text key_of(const char* key) const noexcept {
    Text full;
    ((full += name_) += ".") += key;
    return full;
  }
  io::GgufMetadata& to_;
  std::string_view name_;
  Status status_;
};

void tell_rope(Telling& tell, const Config& c) noexcept {
  if (c.architecture->learned_positions) return;
  tell.number("rope.dimension_count", c.rope.dim);
  tell.real("rope.freq_base", c.rope.base);
  if (c.local_rope.base != c.rope.base) tell.real("rope.freq_base_swa", c.local_rope.base);
  const RopeScaling& s = c.rope.scaling;
  using Kind = RopeScaling::Kind;
  if (s.kind == Kind::none) return;
  tell.refuse(s.kind == Kind::dynamic, "GGUF has no such rope scaling", "dynamic");
  tell.refuse(!s.truncate, "GGUF has no such rope scaling", "yarn without truncate");
  if (s.kind == Kind::llama3) return;  // a tensor says it
  const bool yarn = s.kind == Kind::yarn;
  if (s.kind == Kind::longrope) {
    tell.real("rope.scaling.attn_factor", s.attention_factor > 0 ? s.attention_factor
                                          : s.factor > 1
                                              ? std::sqrt(1 + std::log(s.factor) / std::log(s.original_context))
                                              : 1.0f);
  } else {
    tell.text("rope.scaling.type", yarn ? "yarn" : "linear");
    tell.real("rope.scaling.factor", s.factor);
  }
  if (yarn) {
    tell.real("rope.scaling.yarn_beta_fast", s.beta_fast);
    tell.real("rope.scaling.yarn_beta_slow", s.beta_slow);
    // The readers multiply it by yarn's own.
    if (s.attention_factor > 0)
      tell.real("rope.scaling.attn_factor", s.attention_factor / (1 + 0.1f * std::log(s.factor)));
  }
  if (s.original_context > 0)
    tell.number("rope.scaling.original_context_length", static_cast<std::int64_t>(s.original_context));
}

void tell_attention(Telling& tell, const Config& c) noexcept {
  const Architecture& a = *c.architecture;
  tell.number("attention.head_count", c.heads);
  tell.number("attention.head_count_kv", c.kv_heads);
  tell.real(a.layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", c.norm_eps);
  if (c.head_dim * c.heads != c.d_model || a.qk_norm || a.scales_embedding) {
    tell.number("attention.key_length", c.head_dim);
    tell.number("attention.value_length", c.head_dim);
  }
  if (c.attention_cap > 0 || a.gguf == "gemma2") tell.real("attn_logit_softcapping", c.attention_cap);
  if (c.logit_cap > 0 || a.gguf == "gemma2") tell.real("final_logit_softcapping", c.logit_cap);
  const float usual = 1 / std::sqrt(static_cast<float>(c.head_dim));
  if (c.attention_scale > 0 && std::fabs(c.attention_scale - usual) > 1e-6f * usual)
    tell.real("attention.scale", c.attention_scale);
  const bool windowed = c.window > 0 && c.first_windowed < c.layers;
  if (windowed || a.gguf == "gemma2") tell.number("attention.sliding_window", windowed ? c.window : 0);
  tell.refuse(windowed && (c.window_period != a.window_period || c.first_windowed > 0),
              "GGUF has no such order of layers", "sliding_window");
}

void tell_experts(Telling& tell, const Config& c) noexcept {
  if (c.experts == 0) return;
  tell.number("expert_count", c.experts);
  tell.number("expert_used_count", c.experts_used);
  tell.number("expert_feed_forward_length", c.expert_ff);
  if (c.shared_ff > 0) tell.number("expert_shared_feed_forward_length", c.shared_ff);
  tell.refuse(c.expert_period != 1 || c.first_expert != 0, "GGUF has no such order of layers", "decoder_sparse_step");
  tell.refuse(c.normalises_experts != c.architecture->normalises_experts, "GGUF cannot tell this of the architecture",
              "norm_topk_prob");
}

// --- vocabulary ---

struct Vocabulary {
  io::GgufMetadata* to;
  std::int64_t pieces;  // rows of the embedding

  [[nodiscard]] text::VocabularyVisitor visitor() noexcept {
    return {this, [](void* user, const text::VocabularySpec& spec) {
              return static_cast<const Vocabulary*>(user)->tell(spec);
            }};
  }

  // "llama": merged by score. Where a file has merges instead, the earlier one is the better.
  [[nodiscard]] static Result<List<float>> scores_of(const text::VocabularySpec& spec) noexcept {
    List<float> scores;
    if (auto room = scores.resize(spec.pieces.size()); !room) return fail(room.error());
    for (std::size_t i = 0; i < spec.scores.size(); ++i) scores[i] = spec.scores[i];
    if (!spec.scores.empty() || spec.merges.empty()) return scores;
    List<std::pair<std::string_view, std::uint32_t>> by_name;
    for (std::size_t i = 0; i < spec.pieces.size(); ++i) {
      if (auto kept = by_name.push({spec.pieces[i], static_cast<std::uint32_t>(i)}); !kept) return fail(kept.error());
    }
    std::sort(by_name.begin(), by_name.end());
    List<char> joined;
    for (std::size_t rank = 0; rank < spec.merges.size(); ++rank) {
      joined.clear();
      for (const char c : spec.merges[rank]) {
        if (c == ' ') continue;
        if (auto kept = joined.push(c); !kept) return fail(kept.error());
      }
      const std::string_view name(joined.data(), joined.size());
      const auto* found = std::lower_bound(by_name.begin(), by_name.end(), name,
                                           [](const auto& one, std::string_view wanted) { return one.first < wanted; });
      if (found != by_name.end() && found->first == name && scores[found->second] == 0)
        scores[found->second] = -static_cast<float>(rank + 1);
    }
    return scores;
  }

  [[nodiscard]] Status tell(const text::VocabularySpec& spec) const noexcept {
    using text::Algorithm;
    const bool bytes = spec.algorithm == Algorithm::byte_bpe;
    if (spec.algorithm == Algorithm::wordpiece) return cannot("a vocabulary of words", "wordpiece");
    if (bytes && spec.pre_tokenizer.empty()) return cannot("a pre-tokenizer that has no name in GGUF");
    const std::string_view model = bytes ? "gpt2" : spec.algorithm == Algorithm::char_bpe ? "llama" : "t5";
    Status status = to->put_text("tokenizer.ggml.model", model);
    const auto then = [&](const Status& next) { status = status ? next : status; };
    if (bytes) then(to->put_text("tokenizer.ggml.pre", spec.pre_tokenizer));
    then(tell_pieces(spec));
    if (bytes) then(to->put("tokenizer.ggml.merges", spec.merges));
    const struct {
      const char* key;
      std::int64_t id;
    } ids[] = {{"tokenizer.ggml.bos_token_id", spec.bos},
               {"tokenizer.ggml.eos_token_id", spec.eos},
               {"tokenizer.ggml.unknown_token_id", spec.unknown}};
    for (const auto& one : ids) {
      if (one.id >= 0) then(to->put(one.key, static_cast<std::uint32_t>(one.id)));
    }
    then(to->put_bool("tokenizer.ggml.add_bos_token", spec.add_bos));
    then(to->put_bool("tokenizer.ggml.add_eos_token", spec.add_eos));
    then(to->put_bool("tokenizer.ggml.add_space_prefix", spec.space_prefix));
    if (spec.algorithm == Algorithm::unigram) {
      then(to->put_bool("tokenizer.ggml.remove_extra_whitespaces", spec.squeeze_spaces));
      io::GgufEntry map{.key = "tokenizer.ggml.precompiled_charsmap", .type = io::GgufType::u8, .array = true};
      map.count = spec.character_map.size();
      map.data = spec.character_map.data();
      if (map.count > 0) then(to->put(map));
    }
    return status;
  }

  // Ids without a piece, up to the embedding's rows, are unused ones.
  [[nodiscard]] Status tell_pieces(const text::VocabularySpec& spec) const noexcept {
    const std::size_t count = std::max(spec.pieces.size(), static_cast<std::size_t>(pieces));
    List<List<char>> made;
    List<std::string_view> names;
    List<std::int32_t> kinds;
    const auto own = [&](std::string_view text) -> Result<std::string_view> {
      List<char> copy;
      if (auto kept = copy.append(std::span(text.data(), text.size())); !kept) return fail(kept.error());
      const std::string_view view(copy.data(), copy.size());
      if (auto kept = made.push(std::move(copy)); !kept) return fail(kept.error());
      return view;
    };
    for (std::size_t i = 0; i < count; ++i) {
      const bool there = i < spec.pieces.size() && spec.pieces[i].data();
      std::string_view name = there ? spec.pieces[i] : std::string_view();
      std::int32_t kind = there && i < spec.kinds.size() ? spec.kinds[i] : there ? 1 : 5;
      if (there && !spec.space_marker && name.find(' ') != name.npos) {  // spelled with spaces as they are
        Text marked;
        for (const char c : name) marked += c == ' ' ? std::string_view("\xe2\x96\x81") : std::string_view(&c, 1);
        auto kept = own(marked.view());
        if (!kept) return fail(kept.error());
        name = *kept;
      }
      if (!there) {
        Text filling;
        ((filling += "[PAD") += static_cast<std::int64_t>(i)) += "]";
        auto kept = own(filling.view());
        if (!kept) return fail(kept.error());
        name = *kept;
        kind = static_cast<std::int32_t>(text::PieceKind::unused);
      }
      if (auto kept = names.push(name); !kept) return kept;
      if (auto kept = kinds.push(kind); !kept) return kept;
    }
    if (auto done = to->put("tokenizer.ggml.tokens", names.span()); !done) return done;
    if (spec.algorithm != text::Algorithm::byte_bpe) {
      auto scores = scores_of(spec);
      if (!scores) return fail(scores.error());
      if (auto room = scores->resize(count); !room) return room;
      if (auto done = to->put("tokenizer.ggml.scores", scores->span()); !done) return done;
    }
    return to->put("tokenizer.ggml.token_type", kinds.span());
  }
};

Status tell_vocabulary(const Weights& weights, std::int64_t pieces, io::GgufMetadata& to) noexcept {
  Vocabulary vocabulary{&to, pieces};
  Text numbered;
  ((numbered += "tok") += pieces) += ".bin";
  for (const std::string_view name : {std::string_view("tokenizer.model"), std::string_view("tokenizer.json"),
                                      std::string_view("tokenizer.bin"), numbered.view()}) {
    const FilePath path = path_in(weights.folder(), name);
    if (is_file(path.view())) return text::read_vocabulary(path.view(), vocabulary.visitor());
  }
  return to.put_text("tokenizer.ggml.model", "no_vocab");
}

}  // namespace

Status put_vocabulary(std::string_view path, io::GgufMetadata& to) noexcept {
  Vocabulary vocabulary{&to, 0};
  return text::read_vocabulary(path, vocabulary.visitor());
}

Status describe_model(const Origin& origin, const Config& c, io::GgufMetadata& to) noexcept {
  const Architecture& a = *c.architecture;
  if (auto done = to.put_text("general.architecture", a.gguf); !done) return done;
  Telling tell(to, a.gguf);
  tell.number("block_count", c.layers);
  tell.number("context_length", c.context);
  tell.number("embedding_length", c.d_model);
  tell.number("feed_forward_length", c.d_ff);
  tell.number("vocab_size", c.vocab);
  tell_attention(tell, c);
  tell_rope(tell, c);
  tell_experts(tell, c);
  tell.refuse(c.activation != a.activation, "GGUF cannot tell this of the architecture", "activation");
  if (!tell.status()) return tell.status();
  if (auto done = tell_vocabulary(origin.weights(), c.vocab, to); !done) return done;
  List<char> chat;
  if (auto read = Companions(origin.weights(), {}).chat_template(chat); !read) return read;
  return chat.empty() ? Status() : to.put_text("tokenizer.chat_template", {chat.data(), chat.size()});
}

}  // namespace qorus::llm
