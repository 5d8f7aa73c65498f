// A run that may be killed at any moment and goes on where it stood, to the same bits: start it again with the same folder. It leaves
// checkpoints, the best weights, a table (log.csv), TensorBoard's events and a page to look at (report.html, with some digits and what the
// model takes them for) behind.
// Result of `example_long_run FOLDER 12`: validation accuracy 98.7 %, F1 0.987.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

import qorus;
using namespace qorus;

int main(int argc, char** argv) {
  const std::string folder = argc > 1 ? argv[1] : "run";
  const std::string table = folder + "/log.csv", events = folder + "/events", page = folder + "/report.html";
  const int epochs = argc > 2 ? std::atoi(argv[2]) : 12;
  auto digits = data::digits(7, {.train = 6000, .test = 1000});
  auto net = nn::flatten() | nn::linear(128) | nn::gelu() | nn::dropout(0.2f) | nn::linear(10);
  if (!digits) return report(digits);
  auto model = nn::build(net, digits->train.input_shape(), init::kaiming(7));
  if (!model) return report(model);
  const auto samples = [&](train::SamplePage& sheet) noexcept {
    auto outputs = train::predict(*model, digits->test.examples() | data::take(16));
    for (std::size_t i = 0; outputs && i < 16; ++i) {
      const float* scores = outputs->tensor().f32() + 10 * i;
      const char found = static_cast<char>('0' + (std::max_element(scores, scores + 10) - scores));
      sheet.picture({&found, 1}, digits->test.example(i)->input);
    }
  };
  auto done = train::fit(
      *model, *digits,
      {.loss = loss::cross_entropy({.label_smoothing = 0.05f}),
       .optimizer = optim::adamw({.lr = 3e-3f}) | optim::no_decay_on_vectors(),
       .schedule = schedule::linear_warmup(0.05) | schedule::cosine(),
       .epochs = epochs,
       .batch = 64,
       .seed = 7,
       .clip_norm = 1,
       .ema = 0.99f,
       .metrics = {metric::f1(), metric::top_k(2)},
       .checkpoints = {.folder = folder, .every_steps = 50},
       .callbacks = {train::progress(), train::early_stopping({.patience = 5}), train::csv_logger(table),
                     train::tensor_board(events), train::report(page, {.title = "Drawn digits", .samples = samples})}});
  if (done) std::printf("F1 %.3f\n", done->epochs.back().metrics[0]);
  return report(done);
}
