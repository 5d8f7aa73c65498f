// Bodies of qorus.llm:session: what a session consists of, and how inputs become batches. forward.cpp has the way through the layers.
module qorus.llm;
import qorus.std;
import qorus.trust;

namespace qorus::llm {

Result<Session> Session::create(const Model& model, const SessionOptions& options) noexcept {
  const Config& c = model.config();
  const std::int64_t context = options.context ? options.context : c.context;
  if (context < 1 || context > limits::session_context || options.batch < 1 || options.sequences < 1 ||
      options.sequences > limits::session_sequences) {
    return fail(Errc::invalid_argument, "Session",
                "the context lies between 1 and 2^20, the batch is at least 1, and there are up to 1024 sequences");
  }
  if (c.architecture->learned_positions && context > c.context)
    return fail(Errc::invalid_argument, "Session", "the model has no more positions than it was trained for",
                Dims{.extent = {context, c.context}, .rank = 2});
  // The scratch that the largest batch at the end of the context takes in one block; address space, so a bound will do.
  const auto size = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  const std::int64_t batch = std::max<std::int64_t>(std::min(options.batch, context * options.sequences), 1);
  const Checked feed =
      Checked(size(c.d_ff + c.shared_ff)) + Checked(size(c.expert_ff + c.d_model)) * size(c.experts_used);
  const Checked per_token = Checked(size(c.d_model)) * 12 +
                            Checked(size(c.heads + 2 * c.kv_heads)) * size(c.head_dim) * 8 + feed * 4 +
                            Checked(size(c.experts)) * 4;
  const Checked weights = Checked(size(std::max({c.vocab, c.d_ff, c.d_model}))) * size(c.d_model);
  const Checked floats = per_token * size(batch) * 2 + Checked(size(c.vocab)) * size(batch) * 2 + weights * 2 +
                         Checked(size(context)) * 1024 * size(std::max(options.threads, 1));
  auto scratch = (floats * sizeof(float) + 64_MiB).get("Session");
  if (!scratch) return fail(scratch.error());
  Session session(model, Workspace{{.scratch = *scratch, .threads = options.threads}});
  if (auto ready = session.workspace_.status(); !ready) return fail(ready.error());
  session.batch_ = batch;
  if (auto done = session.prepare(options, context); !done) return fail(done.error());
  return session;
}

Status Session::prepare(const SessionOptions& options, std::int64_t context) noexcept {
  const Config& c = model_->config();
  auto cache = KvCache::create(c, context, options.sequences, options.cache);
  if (!cache) return fail(cache.error());
  cache_ = std::move(*cache);
  const Rope* const ropes[2] = {&c.rope, &c.local_rope};
  for (std::size_t kind = 0; kind < 2 && !c.architecture->learned_positions; ++kind) {
    auto made = frequencies(*ropes[kind], c, context);
    if (!made) return fail(made.error());
    frequencies_[kind] = std::move(*made);
    for (Owned* table : {&cosine_[kind], &sine_[kind]}) {
      auto zeros = Owned::zeros(Shape{batch_, ropes[kind]->dim / 2});
      if (!zeros) return fail(zeros.error());
      *table = std::move(*zeros);
    }
  }
  auto stream = Owned::zeros(Shape{batch_, c.d_model});
  if (!stream) return fail(stream.error());
  stream_ = std::move(*stream);
  const auto sequences = static_cast<std::size_t>(options.sequences), batch = static_cast<std::size_t>(batch_);
  if (auto room = logits_.resize(sequences * static_cast<std::size_t>(c.vocab)); !room) return room;
  for (List<std::int32_t>* list : {&ids_, &positions_, &wanted_}) {
    if (auto room = list->reserve(batch); !room) return room;
  }
  if (auto room = pieces_.reserve(std::min(sequences, batch)); !room) return room;
  if (auto room = history_.resize(sequences); !room) return room;
  for (List<std::int32_t>& tokens : history_.span()) {
    if (auto room = tokens.resize(static_cast<std::size_t>(context)); !room) return room;
  }
  return {};
}

std::span<const std::int32_t> Session::tokens(int sequence) const noexcept {
  if (!has(sequence)) return {};
  return history_[static_cast<std::size_t>(sequence)].span().first(static_cast<std::size_t>(position(sequence)));
}

Status Session::check(std::span<const SequenceInput> inputs) const noexcept {
  if (inputs.empty()) return fail(Errc::invalid_argument, "feed", "no tokens");
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const SequenceInput& input = inputs[i];
    const bool twice = std::any_of(inputs.begin(), inputs.begin() + static_cast<std::ptrdiff_t>(i),
                                   [&](const SequenceInput& other) { return other.sequence == input.sequence; });
    if (!has(input.sequence) || twice)
      return fail(Errc::invalid_argument, "feed", "no such sequence, or one that is there twice",
                  Dims{.extent = {input.sequence}, .rank = 1});
    if (input.ids.empty()) return fail(Errc::invalid_argument, "feed", "no tokens");
    const auto count = static_cast<std::int64_t>(input.ids.size());
    if (count > room(input.sequence)) {
      return fail(Errc::invalid_argument, "feed", "more tokens than the context has room for",
                  Dims{.extent = {count, room(input.sequence)}, .rank = 2});
    }
    for (const std::int32_t id : input.ids) {
      if (id < 0 || id >= model_->config().vocab)
        return fail(Errc::invalid_argument, "feed", "a token outside the vocabulary", Dims{.extent = {id}, .rank = 1});
    }
  }
  return {};
}

