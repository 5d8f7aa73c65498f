// What train::fit costs and gives.
//   bench_fit short [RUNS]     a classifier with progress, validation and early stopping: by fit and by a loop of one's own; lines of both,
//                              processor time of both (least of RUNS runs each, in turn), and whether they end with the same bits
//   bench_fit memory [SECONDS] a GPT as it is, with bf16, and with nn::recompute (whose bits are the same): bytes of workspace, steps a second
//   bench_fit bf16 DIR [STEPS] MNIST's digits and a small GPT on Tiny Shakespeare with and without bf16: loss and accuracy. DIR has the folders
//                              mnist and text
//   bench_fit shards [SECONDS] steps a second of whole runs on two threads: within operations, and by shards of the batch
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

import qorus.train;

using namespace qorus;

namespace {

using Weights = std::vector<float>;

// begin short
Result<Weights> by_fit(const data::Split& digits) {
  auto net = nn::flatten() | nn::linear(256) | nn::relu() | nn::dropout(0.1f) | nn::linear(10);
  auto done = train::fit(net, digits,
                         {.loss = loss::cross_entropy(),
                          .optimizer = optim::adamw({.lr = 1e-3f}),
                          .epochs = 3,
                          .batch = 64,
                          .seed = 7,
                          .threads = 1,
                          .callbacks = {train::progress(), train::early_stopping({.patience = 2})}});
  if (!done) return fail(done.error());
  return Weights(done->model.slab().begin(), done->model.slab().end());
}
// end short

// begin explicit
Result<Weights> by_hand(const data::Split& digits) {
  auto net = nn::flatten() | nn::linear(256) | nn::relu() | nn::dropout(0.1f) | nn::linear(10);
  auto model = nn::build(net, digits.train.input_shape(), init::kaiming(7));
  if (!model) return fail(model.error());
  auto optimizer = optim::adamw(*model, {.lr = 1e-3f});
  Workspace workspace{{.scratch = 256_MiB, .threads = 1, .seed = 7}};
  auto batches = digits.train | data::shuffle(7) | data::batch(64);
  auto validation = digits.test | data::batch(256);
  Weights best;
  double lowest = INFINITY;
  int waited = 0;
  const auto count_right = [](const Tensor& output, const Tensor& target) -> Result<std::size_t> {
    auto predicted = ops::argmax(ops::detach(output));
    if (!predicted) return fail(predicted.error());
    std::size_t right = 0;
    for (std::size_t i = 0; i < target.numel(); ++i) right += predicted->i32()[i] == target.i32()[i];
    return right;
  };
  for (int epoch = 1; epoch <= 3; ++epoch) {
    double sum = 0;
    std::size_t right = 0, seen = 0;
    for (auto const& [x, y] : batches) {
      auto tape = workspace.record();
      auto output = tape.input(x) | *model;
      auto loss = loss::cross_entropy()(output, tape.input(y));
      if (!loss) return fail(loss.error());
      const float value = loss->item().value();
      if (!std::isfinite(value)) return fail(Errc::diverged, "by_hand", "the loss is not finite");
      auto correct = count_right(*output, y);
      if (!correct) return fail(correct.error());
      auto step = backward(*loss).and_then([&](const Gradients& g) { return optimizer.step(*model, g); });
      if (!step) return fail(step.error());
      right += *correct;
      seen += y.numel();
      sum += static_cast<double>(value) * static_cast<double>(y.numel());
    }
    double validation_sum = 0;
    std::size_t validation_right = 0;
    for (auto const& [x, y] : validation) {
      auto frame = workspace.frame();
      auto output = frame.input(x) | *model;
      auto loss = loss::cross_entropy()(output, frame.input(y));
      if (!loss) return fail(loss.error());
      auto correct = count_right(*output, y);
      if (!correct) return fail(correct.error());
      validation_right += *correct;
      validation_sum += static_cast<double>(loss->item().value()) * static_cast<double>(y.numel());
    }
    const double n = static_cast<double>(seen), of = static_cast<double>(digits.test.size());
    std::fprintf(stderr, "epoch %d/3  loss %.4f  accuracy %.4f  validation loss %.4f  validation accuracy %.4f\n",
                 epoch, sum / n, static_cast<double>(right) / n, validation_sum / of,
                 static_cast<double>(validation_right) / of);
    if (validation_sum < lowest) {
      lowest = validation_sum;
      waited = 0;
      best.assign(model->slab().begin(), model->slab().end());
    } else if (++waited >= 2) {
      break;
    }
  }
  return best;
}
// end explicit

// Lines with anything on them between "// begin NAME" and "// end NAME" of this file.
int lines_of(const std::string& name) {
  std::ifstream source(__FILE__);
  int count = 0;
  bool within = false;
  for (std::string line; std::getline(source, line);) {
    if (line == "// end " + name) within = false;
    count += within && line.find_first_not_of(" }") != std::string::npos;
    if (line == "// begin " + name) within = true;
  }
  return count;
}

double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

int compare(int runs) {
  auto digits = data::digits(7);
  if (!digits) return report(digits);
  double least[2] = {INFINITY, INFINITY};
  Weights weights[2];
  for (int run = 0; run < 2 * runs; ++run) {
    const double begin = processor_seconds();
    auto done = run % 2 ? by_hand(*digits) : by_fit(*digits);
    const double seconds = processor_seconds() - begin;
    if (!done) return report(done);
    least[run % 2] = std::min(least[run % 2], seconds);
    weights[run % 2] = std::move(*done);
  }
  const int brief = lines_of("short"), whole = lines_of("explicit");
  std::printf(
      "{\"lines_short\":%d,\"lines_explicit\":%d,\"lines_share\":%.2f,\"seconds_short\":%.3f,\"seconds_explicit\":%.3f,"
      "\"time_ratio\":%.4f,\"same_bits\":%s}\n",
      brief, whole, static_cast<double>(brief) / whole, least[0], least[1], least[0] / least[1],
      weights[0] == weights[1] ? "true" : "false");
  return weights[0] == weights[1] ? 0 : 1;
}

// --- shards ---

struct Way {
  const char* name;
  int threads;
  std::size_t shards;
};
constexpr Way k_ways[] = {
    {"one thread", 1, 1}, {"two threads", 2, 1}, {"two threads, 2 shards", 2, 2}, {"two threads, 4 shards", 2, 4}};

template <class L>
void time_ways(const char* name, const L& layers, const data::Dataset& data, std::size_t batch, double seconds) {
  for (const Way& way : k_ways) {
    const DType input = data.inputs().dtype() == DType::i32 ? DType::i32 : DType::f32;
    auto model = nn::build(layers, data.input_shape(), init::kaiming(1), {.input = input});
    if (!model) return static_cast<void>(report(model));
    std::size_t warm = 0;
    double begin = 0, end = 0;
    const auto watch = [&](train::Event& event) noexcept {
      if (event.moment != train::Moment::step_end) return;
      if (++warm == 3) begin = event.run_seconds;
      end = event.run_seconds;
      event.stop = warm > 5 && end - begin > seconds;
    };
    auto done = train::fit(
        *model, data.examples(),
        {.epochs = 100000, .batch = batch, .threads = way.threads, .shards = way.shards, .callbacks = {watch}});
    if (!done) return static_cast<void>(report(done));
    std::printf("{\"model\":\"%s\",\"way\":\"%s\",\"steps_per_second\":%.2f}\n", name, way.name,
                static_cast<double>(warm - 3) / (end - begin));
    std::fflush(stdout);
  }
}

data::Dataset noise(std::initializer_list<std::int64_t> shape, bool tokens, int classes) {
  const Shape all(shape);
  auto x = Owned::zeros(all, tokens ? DType::i32 : DType::u8).value();
  auto y = Owned::zeros(tokens ? all : Shape{all[0]}, DType::i32).value();
  std::uint32_t state = 1;
  const auto draw = [&] { return (state = state * 1664525u + 1013904223u) >> 16; };
  for (auto& byte : x.fill<std::uint8_t>()) byte = static_cast<std::uint8_t>(draw());
  for (auto& token : x.fill<std::int32_t>()) token = static_cast<std::int32_t>(draw()) % classes;
  for (auto& label : y.fill<std::int32_t>()) label = static_cast<std::int32_t>(draw()) % classes;
  return data::Dataset::create(std::move(x), std::move(y), {.scale = 1 / 255.0f, .classes = classes}).value();
}

// --- memory ---

// How a model is trained.
struct Kept {
  const char* name;
  bool recompute = false, bf16 = false;
};

int weigh(double seconds) {
  constexpr Kept k_kept[] = {{"as it is"}, {"bf16", false, true}, {"computed again", true}};
  const data::Dataset data = noise({96, 256}, true, 65);
  Weights weights[3];
  for (std::size_t way = 0; way < 3; ++way) {
    nn::LanguageOptions options{.vocab = 65, .context = 256, .d_model = 192, .heads = 6, .layers = 8};
    options.block.recompute = k_kept[way].recompute ? nn::recompute : nullptr;
    auto model = nn::build(nn::gpt(options), {256}, init::normal(1), {.input = DType::i32});
    if (!model) return report(model);
    std::size_t steps = 0;
    double begin = 0, end = 0;
    const auto watch = [&](train::Event& event) noexcept {
      if (event.moment != train::Moment::step_end) return;
      if (++steps == 4)
        weights[way].assign(event.parameters->slab().begin(), event.parameters->slab().end()),
            begin = processor_seconds();
      end = processor_seconds();
      event.stop = steps > 5 && end - begin > seconds;
    };
    auto done =
        train::fit(*model, data.examples(),
                   {.epochs = 100000, .batch = 12, .threads = 1, .bf16 = k_kept[way].bf16, .callbacks = {watch}});
    if (!done) return report(done);
    const double floats = static_cast<double>(model->slab().size_bytes()) / 1e6;
    std::printf(
        "{\"kept\":\"%s\",\"parameters_mb\":%.1f,\"moments_mb\":%.1f,\"workspace_mb\":%.1f,\"steps_per_second\":%.2f}"
        "\n",
        k_kept[way].name, floats, k_kept[way].bf16 ? floats : 2 * floats,
        static_cast<double>(done->scratch_high_water) / 1e6, static_cast<double>(steps - 4) / (end - begin));
    std::fflush(stdout);
  }
  std::printf("{\"same_bits_computed_again\":%s}\n", weights[0] == weights[2] ? "true" : "false");
  return weights[0] == weights[2] ? 0 : 1;
}

// --- accuracy ---

// Trains a model on data and tells the last validation.
template <class L>
int tell_quality(const char* name, const L& layers, const data::Split& data, const train::FitOptions& given) {
  for (const bool bf16 : {false, true}) {
    const DType input = data.train.inputs().dtype() == DType::i32 ? DType::i32 : DType::f32;
    auto model = nn::build(layers, data.train.input_shape(), init::kaiming(7), {.input = input});
    if (!model) return report(model);
    train::FitOptions options = given;
    options.bf16 = bf16;
    auto done = train::fit(*model, data, options);
    if (!done) return report(done);
    const train::EpochRecord& last = done->epochs.back();
    std::printf(
        "{\"model\":\"%s\",\"bf16\":%s,\"workspace_mb\":%.1f,\"loss\":%.4f,\"validation_loss\":%.4f,"
        "\"validation_accuracy\":%.4f}\n",
        name, bf16 ? "true" : "false", static_cast<double>(done->scratch_high_water) / 1e6, last.loss,
        last.validation_loss, last.validation_accuracy);
    std::fflush(stdout);
  }
  return 0;
}

int compare_quality(const std::string& folder, std::size_t steps) {
  auto digits = data::mnist(folder + "/mnist");
  if (!digits) return report(digits);
  const auto dense = nn::flatten() | nn::linear(256) | nn::relu() | nn::dropout(0.1f) | nn::linear(10);
  if (const int bad = tell_quality("mnist", dense, *digits, {.epochs = 3, .batch = 64, .seed = 7})) return bad;
  auto text = data::read_text(folder + "/text/tinyshakespeare.txt");
  if (!text) return report(text);
  const std::string_view all(text->data(), text->size());
  const data::Alphabet alphabet(all);
  const std::size_t cut = all.size() / 10 * 9;
  auto train = data::windows(all.substr(0, cut), alphabet, 64, 7),
       test = data::windows(all.substr(cut), alphabet, 64, 64);
  if (!train || !test) return report(train ? test : train);
  const data::Split shakespeare{std::move(*train), std::move(*test)};
  const auto gpt = nn::gpt({.vocab = alphabet.size(), .context = 64, .d_model = 128, .heads = 4, .layers = 4});
  return tell_quality("gpt", gpt, shakespeare,
                      {.optimizer = optim::adamw({.lr = 2e-3f, .beta2 = 0.99f, .weight_decay = 0.1f}),
                       .schedule = schedule::linear_warmup(0.02) | schedule::cosine({.end = 0.05f}),
                       .epochs = 1000,
                       .steps = steps,
                       .batch = 32,
                       .seed = 7,
                       .clip_norm = 1});
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "short") return compare(argc > 2 ? std::atoi(argv[2]) : 5);
  if (what == "memory") return weigh(argc > 2 ? std::atof(argv[2]) : 3);
  if (what == "bf16" && argc > 2) return compare_quality(argv[2], argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 400);
  if (what == "shards") {
    const double seconds = argc > 2 ? std::atof(argv[2]) : 1;
    time_ways("mlp", nn::flatten() | nn::linear(512) | nn::relu() | nn::linear(256) | nn::relu() | nn::linear(10),
              noise({1024, 784}, false, 10), 64, seconds);
    time_ways("lenet", nn::lenet(10), noise({1024, 1, 28, 28}, false, 10), 64, seconds);
    time_ways("gpt_micro", nn::gpt({.vocab = 65, .context = 64, .d_model = 128, .heads = 4, .layers = 4}),
              noise({96, 64}, true, 65), 12, seconds);
    return 0;
  }
  std::fprintf(stderr, "usage: bench_fit short [RUNS] | memory [SECONDS] | bf16 DIR [STEPS] | shards [SECONDS]\n");
  return 2;
}
