// Bodies of qorus.train:logger: TensorBoard's event files. A record is its length (u64), the masked CRC-32C of that, the bytes of a
// tensorflow.Event, and their masked CRC-32C; the messages are Protocol Buffers with the field numbers of event.proto and summary.proto.
module;
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
module qorus.train;
import qorus.std;
import :output;

namespace qorus::train {
namespace {

using Message = Buffer<4096>;

// CRC-32C (Castagnoli), bit by bit: a record is a few hundred bytes.
std::uint32_t crc32c(std::string_view bytes) noexcept {
  std::uint32_t crc = ~0u;
  for (const char c : bytes) {
    crc ^= static_cast<std::uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1u)));
  }
  return ~crc;
}
std::uint32_t masked(std::uint32_t crc) noexcept { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }

void varint(Message& m, std::uint64_t value) noexcept {
  for (; value >= 128; value >>= 7) m.raw(static_cast<std::uint8_t>(value | 128));
  m.raw(static_cast<std::uint8_t>(value));
}
// Wire types: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
void key(Message& m, unsigned field, unsigned type) noexcept { varint(m, field << 3 | type); }
void put_double(Message& m, unsigned field, double value) noexcept {
  key(m, field, 1);
  m.raw(value);
}
void put_bytes(Message& m, unsigned field, std::string_view bytes) noexcept {
  key(m, field, 2);
  varint(m, bytes.size());
  m << bytes;
}

double now() noexcept {
  timeval time{};
  ::gettimeofday(&time, nullptr);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

// One record: an Event of this moment whose field `what` holds `content`.
Status write_event(int file, std::string_view folder, std::size_t step, unsigned what,
                   std::string_view content) noexcept {
  Message event;
  put_double(event, 1, now());
  key(event, 2, 0);
  varint(event, step);
  put_bytes(event, what, content);
  Message record;
  const auto length = static_cast<std::uint64_t>(event.view().size());
  record.raw(length).raw(masked(crc32c({reinterpret_cast<const char*>(&length), sizeof length})));
  record << event.view();
  record.raw(masked(crc32c(event.view())));
  if (event.full() || record.full()) return {};  // a parameter with a name of kilobytes
  return write_output(file, record.view(), folder);
}
constexpr unsigned k_file_version = 3, k_summary = 5;

Status write_value(int file, std::string_view folder, std::size_t step, std::string_view tag, unsigned field,
                   std::string_view content, bool fixed) noexcept {
  Message value;
  put_bytes(value, 1, tag);
  if (fixed) {
    key(value, field, 5);
    value << content;
  } else {
    put_bytes(value, field, content);
  }
  Message summary;
  put_bytes(summary, 1, value.view());
  return write_event(file, folder, step, k_summary, summary.view());
}

Status write_scalar(int file, std::string_view folder, std::size_t step, std::string_view tag, double value) noexcept {
  const auto narrow = static_cast<float>(value);
  return write_value(file, folder, step, tag, 2, {reinterpret_cast<const char*>(&narrow), sizeof narrow}, true);
}

// HistogramProto: extremes, count, sums, and the counts in equal buckets between the extremes.
Status write_histogram(int file, std::string_view folder, std::size_t step, const nn::Parameter& parameter) noexcept {
  constexpr std::size_t k_buckets = 30;
  const std::span<const float> values(parameter.tensor.f32(), parameter.tensor.numel());
  if (values.empty()) return {};
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  const double least = static_cast<double>(*low), most = static_cast<double>(*high);
  if (!(least <= most)) return {};  // not numbers
  const double width = most > least ? (most - least) / k_buckets : 1;
  std::array<double, k_buckets> limits{}, counts{};
  double sum = 0, squares = 0;
  for (std::size_t i = 0; i < k_buckets; ++i) limits[i] = least + width * static_cast<double>(i + 1);
  for (const float narrow : values) {
    const double value = static_cast<double>(narrow);
    sum += value;
    squares += value * value;
    ++counts[std::min(static_cast<std::size_t>((value - least) / width), k_buckets - 1)];
  }
  Message histogram;
  put_double(histogram, 1, least);
  put_double(histogram, 2, most);
  put_double(histogram, 3, static_cast<double>(values.size()));
  put_double(histogram, 4, sum);
  put_double(histogram, 5, squares);
  put_bytes(histogram, 6, {reinterpret_cast<const char*>(limits.data()), sizeof limits});
  put_bytes(histogram, 7, {reinterpret_cast<const char*>(counts.data()), sizeof counts});
  return write_value(file, folder, step, parameter.name.view(), 5, histogram.view(), false);
}

// Text is a tensor of strings whose metadata names the plugin that shows it.
Status write_text(int file, std::string_view folder, std::string_view tag, std::string_view text) noexcept {
  Message plugin, metadata, tensor, value, summary;
  put_bytes(plugin, 1, "text");
  put_bytes(metadata, 1, plugin.view());
  key(tensor, 1, 0);
  varint(tensor, 7);  // DT_STRING
  put_bytes(tensor, 8, text);
  put_bytes(value, 1, tag);
  put_bytes(value, 9, metadata.view());
  put_bytes(value, 8, tensor.view());
  put_bytes(summary, 1, value.view());
  return write_event(file, folder, 0, k_summary, summary.view());
}

Status write_model(int file, std::string_view folder, const nn::Parameters& model) noexcept {
  Buffer<2048> text;
  text << "| parameter | shape | numbers |\n|---|---|--:|\n";
  for (const nn::Parameter& parameter : model.parameters()) {
    text << "| " << parameter.name.view() << " | [";
    for (int d = 0; d < parameter.tensor.rank(); ++d)
      text << (d ? "," : "") << static_cast<std::uint64_t>(parameter.tensor.dim(d));
    text << "] | " << static_cast<std::uint64_t>(parameter.tensor.numel()) << " |\n";
    if (text.view().size() > 1800) {
      text << "| … | | |\n";
      break;
    }
  }
  return write_text(file, folder, "model", text.view());
}

Result<int> open_events(std::string_view folder) noexcept {
  Buffer<4096> path;
  path << folder << std::string_view("\0", 1);
  if (path.full() || folder.empty()) return fail(Errc::invalid_argument, "log", "a path of 1 to 4000 bytes", folder);
  if (::mkdir(path.view().data(), 0777) != 0 && errno != EEXIST)
    return fail_system(errno, "log", "cannot make this folder", folder);
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  path.clear();
  path << folder << "/events.out.tfevents." << static_cast<std::uint64_t>(now()) << "." << std::string_view(host) << "."
       << static_cast<std::uint64_t>(::getpid());
  auto file = open_output(path.view());
  if (!file) return file;
  if (auto begun = write_event(*file, folder, 0, k_file_version, "brain.Event:2"); !begun) {
    close_output(*file);
    return fail(begun.error());
  }
  return file;
}

}  // namespace

