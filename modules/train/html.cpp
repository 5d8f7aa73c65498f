// Bodies of qorus.train:logger: the report, one page of HTML with its pictures inside as SVG.
module;
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>
module qorus.train;
import qorus.std;
import :output;

namespace qorus::train {
namespace {

constexpr std::string_view k_head = R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<style>
:root{--back:#fafaf8;--card:#fff;--ink:#1d2129;--soft:#667085;--line:#e4e7ec;--a:#2563eb;--b:#d9480f;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--back:#14161a;--card:#1d2026;--ink:#e6e8ec;--soft:#98a2b3;--line:#33373f;--a:#7aa2ff;--b:#ff9f6b}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px 16px 48px}h1{font-size:1.5rem;margin:.2em 0 .1em}h2{font-size:1rem;margin:0 0 .6em}
p{margin:.2em 0;color:var(--soft)}.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(46%,124px),1fr));gap:12px;margin:18px 0}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:16px}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 16px;overflow-x:auto}
.card b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}.card span{color:var(--soft);font-size:.85rem}
svg{width:100%;height:auto;display:block;overflow:visible}text{fill:var(--soft);font:12px system-ui,sans-serif}.grid-line{stroke:var(--line)}
.a{stroke:var(--a)}.b{stroke:var(--b)}.a,.b{fill:none;stroke-width:2.5;stroke-linejoin:round}.dot.a{fill:var(--a)}.dot.b{fill:var(--b)}
.key{margin:.3em 0 0;font-size:.85rem}.key i{display:inline-block;width:14px;height:3px;border-radius:2px;margin:0 6px 3px 0;background:var(--a)}
.key i.two{background:var(--b);margin-left:16px}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.85rem}
td,th{padding:4px 9px;text-align:right;border-bottom:1px solid var(--line);font-weight:400}th{color:var(--soft)}td:first-child,th:first-child{text-align:left}
.samples{display:flex;flex-wrap:wrap;gap:14px}.samples figure{margin:0;min-width:0}.samples img{width:min(112px,20vw);image-rendering:pixelated;border-radius:6px;display:block}
figcaption{color:var(--soft);font-size:.85rem;margin-top:4px}pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;padding:10px 12px;border-radius:8px;background:var(--back);font-size:.85rem}
.wide{flex-basis:100%}summary{cursor:pointer;color:var(--soft);margin-bottom:8px}.after{margin-top:16px}
@media(max-width:600px){text{font-size:19px}}
.matrix td{border:1px solid var(--line);text-align:center;min-width:2.6em}
</style>)";

// The page on its way to the file. After a failure it writes nothing more.
class Page {
 public:
  explicit Page(AtomicFile& file) noexcept : file_(&file) {}
  Page& operator<<(std::string_view text) noexcept { return put(text); }
  Page& operator<<(const Text& text) noexcept { return put(text.view()); }
  template <class T>
    requires std::is_arithmetic_v<T>
  Page& operator<<(T value) noexcept {
    if constexpr (std::is_integral_v<T>) return put(static_cast<std::uint64_t>(value));
    return put(static_cast<double>(value));
  }
  // A number as people read it: so many digits.
  Page& number(double value, int digits_wanted = 4) noexcept {
    char digits[40];
    const double size = std::abs(value);
    if (size >= 1000 && size < 1e7) {
      std::snprintf(digits, sizeof digits, "%.0f", value);
    } else if (size > 0 && size < 1e-3) {
      std::snprintf(digits, sizeof digits, "%.1e", value);
    } else {
      std::snprintf(digits, sizeof digits, "%.*g", digits_wanted, value);
    }
    return *this << std::string_view(digits);
  }
  Page& escaped(std::string_view text) noexcept {
    for (const char& c : text) {
      if (c == '<')
        *this << "&lt;";
      else if (c == '"')
        *this << "&quot;";
      else if (c == '&')
        *this << "&amp;";
      else
        *this << std::string_view(&c, 1);
    }
    return *this;
  }
  [[nodiscard]] Status finish() noexcept {
    flush();
    return status_;
  }

 private:
  template <class T>
  Page& put(T value) noexcept {
    if (buffer_.view().size() > 12000) flush();
    buffer_ << value;
    return *this;
  }
  void flush() noexcept {
    if (status_) status_ = file_->write(buffer_.view());
    buffer_.clear();
  }
  AtomicFile* file_;
  Buffer<16384> buffer_;
  Status status_;
};

// Where values lie in the picture.
struct Scale {
  double low, high;
  static constexpr double k_left = 66, k_right = 628, k_top = 12, k_bottom = 214;
  [[nodiscard]] double y(double value) const noexcept {
    return k_bottom - (k_bottom - k_top) * (value - low) / (high - low);
  }
  [[nodiscard]] static double x(std::size_t i, std::size_t n) noexcept {
    return n > 1 ? k_left + (k_right - k_left) * static_cast<double>(i) / static_cast<double>(n - 1)
                 : (k_left + k_right) / 2;
  }
};

