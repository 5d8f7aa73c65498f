// qorus train text: a language model from nothing, as a GGUF file in the end.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <numbers>
#include <string>
#include <string_view>
#include <utility>

#include "language.h"

import qorus.tune;

using namespace qorus;

namespace {

using Model = nn::Model<nn::LanguageModel>;

// A vocabulary that was made here, or that of a file.
struct Words {
  text::Vocabulary made;
  io::Gguf file;
  bool from_file = false;
  text::Tokenizer tokenizer;
};

Result<text::Vocabulary> make_vocabulary(const std::string& kind, const tune::Corpus& corpus) {
  if (kind == "bytes") return text::byte_vocabulary();
  if (kind == "chars") return text::character_vocabulary(corpus.train());
  text::BpeOptions bpe;
  if (kind != "bpe") {
    const char *begin = kind.data() + 4, *const end = kind.data() + kind.size();
    const auto [at, error] = std::from_chars(begin, end, bpe.vocabulary);
    if (error != std::errc() || at != end)
      return fail(Errc::invalid_argument, "tokenizer", "bpe:N takes a number of pieces", kind);
  }
  auto made = text::train_bpe(corpus.train(), bpe);
  if (made && static_cast<std::int64_t>(made->size()) < bpe.vocabulary)
    std::fprintf(stderr, "%zu pieces: no more pairs occur twice\n", made->size());
  return made;
}

// A vocabulary as a GGUF file has it. That of another format is told in one beside the file to be written, which loses its name at once: so a
// text is cut here as it will be by whoever reads the result.
Result<io::Gguf> read_words(const std::string& path, const std::string& out) {
  {
    auto file = MappedFile::open(path);
    if (!file) return fail(file.error());
    const auto bytes = file->bytes();
    if (bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0) return io::read_gguf(path);
  }
  const std::string place = out + ".vocabulary";
  auto writer = io::GgufWriter::create(place);
  if (!writer) return fail(writer.error());
  Status done = writer->put_text("general.architecture", "llama");
  if (done) done = llm::put_vocabulary(path, *writer);
  if (done) done = writer->begin();
  if (done) done = writer->commit();
  if (!done) return fail(done.error());
  auto file = io::read_gguf(place);
  std::remove(place.c_str());
  return file;
}

Result<Words> make_words(const std::string& kind, const std::string& out, const tune::Corpus& corpus) {
  Words words;
  const bool known = kind == "bytes" || kind == "chars" || kind == "bpe" || kind.starts_with("bpe:");
  words.from_file = !known;
  if (known) {
    auto made = make_vocabulary(kind, corpus);
    if (!made) return fail(made.error());
    words.made = std::move(*made);
  } else {
    auto file = read_words(kind, out);
    if (!file) return fail(file.error());
    words.file = std::move(*file);
  }
  auto tokenizer = known ? text::Tokenizer::create(words.made.spec()) : text::from_gguf(words.file);
  if (!tokenizer) return fail(tokenizer.error());
  words.tokenizer = std::move(*tokenizer);
  return words;
}

Result<Model> make_model(const TextTraining& t, std::size_t vocab) {
  const int third = (8 * t.width + 2) / 3;
  auto layers = nn::llama({.vocab = static_cast<std::int64_t>(vocab),
                           .d_model = t.width,
                           .heads = t.heads,
                           .layers = static_cast<std::size_t>(t.layers),
                           .block = {.attention = {.kv_heads = t.kv_heads, .pairs = ops::RopePairs::interleaved},
                                     .d_ff = t.feed_forward ? t.feed_forward : (third + 31) / 32 * 32,
                                     .dropout = static_cast<float>(t.dropout)}});
  layers.tied = t.tied;
  return nn::build(std::move(layers), {t.context}, init::normal(t.seed), {.input = DType::i32});
}

// What is told of a validation, and a sample.
struct Teller {
  const TextTraining* options;
  const train::ModelRef* model;
  const text::Tokenizer* tokenizer;
  std::size_t told = 0;

  void operator()(train::Event& event) noexcept {
    if (event.moment == train::Moment::step_end && Interrupt::asked()) event.stop = true;
    const bool moment = event.moment == train::Moment::step_end || event.moment == train::Moment::epoch_end;
    const double loss = event.record.validation_loss;
    if (!moment || loss < 0 || event.total_step == told) return;
    told = event.total_step;
    std::fprintf(stderr, "step %zu  validation loss %.4f, perplexity %.2f\n", told, loss, std::exp(loss));
    if (options->sample == 0) return;
    if (auto shown = show(); !shown) event.failure = shown.error();
  }