// Cuts the inputs into batches, one after the other; an input that does not fit goes on in the next.
Result<std::span<const float>> Session::feed_all(std::span<const SequenceInput> inputs, See see, void* user) noexcept {
  if (auto good = check(inputs); !good) return fail(good.error());
  std::size_t input = 0, at = 0, seen = 0;
  const auto first = model_->begin();
  waits_ = !first;
  while (input < inputs.size()) {
    ids_.clear();
    positions_.clear();
    pieces_.clear();
    Status status;
    while (input < inputs.size() && ids_.size() < static_cast<std::size_t>(batch_) && status) {
      const auto all = inputs[input].ids;
      const std::size_t count = std::min(all.size() - at, static_cast<std::size_t>(batch_) - ids_.size());
      const int sequence = inputs[input].sequence;
      const bool last = at + count == all.size();
      status = pieces_.push({sequence, input, static_cast<std::int64_t>(ids_.size()), static_cast<std::int64_t>(count),
                             position(sequence), last});
      if (status) status = ids_.append(all.subspan(at, count));
      for (std::size_t i = 0; i < count && status; ++i)
        status = positions_.push(static_cast<std::int32_t>(position(sequence)) + static_cast<std::int32_t>(i));
      at = last ? 0 : at + count;
      input += last;
    }
    if (status) status = feed_pieces(see, user, seen);
    waits_ = true;                                             // every further batch would lay them out once more
    if (auto there = model_->whole(); !there) status = there;  // whatever was computed, or failed, from what is gone
    if (!status) return fail(status.error());
    seen += ids_.size();
  }
  return std::span<const float>(logits_.span()).first(inputs.size() * static_cast<std::size_t>(model_->config().vocab));
}

Result<std::span<const float>> Session::continue_as(std::span<const std::int32_t> ids, int sequence) noexcept {
  if (!has(sequence) || ids.empty()) return fail(Errc::invalid_argument, "feed", "no tokens, or no such sequence");
  const auto known = tokens(sequence);
  const std::size_t most = std::min(known.size(), ids.size() - 1);  // the last one is fed, for its logits
  const auto same = static_cast<std::size_t>(
      std::mismatch(known.begin(), known.begin() + static_cast<std::ptrdiff_t>(most), ids.begin()).first -
      known.begin());
  rewind(static_cast<std::int64_t>(same), sequence);
  return feed(ids.subspan(same), sequence);
}

Status Session::fork(int from, int to, std::int64_t positions) noexcept {
  if (!has(from) || !has(to)) return fail(Errc::invalid_argument, "fork", "no such sequence");
  cache_.copy(from, to, positions);
  const auto known = tokens(from).first(static_cast<std::size_t>(position(to)));
  if (from != to) std::copy(known.begin(), known.end(), history_[static_cast<std::size_t>(to)].begin());
  return {};
}

}  // namespace qorus::llm