template <class Get>
Scale scale_of(std::span<const EpochRecord> records, Get&& get, std::size_t curves) noexcept {
  double low = 1e300, high = -1e300;
  for (const EpochRecord& r : records) {
    for (std::size_t c = 0; c < curves; ++c) {
      const double value = get(r, c);
      if (!std::isfinite(value)) continue;
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  if (low > high) low = 0, high = 1;
  if (high - low < 1e-12 * std::max(std::abs(high), 1e-12)) {
    low -= std::abs(low) * 0.05 + 1e-9;
    high += std::abs(high) * 0.05 + 1e-9;
  }
  return {low, high};
}

// get(record, curve): the value, or NaN.
template <class Get>
void chart(Page& page, std::string_view title, std::span<const std::string_view> names,
           std::span<const EpochRecord> records, Get&& get) noexcept {
  const Scale scale = scale_of(records, get, names.size());
  page << "<section class=\"card\"><h2>";
  page.escaped(title) << "</h2><svg viewBox=\"0 0 640 240\" role=\"img\">";
  for (int tick = 0; tick <= 4; ++tick) {
    const double value = scale.low + (scale.high - scale.low) * tick / 4, y = scale.y(value);
    page << "<line class=\"grid-line\" x1=\"66\" x2=\"628\" y1=\"" << y << "\" y2=\"" << y
         << "\"/><text text-anchor=\"end\" x=\"60\" y=\"" << y + 4 << "\">";
    page.number(std::abs(value) < 1e-4 * (scale.high - scale.low) ? 0 : value, 3) << "</text>";
  }
  const std::size_t n = records.size();
  page << "<text x=\"66\" y=\"236\">epoch " << records.front().epoch
       << "</text><text text-anchor=\"end\" x=\"628\" y=\"236\">epoch " << records.back().epoch << "</text>";
  for (std::size_t c = 0; c < names.size(); ++c) {
    const std::string_view colour = c == 0 ? "a" : "b";
    page << "<polyline class=\"" << colour << "\" points=\"";
    for (std::size_t i = 0; i < n; ++i) {
      const double value = get(records[i], c);
      if (std::isfinite(value)) page << Scale::x(i, n) << "," << scale.y(value) << " ";
    }
    page << "\"/>";
    const double last = get(records[n - 1], c);
    if (std::isfinite(last)) {
      page << "<circle class=\"dot " << colour << "\" r=\"3\" cx=\"" << Scale::x(n - 1, n) << "\" cy=\""
           << scale.y(last) << "\"/>";
    }
  }
  page << "</svg><p class=\"key\">";
  for (std::size_t c = 0; c < names.size(); ++c) {
    page << (c == 0 ? "<i></i>" : "<i class=\"two\"></i>");
    page.escaped(names[c]);
  }
  page << "</p></section>\n";
}

void charts(Page& page, const Event& event, std::span<const EpochRecord> records) noexcept {
  const EpochRecord& last = records.back();
  const bool validated = last.validation_loss >= 0;
  const double nothing = std::nan("");
  const auto pair = [&](std::string_view title, double EpochRecord::* a, double EpochRecord::* b, bool both) {
    const std::array<std::string_view, 2> names{"training", "validation"};
    chart(page, title, std::span(names).first(both ? 2 : 1), records, [&](const EpochRecord& r, std::size_t c) {
      const double value = r.*(c == 0 ? a : b);
      return value < 0 ? nothing : value;
    });
  };
  const auto single = [&](std::string_view title, auto&& get) {
    const std::array<std::string_view, 1> names{title};
    chart(page, title, names, records, [&](const EpochRecord& r, std::size_t) { return get(r); });
  };
  page << "<div class=\"grid\">";
  pair("Loss", &EpochRecord::loss, &EpochRecord::validation_loss, validated);
  if (last.accuracy >= 0) pair("Accuracy", &EpochRecord::accuracy, &EpochRecord::validation_accuracy, validated);
  for (std::size_t m = 0; validated && event.metrics && m < event.metrics->count; ++m)
    single(event.metrics->list[m].name(), [m](const EpochRecord& r) { return r.metrics[m]; });
  single("Learning rate", [](const EpochRecord& r) { return r.lr; });
  if (last.gradient_norm >= 0) single("Gradient norm", [](const EpochRecord& r) { return r.gradient_norm; });
  page << "</div>";
}

void card(Page& page, std::string_view name, double value) noexcept {
  page << "<div class=\"card\"><b>";
  page.number(value) << "</b><span>" << name << "</span></div>";
}

void cards(Page& page, const Event& event, const EpochRecord& last) noexcept {
  page << "<div class=\"cards\">";
  card(page, "training loss", last.loss);
  if (last.validation_loss >= 0) card(page, "validation loss", last.validation_loss);
  if (last.accuracy >= 0) card(page, "training accuracy", last.accuracy);
  if (last.validation_accuracy >= 0) card(page, "validation accuracy", last.validation_accuracy);
  card(page, "steps", static_cast<double>(last.step));
  card(page, "seconds", event.run_seconds);
  card(page, "examples per second", last.examples_per_second);
  page << "</div>";
}

void confusion(Page& page, const Confusion& matrix) noexcept {
  constexpr std::size_t k_most_shown = 40;
  const std::size_t n = matrix.classes();
  if (n == 0 || n > k_most_shown) return;
  page << "<section class=\"card\"><h2>Confusion: rows are the true classes, columns the predicted</h2><table "
          "class=\"matrix\"><tr><th></th>";
  for (std::size_t c = 0; c < n; ++c) page << "<th>" << c << "</th>";
  page << "</tr>";
  for (std::size_t r = 0; r < n; ++r) {
    std::uint64_t sum = 0;
    for (std::size_t c = 0; c < n; ++c) sum += matrix.at(r, c);
    page << "<tr><th>" << r << "</th>";
    for (std::size_t c = 0; c < n; ++c) {
      const double share = sum ? static_cast<double>(matrix.at(r, c)) / static_cast<double>(sum) : 0;
      page << "<td style=\"background:color-mix(in srgb,var(" << (r == c ? "--a" : "--b") << ") "
           << std::round(share * 60) << "%,transparent)\">" << matrix.at(r, c) << "</td>";
    }
    page << "</tr>";
  }
  page << "</table></section>\n";
}

void model(Page& page, const nn::Parameters& parameters) noexcept {
  constexpr std::size_t k_most_open = 24;  // rows that are shown without being asked for
  const bool folded = parameters.parameters().size() > k_most_open;
  page << "<section class=\"card\"><h2>Parameters</h2>";
  if (folded) {
    page << "<details><summary>" << parameters.parameters().size() << " tensors, " << parameters.parameter_count()
         << " numbers</summary>";
  }
  page << "<table><tr><th>name</th><th>shape</th><th>numbers</th></tr>";
  for (const nn::Parameter& parameter : parameters.parameters()) {
    page << "<tr><td>";
    page.escaped(parameter.name.view()) << "</td><td>";
    for (int d = 0; d < parameter.tensor.rank(); ++d)
      page << (d ? " × " : "") << static_cast<std::size_t>(parameter.tensor.dim(d));
    page << "</td><td>" << parameter.tensor.numel() << "</td></tr>";
  }
  page << "<tr><td>together</td><td></td><td>" << parameters.parameter_count() << "</td></tr></table>";
  page << (folded ? "</details></section>\n" : "</section>\n");
}

void environment(Page& page, const Event& event) noexcept {
  const CpuInfo cpu = cpu_info();
  const auto row = [&](std::string_view name, std::string_view value) {
    page << "<tr><td>" << name << "</td><td>";
    page.escaped(value) << "</td></tr>";
  };
  page << "<section class=\"card\"><h2>Environment</h2><table>";
  char text[160];
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  if (::gmtime_r(&now, &utc) && std::strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &utc) > 0) row("written", text);
  utsname system{};
  if (::uname(&system) == 0) {
    std::snprintf(text, sizeof text, "%.60s %.40s %.40s", system.sysname, system.release, system.machine);
    row("system", text);
  }
  std::snprintf(text, sizeof text, "%d, kernels for %s", cpu_count(), cpu.isa);
  row("processors", text);
  const auto pages = static_cast<double>(::sysconf(_SC_PHYS_PAGES)),
             size = static_cast<double>(::sysconf(_SC_PAGESIZE));
  std::snprintf(text, sizeof text, "%.1f GiB", pages * size / (1024.0 * 1024 * 1024));
  row("memory", text);
  row("compiler", "Clang " __clang_version__);
  std::snprintf(text, sizeof text, "%zu steps, %.1f s", event.total_step, event.run_seconds);
  row("this run", text);
  page << "</table></section>\n";
}

// The bytes in base 64, as they come.
class Base64 {
 public:
  explicit Base64(Page& page) noexcept : page_(&page) {}
  void put(std::uint8_t byte) noexcept {
    bits_ = bits_ << 8 | byte;
    if (++count_ == 3) flush();
  }
  void flush() noexcept {
    constexpr std::string_view k_letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (count_ == 0) return;
    const std::uint32_t all = bits_ << (8 * (3 - count_));
    char four[4];
    for (int i = 0; i < 4; ++i) four[i] = i <= count_ ? k_letters[all >> (18 - 6 * i) & 63] : '=';
    *page_ << std::string_view(four, 4);
    bits_ = 0;
    count_ = 0;
  }

 private:
  Page* page_;
  std::uint32_t bits_ = 0;
  int count_ = 0;
};

// A bitmap of 24 bits a pixel, bottom row first, each padded to four bytes.
void bitmap(Page& page, const Tensor& image) noexcept {
  const bool colour = image.rank() == 3 && image.dim(0) == 3, bytes = image.dtype() == DType::u8;
  const std::int64_t height = image.dim(-2), width = image.dim(-1);
  const auto row = static_cast<std::uint32_t>(width * 3 + 3) / 4 * 4;
  Base64 out(page);
  const auto number = [&](std::uint32_t value, int count) {
    for (int i = 0; i < count; ++i) out.put(static_cast<std::uint8_t>(value >> (8 * i)));
  };
  number(0x4d42, 2);
  number(54 + row * static_cast<std::uint32_t>(height), 4);
  for (const std::uint32_t value :
       {0u, 54u, 40u, static_cast<std::uint32_t>(width), static_cast<std::uint32_t>(height)})
    number(value, 4);
  number(1 | 24u << 16, 4);
  for (int i = 0; i < 6; ++i) number(0, 4);
  for (std::int64_t y = height; y-- > 0;) {
    for (std::int64_t x = 0; x < width; ++x) {
      for (std::int64_t c = 3; c-- > 0;) {  // blue, green, red
        const std::int64_t at = ((colour ? c * height : 0) + y) * width + x;
        const float value = bytes ? static_cast<float>(image.u8()[at]) : image.f32()[at] * 255;
        out.put(static_cast<std::uint8_t>(std::isfinite(value) ? std::clamp(value, 0.0f, 255.0f) + 0.5f : 0));
      }
    }
    number(0, static_cast<int>(row - static_cast<std::uint32_t>(width) * 3));
  }
  out.flush();
}

Status write_page(std::string_view path, const ReportOptions& options, const Event& event,
                  std::span<const EpochRecord> records) noexcept {
  auto file = AtomicFile::create(path);
  if (!file) return fail(file.error());
  Page page(*file);
  page << k_head << "<title>";
  page.escaped(options.title) << "</title></head><body><main><h1>";
  page.escaped(options.title) << "</h1><p>" << records.size() << " of " << static_cast<std::size_t>(event.epochs)
                              << " epochs</p>";
  if (event.failure.code != Errc::ok) {
    page << "<p>Ended by an error: ";
    page.escaped(event.failure.message().view()) << "</p>";
  }
  cards(page, event, records.back());
  charts(page, event, records);
  if (options.samples) {
    page << "<section class=\"card after\"><h2>Samples</h2><div class=\"samples\">";
    SamplePage samples(&page);
    options.samples(samples);
    page << "</div></section>\n";
  }
  page << "<div class=\"grid after\">";
  if (event.confusion) confusion(page, *event.confusion);
  if (event.parameters) model(page, *event.parameters);
  environment(page, event);
  page << "</div></main></body></html>\n";
  if (auto written = page.finish(); !written) return written;
  return file->commit();
}

}  // namespace

