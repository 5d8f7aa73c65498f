// Loggers: callbacks that leave the course of a run behind as a table, as JSON lines, for TensorBoard, or as a page to look at. They
// write from buffers on the stack, and allocate nothing per step or epoch. Paths must outlive the run. What cannot be written ends
// the run with its error.
module;
#include <cstddef>
#include <cstdint>
#include <string_view>
export module qorus.train:logger;
import qorus.nn;
import :callback;

export namespace qorus::train {

// One line an epoch under a line of names: epoch, step, loss, accuracy, validation_loss, validation_accuracy, each metric, lr,
// gradient_norm, seconds, examples_per_second. Empty where nothing was measured. Begins anew with each run; a resumed one writes the
// epochs before it again, so the table is whole.
class CsvLogger {
 public:
  explicit CsvLogger(std::string_view path) noexcept : path_(path) {}
  void operator()(Event& event) noexcept;

 private:
  std::string_view path_;
  int file_ = -1;
};
[[nodiscard]] inline CsvLogger csv_logger(std::string_view path) noexcept { return CsvLogger(path); }

// The same as JSON objects, one a line ({"epoch":1,"loss":…}); what was not measured is left out. With every_steps = n also every n-th
// step ({"step":…,"epoch":…,"loss":…,"lr":…}).
class JsonLogger {
 public:
  explicit JsonLogger(std::string_view path, std::size_t every_steps = 0) noexcept
      : path_(path), every_steps_(every_steps) {}
  void operator()(Event& event) noexcept;

 private:
  std::string_view path_;
  std::size_t every_steps_;
  int file_ = -1;
};
[[nodiscard]] inline JsonLogger json_logger(std::string_view path, std::size_t every_steps = 0) noexcept {
  return JsonLogger(path, every_steps);
}

struct TensorBoardOptions {
  std::size_t every_steps = 10;  // of loss/step, lr, gradient_norm and throughput; 0: none
  bool histograms = true;        // of every parameter, each epoch
};
// A file of events (TFRecords of tensorflow.Event) in a folder, which is made if it is missing: scalars by epoch and by step,
// histograms of the parameters, and the model as text. A run that is resumed adds a file of its own, as TensorBoard expects.
class TensorBoard {
 public:
  explicit TensorBoard(std::string_view folder, const TensorBoardOptions& options = {}) noexcept
      : folder_(folder), options_(options) {}
  void operator()(Event& event) noexcept;

 private:
  std::string_view folder_;
  TensorBoardOptions options_;
  int file_ = -1;
};
[[nodiscard]] inline TensorBoard tensor_board(std::string_view folder,
                                              const TensorBoardOptions& options = {}) noexcept {
  return TensorBoard(folder, options);
}

// One page that needs nothing else: curves of loss, accuracy, metrics, rate and gradient norm, the confusion matrix, the parameters and the
// environment; light or dark as the browser is. Written, as a whole or not at all, when the run
// ends, for whatever reason.
class Report {
 public:
  explicit Report(std::string_view path) noexcept : path_(path) {}
  void operator()(Event& event) noexcept;

 private:
  std::string_view path_;
};
[[nodiscard]] inline Report report(std::string_view path) noexcept { return Report(path); }

}  // namespace qorus::train
