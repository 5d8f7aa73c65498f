// Loggers: callbacks that leave the course of a run behind as a table, as JSON lines, for TensorBoard, or as a page to look at. They
// write from buffers on the stack, and allocate nothing per step or epoch. Paths must outlive the run. What cannot be written ends
// the run with its error.
export module qorus.train:logger;
import qorus.std;
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

// What a report's samples write: texts and pictures, in order. Valid during the call alone.
class SamplePage {
 public:
  explicit SamplePage(void* page) noexcept : page_(page) {}
  void text(std::string_view caption, std::string_view body) noexcept;
  // [height, width] or [1 or 3, height, width]: u8, or f32 from 0 (black) to 1 (white). Anything else is shown as its error.
  void picture(std::string_view caption, const Tensor& image) noexcept;

 private:
  void* page_;
};
// A reference to anything callable as void(SamplePage&), which must outlive the run.
class SamplesRef {
 public:
  SamplesRef() noexcept = default;
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, SamplesRef>) && std::is_nothrow_invocable_v<F&, SamplePage&>
  SamplesRef(F&& f) noexcept  // NOLINT(google-explicit-constructor): any such function is one
      : user_(const_cast<void*>(static_cast<const void*>(&f))),
        call_([](void* user, SamplePage& page) noexcept { (*static_cast<std::remove_reference_t<F>*>(user))(page); }) {}
  explicit operator bool() const noexcept { return call_ != nullptr; }
  void operator()(SamplePage& page) const noexcept { call_(user_, page); }

 private:
  void* user_ = nullptr;
  void (*call_)(void*, SamplePage&) noexcept = nullptr;
};
struct ReportOptions {
  std::string_view title = "Training run";  // must outlive the run
  SamplesRef samples = {};  // written when the run has ended: what the model makes of some examples, say
};

// One page that needs nothing else: curves of loss, accuracy, metrics, rate and gradient norm, the confusion matrix, samples, the parameters
// and the environment; light or dark as the browser is, on a phone as well. Written, as a whole or not at all, when the run ends, for
// whatever reason.
class Report {
 public:
  explicit Report(std::string_view path, const ReportOptions& options = {}) noexcept : path_(path), options_(options) {}
  void operator()(Event& event) noexcept;

 private:
  std::string_view path_;
  ReportOptions options_;
};
[[nodiscard]] inline Report report(std::string_view path, const ReportOptions& options = {}) noexcept {
  return Report(path, options);
}

}  // namespace qorus::train