void TensorBoard::operator()(Event& event) noexcept {
  Status status;
  const auto scalar = [&](std::string_view tag, double value, bool known = true) {
    if (status && known) status = write_scalar(file_, folder_, event.total_step, tag, value);
  };
  if (event.moment == Moment::run_begin) {
    auto opened = open_events(folder_);
    if (!opened) {
      event.failure = opened.error();
      return;
    }
    file_ = *opened;
    if (event.parameters) status = write_model(file_, folder_, *event.parameters);
  }
  if (file_ < 0) return;
  const EpochRecord& r = event.record;
  if (event.moment == Moment::step_end && options_.every_steps && event.total_step % options_.every_steps == 0) {
    scalar("loss/step", static_cast<double>(event.last_loss));
    scalar("lr", static_cast<double>(event.lr));
    scalar("gradient_norm", static_cast<double>(event.gradient_norm), event.gradient_norm >= 0);
    scalar("examples_per_second", static_cast<double>(event.examples) / std::max(event.seconds, 1e-9));
  }
  if (event.moment == Moment::epoch_end) {
    scalar("loss/train", r.loss);
    scalar("loss/validation", r.validation_loss, r.validation_loss >= 0);
    scalar("accuracy/train", r.accuracy, r.accuracy >= 0);
    scalar("accuracy/validation", r.validation_accuracy, r.validation_accuracy >= 0);
    for (std::size_t i = 0; event.metrics && i < event.metrics->count; ++i)
      scalar(event.metrics->list[i].name(), r.metrics[i], r.validation_loss >= 0);
    if (options_.histograms && event.parameters) {
      for (const nn::Parameter& parameter : event.parameters->parameters()) {
        if (status) status = write_histogram(file_, folder_, event.total_step, parameter);
      }
    }
  }
  if (!status) event.failure = status.error();
  if (!status || event.moment == Moment::run_end) close_output(file_);
}

}  // namespace qorus::train
