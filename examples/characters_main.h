// The other half of characters.h: uses what `import qorus;` brings.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

inline constexpr std::int64_t k_context = 64;

// The next character, drawn from the model's prediction after the last of `ids`.
template <class M>
qorus::Result<int> next_character(const M& model, qorus::Workspace& ws, std::span<const std::int32_t> ids) {
  namespace ops = qorus::ops;
  auto frame = ws.frame();
  const auto seen = ids.last(std::min<std::size_t>(ids.size(), k_context));
  const auto x = qorus::Tensor::borrow(seen, {1, static_cast<std::int64_t>(seen.size())});
  auto p = ops::softmax(ops::select(frame.input(x) | model, 1, -1) * (1 / 0.8f));
  auto draw = ops::uniform(frame.context(), {1});
  if (!p || !draw) return qorus::fail(!p ? p.error() : draw.error());
  float rest = draw->f32()[0];
  int id = 0;
  for (; id + 1 < static_cast<int>(p->numel()) && rest >= p->f32()[id]; ++id) rest -= p->f32()[id];
  return id;
}

// Trains `make(vocab)` on nine tenths of Tiny Shakespeare (with --data; else of Qorus' own description), validates on the rest, and
// prints a sample.
template <class Make>
int train_on_characters(int argc, char** argv, std::size_t steps, const Make& make) {
  using namespace qorus;
  const Arguments given(argc, argv);
  std::string_view text = k_own_text;
  auto file = given.data.empty() ? Result<List<char>>() : data::read_text(given.file("text/tinyshakespeare.txt"));
  if (!file) return report(file);
  if (!file->empty()) text = {file->data(), file->size()};
  if (given.quick) text = text.substr(0, 6000);
  const data::Alphabet alphabet(text);
  const std::size_t cut = text.size() / 10 * 9;
  auto train = data::windows(text.substr(0, cut), alphabet, k_context, 7),
       test = data::windows(text.substr(cut), alphabet, k_context, k_context);
  if (!train || !test) return report(train ? test : train);
  const data::Split split{std::move(*train), std::move(*test)};
  auto model = nn::build(make(alphabet.size()), {k_context}, init::normal(7), {.input = DType::i32});
  if (!model) return report(model);
  auto done = train::fit(*model, split,
                         {.optimizer = optim::adamw({.lr = 2e-3f, .beta2 = 0.99f, .weight_decay = 0.1f}),
                          .schedule = schedule::linear_warmup(0.02) | schedule::cosine({.end = 0.05f}),
                          .epochs = 1000,
                          .steps = given.quick ? 8 : steps,
                          .batch = given.quick ? std::size_t{8} : std::size_t{32},
                          .seed = 7,
                          .clip_norm = 1,
                          .callbacks = {train::progress()}});
  if (!done) return report(done);
  std::printf("validation loss %.3f nats per character, %zu parameters, %zu steps, %.0f s\n",
              done->epochs.back().validation_loss, model->parameter_count(), done->steps, done->seconds);
  Workspace ws{{.scratch = 64_MiB, .threads = 1, .seed = 7}};
  std::vector<std::int32_t> ids = {alphabet.id('\n')};
  for (int i = 0; i < (given.quick ? 100 : 400); ++i) {
    auto id = next_character(*model, ws, ids);
    if (!id) return report(id);
    ids.push_back(*id);
    std::putchar(alphabet.character(*id));
  }
  std::putchar('\n');
  return 0;
}
