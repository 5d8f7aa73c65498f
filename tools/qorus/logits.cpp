// qorus logits: the logits of every token of a text, as an array.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>

#include "language.h"

using namespace qorus;

namespace {

Result<List<std::int32_t>> tokens_of(const Options& options, const llm::Model& model) {
  if (!options.ids.empty()) return parse_ids(options.ids);
  const text::Tokenizer& tokenizer = model.tokenizer();
  return tokenizer.encode(options.text, {.bos = tokenizer.adds_bos() || options.text.empty()});
}

Status save(const Options& options) {
  auto model = open_model(options);
  if (!model) return fail(model.error());
  auto ids = tokens_of(options, *model);
  if (!ids) return fail(ids.error());
  const auto count = static_cast<std::int64_t>(ids->size());
  auto session =
      llm::Session::create(*model, {.context = std::max<std::int64_t>(count, 1), .threads = threads_given(options)});
  if (!session) return fail(session.error());
  auto all = Owned::zeros(Shape{count, model->config().vocab});
  if (!all) return fail(all.error());
  const auto to = all->fill<float>();
  auto fed = session->feed(ids->span(), [&](std::size_t row, std::span<const float> logits) {
    std::copy(logits.begin(), logits.end(), to.begin() + static_cast<std::ptrdiff_t>(row * logits.size()));
  });
  if (!fed) return fail(fed.error());
  if (auto saved = io::write_npy(options.npy, *all); !saved) return saved;
  std::fprintf(stderr, "%zu tokens, [%zu, %lld] saved to %s\n", ids->size(), ids->size(),
               static_cast<long long>(model->config().vocab), options.npy.c_str());
  return {};
}

}  // namespace

int logits_command(const Options& options) { return report(save(options)); }