  [[nodiscard]] Status show() const noexcept {
    auto prompt = tokenizer->encode("\n");
    if (!prompt) return fail(prompt.error());
    const llm::GenerateOptions how{.max_tokens = options->sample, .temperature = 0.8f, .seed = options->seed};
    auto ids = tune::continue_ids(*model, prompt->span(), options->context, how, tokenizer->eos());
    if (!ids) return fail(ids.error());
    auto text = tokenizer->decode(ids->span());
    if (!text) return fail(text.error());
    std::fprintf(stderr, "%.*s\n", static_cast<int>(text->size()), text->data());
    return {};
  }
};

// Both parts as ids, beside the file to be written.
struct Ids {
  tune::Tokens train, validation;
};
Result<Ids> make_ids(const TextTraining& t, const tune::Corpus& corpus, const text::Tokenizer& tokenizer) {
  const std::string place = t.out + ".ids";
  auto train = tune::Tokens::encode(tokenizer, corpus.train(), place);
  if (!train) return fail(train.error());
  if (corpus.validation().empty()) return Ids{std::move(*train), {}};
  auto validation = tune::Tokens::encode(tokenizer, corpus.validation(), place);
  if (!validation) return fail(validation.error());
  return Ids{std::move(*train), std::move(*validation)};
}

Result<train::History> run(const TextTraining& t, Model& model, const Ids& ids, const Words& words) {
  const train::ModelRef seen = train::model_ref(model);
  const Interrupt interrupt;
  const auto logged = [path = std::string_view(t.report)](train::Event& event) noexcept {
    if (!path.empty()) train::report(path)(event);
  };
  return tune::pretrain(
      model, ids.train, ids.validation,
      {.optimizer = optim::adamw({.lr = static_cast<float>(t.learning_rate),
                                  .beta2 = 0.99f,
                                  .weight_decay = static_cast<float>(t.decay)}) |
                    optim::no_decay_on_vectors(),
       .context = t.context,
       .steps = t.steps || t.epochs ? static_cast<std::size_t>(t.steps) : 2000,
       .epochs = t.epochs,
       .batch = static_cast<std::size_t>(t.batch),
       .accumulate = static_cast<std::size_t>(t.accumulate),
       .shards = static_cast<std::size_t>(t.shards),
       .bf16 = t.bf16,
       .seed = t.seed,
       .threads = t.threads ? t.threads : cpu_count(),
       .validate_every = static_cast<std::size_t>(t.validate_every),
       .checkpoints = {.folder = t.checkpoints, .every_steps = static_cast<std::size_t>(t.checkpoint_every)},
       .callbacks = {train::progress(), Teller{&t, &seen, &words.tokenizer}, logged}});
}

// How well the model foretells the validation part, per token and per byte of the text.
void tell_quality(const train::History& history, const Ids& ids, const tune::Corpus& corpus) {
  const double loss = history.epochs.empty() ? -1 : history.epochs.back().validation_loss;
  if (loss < 0) return;
  std::size_t bytes = 0;
  for (const std::string_view text : corpus.validation()) bytes += text.size();
  const double tokens_per_byte =
      static_cast<double>(ids.validation.size()) / static_cast<double>(std::max<std::size_t>(bytes, 1));
  std::printf("validation loss %.4f nats per token, perplexity %.2f, %.3f bits per byte\n", loss, std::exp(loss),
              loss * tokens_per_byte / std::numbers::ln2);
}

}  // namespace

int train_text_command(const Options& options) {
  const TextTraining& t = options.text_training;
  if (auto writable = AtomicFile::create(t.out); !writable) return report(writable);  // known before hours of work
  auto corpus = tune::Corpus::open(t.data, t.validation);
  if (!corpus) return report(corpus);
  const Stopwatch watch;
  auto words = make_words(t.tokenizer, t.out, *corpus);
  if (!words) return report(words);
  auto ids = make_ids(t, *corpus, words->tokenizer);
  if (!ids) return report(ids);
  if (auto there = corpus->whole(); !there) return report(there);  // all of it was read
  std::fprintf(stderr, "%zu files, %llu bytes; %zu tokens to learn from, %zu to validate, of %zu; %.1f s\n",
               corpus->files(), static_cast<unsigned long long>(corpus->bytes()), ids->train.size(),
               ids->validation.size(), words->tokenizer.size(), watch.seconds());
  auto model = make_model(t, words->tokenizer.size());
  if (!model) return report(model);
  std::fprintf(stderr, "%zu parameters, %d threads, %s kernels\n", model->parameter_count(),
               t.threads ? t.threads : cpu_count(), cpu_info().isa);
  auto history = run(t, *model, *ids, *words);
  if (!history) return report(history);
  tell_quality(*history, *ids, *corpus);
  const tune::WriteOptions how{.type = t.type, .name = t.name};
  auto written = words->from_file ? tune::write_gguf(*model, words->file, t.out, how)
                                  : tune::write_gguf(*model, words->made.spec(), t.out, how);
  if (!written) return report(written);
  std::printf("%zu steps, %.0f s; %zu parameters as %s in %s\n", history->steps, history->seconds,
              model->parameter_count(), t.type.c_str(), t.out.c_str());
  return 0;
}