void SamplePage::text(std::string_view caption, std::string_view body) noexcept {
  Page& page = *static_cast<Page*>(page_);
  page << "<figure class=\"wide\"><pre>";
  page.escaped(body) << "</pre><figcaption>";
  page.escaped(caption) << "</figcaption></figure>";
}

void SamplePage::picture(std::string_view caption, const Tensor& image) noexcept {
  constexpr std::int64_t k_most = 2048;  // pixels of a side
  Status fits = image.check("picture");
  const bool shown = fits && (image.rank() == 2 || (image.rank() == 3 && (image.dim(0) == 1 || image.dim(0) == 3))) &&
                     image.dim(-1) > 0 && image.dim(-1) <= k_most && image.dim(-2) > 0 && image.dim(-2) <= k_most &&
                     (image.dtype() == DType::u8 || image.dtype() == DType::f32) && image.contiguous();
  if (!shown && fits)
    fits = fail(Errc::invalid_size, "picture", "u8 or f32 [height, width] or [1 or 3, height, width]",
                image.shape().dims());
  if (!fits) return text(caption, fits.error().message().view());
  Page& page = *static_cast<Page*>(page_);
  page << "<figure><img alt=\"\" src=\"data:image/bmp;base64,";
  bitmap(page, image);
  page << "\"><figcaption>";
  page.escaped(caption) << "</figcaption></figure>";
}

void Report::operator()(Event& event) noexcept {
  if (event.moment != Moment::run_end || !event.history || event.history->empty()) return;
  if (auto written = write_page(path_, options_, event, event.history->span());
      !written && event.failure.code == Errc::ok)
    event.failure = written.error();
}

}  // namespace qorus::train
