// Bodies of qorus.llm:session: a batch of tokens on its way through the layers.
module qorus.llm;
import qorus.std;
import :product;

namespace qorus::llm {

// Each block has a frame of its own, so that the scratch in use is that of one block; what flows on is kept outside.
Status Session::feed_pieces(See see, void* user, std::size_t first) noexcept {
  turn_to_positions();
  if (auto chosen = choose_rows(see != nullptr); !chosen) return chosen;
  {
    auto frame = workspace_.frame();
    if (auto kept = keep_stream(embed(frame)); !kept) return kept;
  }
  const auto rows = static_cast<std::int64_t>(ids_.size());
  for (std::int64_t layer = 0; layer < model_->config().layers; ++layer) {
    if (auto there = ready(layer); !there) return there;
    auto frame = workspace_.frame();
    auto x = ops::slice(frame.input(stream_), 0, 0, rows);
    if (!x) return fail(x.error());
    if (auto kept = keep_stream(forward_block(frame, layer, *x)); !kept) return kept;
  }
  auto frame = workspace_.frame();
  if (auto given = give_logits(frame, see, user, first); !given) return given;
  for (const Piece& piece : pieces_.span()) {
    const auto ids = ids_.span().subspan(static_cast<std::size_t>(piece.row), static_cast<std::size_t>(piece.count));
    std::copy(ids.begin(), ids.end(), history_[static_cast<std::size_t>(piece.sequence)].begin() + piece.past);
    cache_.advance(piece.sequence, piece.count);
  }
  return {};
}

Status Session::choose_rows(bool all) noexcept {
  wanted_.clear();
  for (const Piece& piece : pieces_.span()) {
    for (std::int64_t i = all ? 0 : piece.count - piece.last; i < piece.count; ++i) {
      if (auto kept = wanted_.push(static_cast<std::int32_t>(piece.row + i)); !kept) return kept;
    }
  }
  return {};
}

Result<Tensor> Session::wanted_of(Scope& frame, const Operand& rows) const noexcept {
  return ops::take(rows, frame.input(Tensor::borrow(wanted_.span(), Shape{static_cast<std::int64_t>(wanted_.size())})));
}

// angle(p, i) = p turn(i), in double.
void Session::turn_to_positions() noexcept {
  for (std::size_t kind = 0; kind < 2; ++kind) {
    const auto turns = frequencies_[kind].turn.span();
    const auto scale = static_cast<double>(frequencies_[kind].scale);
    const std::span<float> cosines = cosine_[kind].fill<float>(), sines = sine_[kind].fill<float>();
    for (std::size_t row = 0; row < positions_.size() && !turns.empty(); ++row) {
      for (std::size_t i = 0; i < turns.size(); ++i) {
        const double angle = static_cast<double>(positions_[row]) * turns[i];
        cosines[row * turns.size() + i] = static_cast<float>(std::cos(angle) * scale);
        sines[row * turns.size() + i] = static_cast<float>(std::sin(angle) * scale);
      }
    }
  }
}

Result<Tensor> Session::embed(Scope& frame) noexcept {
  const Config& c = model_->config();
  const Shape rows{static_cast<std::int64_t>(ids_.size())};
  const std::span<const std::int32_t> ids = ids_.span(), positions = positions_.span();
  auto x = frame.input(Tensor::borrow(ids, rows)) | model_->layers().embedding;
  if (x && x->dtype() != DType::f32) x = ops::cast(x, DType::f32);
  if (c.embedding_scale != 1) x = x * c.embedding_scale;
  if (c.architecture->learned_positions)
    x = x + (frame.input(Tensor::borrow(positions, rows)) | model_->layers().positions);
  return x;
}

Status Session::keep_stream(const Result<Tensor>& x) noexcept {
  if (!x) return fail(x.error());
  const auto values = x->values<float>();
  if (!values) return fail(values.error());
  float* const to = stream_.fill<float>().data();
  constexpr std::size_t k_piece = 65536;
  parallel_chunks(workspace_.context(), values->size(), k_piece, [&](std::size_t begin, std::size_t end) {
    std::copy(values->data() + begin, values->data() + end, to + begin);
  });
  return {};
}

Result<Tensor> Session::forward_block(Scope& frame, std::int64_t layer, const Tensor& x) noexcept {
  const Block& block = model_->layers().blocks[static_cast<std::size_t>(layer)];
  auto attended = (x | block.attn_norm).and_then([&](const Tensor& h) { return attend(frame, layer, h); });
  if (attended && wanted_.empty() && narrows(layer)) return x;
  const Result<Tensor> rows = narrows(layer) ? wanted_of(frame, x) : x;
  return rows.and_then([&](const Tensor& t) { return block.around(t, attended); });
}

// x: [rows, d_model] to [rows, heads head_dim] (of a block that narrows: of the wanted rows), each piece of a sequence with what its own cache
// holds.
Result<Tensor> Session::attend(Scope& frame, std::int64_t layer, const Tensor& x) noexcept {
  const Config& c = model_->config();
  const Block& block = model_->layers().blocks[static_cast<std::size_t>(layer)];
  const bool narrow = narrows(layer);
  const std::int64_t rows = x.dim(0), asking = narrow ? static_cast<std::int64_t>(wanted_.size()) : rows;
  const std::size_t kind = block.window > 0 ? 1 : 0;
  const auto heads_of = [&](const Result<Tensor>& y, std::int64_t heads) {
    return ops::transpose(ops::reshape(y, {1, -1, heads, c.head_dim}), 1, 2);
  };
  const auto turned = [&](const Result<Tensor>& y, bool some) {
    if (c.architecture->learned_positions) return ops::contiguous(y);
    const auto angles = [&](const Owned& table) {
      return some ? wanted_of(frame, frame.input(table)) : ops::slice(frame.input(table), 0, 0, rows);
    };
    return ops::rope(y, angles(cosine_[kind]), angles(sine_[kind]), c.pairs);
  };
  Tensor qkv[3];
  const Factor factors[] = {{&block.q_proj}, {&block.k_proj}, {&block.v_proj}};
  const std::span<const Factor> all = factors;
  if (auto done = project(x, narrow ? all.subspan(1) : all, std::span(qkv).subspan(narrow)); !done)
    return fail(done.error());
  auto k = turned(heads_of(qkv[1], c.kv_heads) | block.k_norm, false);
  auto v = heads_of(qkv[2], c.kv_heads);
  if (!k || !v) return k ? v : k;
  const auto own = [](const Tensor& t, std::int64_t first, std::int64_t count) {
    return ops::slice(t, 2, first, first + count);
  };
  for (const Piece& piece : pieces_.span()) {
    auto keys = own(*k, piece.row, piece.count), values = own(*v, piece.row, piece.count);
    if (!keys || !values) return keys ? values : keys;
    if (auto kept = cache_.append(piece.sequence, layer, *keys, *values); !kept) return fail(kept.error());
  }
  if (asking == 0) return k;  // nobody reads a result: what counts is in the cache
  if (narrow) {
    auto some = wanted_of(frame, x);
    if (!some) return some;
    if (auto done = project(*some, all.first(1), qkv); !done) return fail(done.error());
  }
  auto q = turned(heads_of(qkv[0], c.heads) | block.q_norm, narrow);
  if (!q) return q;
  const std::int64_t width = c.heads * c.head_dim;
  if (pieces_.size() == 1) return ops::reshape(see_cache(frame, layer, pieces_[0], *q), {asking, width});
  auto y = Fresh::make(frame.context(), Shape{asking, width});
  if (!y) return fail(y.error());
  std::int64_t at = 0;
  for (const Piece& piece : pieces_.span()) {
    const std::int64_t count = narrow ? piece.last : piece.count;
    if (count == 0) continue;
    auto part = own(*q, at, count).and_then([&](const Tensor& t) { return see_cache(frame, layer, piece, t); });
    if (!part) return part;
    if (auto copied = part->copy_to(std::span(y->f32() + at * width, part->numel())); !copied)
      return fail(copied.error());
    at += count;
  }
  return std::move(*y).freeze();
}

// q: [1, heads, count, head_dim] of one piece, to [1, count, heads head_dim] of what it sees.
Result<Tensor> Session::see_cache(Scope& frame, std::int64_t layer, const Piece& piece, const Tensor& q) noexcept {
  const Config& c = model_->config();
  const std::int64_t window = model_->layers().blocks[static_cast<std::size_t>(layer)].window,
                     seen = piece.past + piece.count;
  return ops::attention(
      q, frame.input(cache_.keys(piece.sequence, layer, seen)), frame.input(cache_.values(piece.sequence, layer, seen)),
      {.causal = true, .scale = c.attention_scale, .window = window, .joined = true, .softcap = c.attention_cap});
}

// The logits of the wanted rows, which are what the last block gave.
Status Session::give_logits(Scope& frame, See see, void* user, std::size_t first) noexcept {
  const Config& c = model_->config();
  const std::size_t vocab = static_cast<std::size_t>(c.vocab);
  if (wanted_.empty()) return {};
  if (auto there = ready(); !there) return there;
  auto x = ops::slice(frame.input(stream_), 0, 0, static_cast<std::int64_t>(wanted_.size()));
  auto logits = x | model_->layers().norm | model_->layers().head;
  if (c.logit_cap > 0) logits = ops::tanh(logits / c.logit_cap) * c.logit_cap;
  if (!logits) return fail(logits.error());
  const auto values = logits->values<float>();
  if (!values) return fail(values.error());
  std::size_t row = 0;
  for (const Piece& piece : pieces_.span()) {
    if (!see && !piece.last) continue;
    const std::size_t count = see ? static_cast<std::size_t>(piece.count) : 1;
    for (std::size_t i = 0; see && i < count; ++i)
      see(user, first + row + i, values->subspan((row + i) * vocab, vocab));
    row += count;
    std::copy_n(values->begin() + static_cast<std::ptrdiff_t>((row - 1) * vocab), vocab,
                logits_.begin() + static_cast<std::ptrdiff_t>(piece.input * vocab));
  }
  return {};
}

}  // namespace qorus::llm
