// Bodies of qorus.train:logger: the table and the JSON lines.
module qorus.train;
import qorus.std;
import :output;

namespace qorus::train {
namespace {

using Line = Buffer<2048>;

// Calls f(name, value, known) for each column of a record.
template <class F>
void for_each_column(const Event& event, F&& f) noexcept {
  const EpochRecord& r = event.record;
  f("epoch", static_cast<double>(r.epoch), true);
  f("step", static_cast<double>(r.step), true);
  f("loss", r.loss, true);
  f("accuracy", r.accuracy, r.accuracy >= 0);
  f("validation_loss", r.validation_loss, r.validation_loss >= 0);
  f("validation_accuracy", r.validation_accuracy, r.validation_accuracy >= 0);
  for (std::size_t i = 0; event.metrics && i < event.metrics->count; ++i)
    f(event.metrics->list[i].name(), r.metrics[i], r.validation_loss >= 0);
  f("lr", r.lr, true);
  f("gradient_norm", r.gradient_norm, r.gradient_norm >= 0);
  f("seconds", r.seconds, true);
  f("examples_per_second", r.examples_per_second, true);
}

// Opens at the run's begin, writes what `lines` says, closes at its end; a failure becomes the run's.
template <class F>
void log_to(int& file, std::string_view path, Event& event, F&& lines) noexcept {
  if (event.moment == Moment::run_begin) {
    auto opened = open_output(path);
    if (!opened) {
      event.failure = opened.error();
      return;
    }
    file = *opened;
  }
  if (file < 0) return;
  Line line;
  lines(line);
  if (auto written = write_output(file, line.view(), path); !written) {
    event.failure = written.error();
    close_output(file);
  }
  if (event.moment == Moment::run_end) close_output(file);
}

bool epoch_is_over(const Event& event) noexcept {
  return event.moment == Moment::epoch_end || event.moment == Moment::epoch_replayed;
}

}  // namespace

void CsvLogger::operator()(Event& event) noexcept {
  log_to(file_, path_, event, [&](Line& line) {
    const bool names = event.moment == Moment::run_begin;
    if (!names && !epoch_is_over(event)) return;
    bool first = true;
    for_each_column(event, [&](std::string_view name, double value, bool known) {
      if (!first) line << ",";
      first = false;
      if (names) {
        line << name;
      } else if (known) {
        line << value;
      }
    });
    line << "\n";
  });
}

void JsonLogger::operator()(Event& event) noexcept {
  log_to(file_, path_, event, [&](Line& line) {
    std::string_view separator = "{\"";
    const auto put = [&](std::string_view name, double value, bool known) {
      if (!known || !std::isfinite(value)) return;
      line << separator << name << "\":" << value;
      separator = ",\"";
    };
    if (epoch_is_over(event)) {
      for_each_column(event, put);
    } else if (event.moment == Moment::step_end && every_steps_ && event.total_step % every_steps_ == 0) {
      put("step", static_cast<double>(event.total_step), true);
      put("epoch", static_cast<double>(event.epoch), true);
      put("loss", static_cast<double>(event.last_loss), true);
      put("lr", static_cast<double>(event.lr), true);
      put("gradient_norm", static_cast<double>(event.gradient_norm), event.gradient_norm >= 0);
    } else {
      return;
    }
    line << "}\n";
  });
}

}  // namespace qorus::train
