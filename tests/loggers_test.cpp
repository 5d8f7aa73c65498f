// The loggers: what they leave behind is read again by other means, none of it costs an allocation per step, and a place that cannot be
// written ends the run with that error.
#include <dirent.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/files.h"
#include "tests/json.h"
#include "tests/testing.h"

import qorus.train;

using namespace qorus;

namespace {

data::Split points() {
  const auto make = [](std::size_t n, float phase) {
    std::vector<float> x(2 * n);
    std::vector<std::int32_t> y(n);
    for (std::size_t i = 0; i < n; ++i) {
      x[2 * i] = std::sin(static_cast<float>(3 * i) + phase);
      x[2 * i + 1] = std::cos(static_cast<float>(5 * i));
      y[i] = x[2 * i] > x[2 * i + 1];
    }
    const auto count = static_cast<std::int64_t>(n);
    return std::move(
        *data::Dataset::create(std::move(*Owned::from<float>(std::span<const float>(x), {count, 2})),
                               std::move(*Owned::from<std::int32_t>(std::span<const std::int32_t>(y), {count}))));
  };
  return {make(64, 0), make(32, 1)};
}

Result<train::Fit<decltype(nn::linear(8) | nn::relu() | nn::linear(2))>> run(const train::Callbacks& callbacks) {
  static const data::Split split = points();
  return train::fit(nn::linear(8) | nn::relu() | nn::linear(2), split,
                    {.epochs = 3,
                     .batch = 16,
                     .seed = 2,
                     .gradient_norm = true,
                     .metrics = {metric::f1(), metric::roc_auc()},
                     .callbacks = callbacks});
}

std::vector<std::vector<std::string>> cells(const std::string& text) {
  std::vector<std::vector<std::string>> rows;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    rows.emplace_back();
    std::istringstream parts(line);
    for (std::string cell; std::getline(parts, cell, ',');) rows.back().push_back(cell);
  }
  return rows;
}

// --- an independent reader of event files ---

// CRC-32C with a table of 256, as RFC 3720 describes it.
std::uint32_t castagnoli(std::string_view bytes) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> made{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = c & 1 ? 0x82f63b78u ^ (c >> 1) : c >> 1;
      made[i] = c;
    }
    return made;
  }();
  std::uint32_t crc = 0xffffffffu;
  for (const char c : bytes) crc = table[(crc ^ static_cast<unsigned char>(c)) & 255] ^ (crc >> 8);
  return crc ^ 0xffffffffu;
}
struct Wire {
  std::string_view bytes;
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; !bytes.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes[0]);
      bytes.remove_prefix(1);
      value |= static_cast<std::uint64_t>(byte & 127) << shift;
      if (byte < 128) break;
    }
    return value;
  }
  std::string_view take(std::size_t n) {
    const std::string_view part = bytes.substr(0, n);
    bytes.remove_prefix(part.size());
    return part;
  }
};
// The fields of a message: number -> contents (of a varint its value as eight bytes).
std::multimap<unsigned, std::string> fields(std::string_view message) {
  std::multimap<unsigned, std::string> found;
  for (Wire wire{message}; !wire.bytes.empty();) {
    const std::uint64_t key = wire.varint();
    std::string content;
    if ((key & 7) == 0) {
      const std::uint64_t value = wire.varint();
      content.assign(reinterpret_cast<const char*>(&value), 8);
    } else if ((key & 7) == 1) {
      content = wire.take(8);
    } else if ((key & 7) == 2) {
      content = wire.take(wire.varint());
    } else if ((key & 7) == 5) {
      content = wire.take(4);
    } else {
      ADD_FAILURE() << "wire type " << (key & 7);
      return found;
    }
    found.emplace(static_cast<unsigned>(key >> 3), content);
  }
  return found;
}
template <class T>
T number(const std::string& bytes) {
  T value{};
  EXPECT_EQ(bytes.size(), sizeof value);
  std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof value));
  return value;
}
std::vector<std::string> records(const std::string& file) {
  std::vector<std::string> all;
  for (std::size_t at = 0; at < file.size();) {
    const auto unmasked = [&](std::size_t place) {
      const std::uint32_t rotated = number<std::uint32_t>(file.substr(place, 4)) - 0xa282ead8u;
      return (rotated >> 17) | (rotated << 15);
    };
    const auto length = number<std::uint64_t>(file.substr(at, 8));
    EXPECT_EQ(unmasked(at + 8), castagnoli(std::string_view(file).substr(at, 8)));
    all.push_back(file.substr(at + 12, length));
    EXPECT_EQ(all.back().size(), length);
    EXPECT_EQ(unmasked(at + 12 + length), castagnoli(all.back()));
    at += 16 + length;
  }
  return all;
}
std::string only_file_in(const std::string& folder) {
  std::string found;
  if (DIR* opened = ::opendir(folder.c_str())) {
    while (const dirent* entry = ::readdir(opened)) {
      if (entry->d_name[0] != '.') found = folder + "/" + entry->d_name;
    }
    ::closedir(opened);
  }
  return found;
}

}  // namespace

TEST(Loggers, TheTableHasEveryEpoch) {
  qorus_test::TemporaryFolder folder;
  const std::string path = folder / "log.csv";
  auto done = run({train::csv_logger(path)});
  ASSERT_OK(done);
  const auto rows = cells(qorus_test::read_file(path));
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[0],
            (std::vector<std::string>{"epoch", "step", "loss", "accuracy", "validation_loss", "validation_accuracy",
                                      "f1", "roc_auc", "lr", "gradient_norm", "seconds", "examples_per_second"}));
  for (std::size_t e = 0; e < 3; ++e) {
    const train::EpochRecord& record = done->history.epochs[e];
    ASSERT_EQ(rows[e + 1].size(), rows[0].size());
    EXPECT_EQ(std::stod(rows[e + 1][2]), record.loss);
    EXPECT_EQ(std::stod(rows[e + 1][5]), record.validation_accuracy);
    EXPECT_EQ(std::stod(rows[e + 1][7]), record.metrics[1]);
    EXPECT_GT(std::stod(rows[e + 1][9]), 0);
  }
}

TEST(Loggers, EveryLineOfJsonIsAnObject) {
  qorus_test::TemporaryFolder folder;
  const std::string path = folder / "log.jsonl";
  auto done = run({train::json_logger(path, 2)});
  ASSERT_OK(done);
  std::istringstream lines(qorus_test::read_file(path));
  std::size_t steps = 0, epochs = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto object = qorus_test::JsonParser(line).value();
    if (object["validation_loss"].text.empty()) {
      EXPECT_EQ(object["step"].text, std::to_string(2 * ++steps));
    } else {
      EXPECT_EQ(std::stod(object["loss"].text), done->history.epochs[epochs++].loss);
    }
  }
  EXPECT_EQ(steps, 6u);
  EXPECT_EQ(epochs, 3u);
}

TEST(Loggers, TensorBoardsFileIsReadByAnother) {
  qorus_test::TemporaryFolder folder;
  const std::string place = folder / "tb";
  auto done = run({train::tensor_board(place, {.every_steps = 4})});
  ASSERT_OK(done);
  const auto all = records(qorus_test::read_file(only_file_in(place)));
  ASSERT_GT(all.size(), 10u);
  EXPECT_EQ(fields(all[0]).find(3)->second, "brain.Event:2");
  std::map<std::string, std::vector<float>> scalars;
  std::size_t histograms = 0, texts = 0;
  for (const std::string& record : all) {
    const auto event = fields(record);
    EXPECT_GT(number<double>(event.find(1)->second), 1.6e9);
    const auto summary = event.find(5);
    if (summary == event.end()) continue;
    const auto value = fields(fields(summary->second).find(1)->second);
    const std::string tag = value.find(1)->second;
    if (value.count(2)) scalars[tag].push_back(number<float>(value.find(2)->second));
    if (value.count(5)) {
      const auto histogram = fields(value.find(5)->second);
      const std::string counts = histogram.find(7)->second;
      double sum = 0;
      for (std::size_t i = 0; i < counts.size(); i += 8) sum += number<double>(counts.substr(i, 8));
      EXPECT_EQ(sum, number<double>(histogram.find(3)->second)) << tag;
      EXPECT_EQ(histogram.find(6)->second.size(), counts.size());
      ++histograms;
    }
    if (value.count(8)) {
      EXPECT_NE(fields(value.find(8)->second).find(8)->second.find("0.weight"), std::string::npos);
      ++texts;
    }
  }
  EXPECT_EQ(scalars["loss/train"].size(), 3u);
  EXPECT_EQ(scalars["loss/train"][2], static_cast<float>(done->history.epochs[2].loss));
  EXPECT_EQ(scalars["loss/step"].size(), 3u);
  EXPECT_EQ(scalars["roc_auc"][1], static_cast<float>(done->history.epochs[1].metrics[1]));
  EXPECT_EQ(histograms, 3u * 4);
  EXPECT_EQ(texts, 1u);
}

TEST(Loggers, TheReportIsOnePageThatNeedsNothingElse) {
  qorus_test::TemporaryFolder folder;
  const std::string path = folder / "run.html";
  ASSERT_OK(run({train::report(path)}));
  const std::string page = qorus_test::read_file(path);
  for (const char* part : {"<!doctype html>", "prefers-color-scheme:dark", "name=\"viewport\"", ">Loss<", ">Accuracy<",
                           ">roc_auc<", ">Learning rate<", ">Gradient norm<", ">Confusion", "0.weight", "</html>"})
    EXPECT_NE(page.find(part), page.npos) << part;
  EXPECT_EQ(page.find("http"), page.npos);
  EXPECT_EQ(page.find("nan"), page.npos);
  for (const char* tag : {"svg", "section", "table", "p", "main"}) {
    const auto count = [&](const std::string& text) {
      std::size_t n = 0;
      for (auto at = page.find(text); at != page.npos; at = page.find(text, at + 1)) ++n;
      return n;
    };
    EXPECT_EQ(count("<" + std::string(tag) + ">") + count("<" + std::string(tag) + " "),
              count("</" + std::string(tag) + ">"))
        << tag;
  }
}

TEST(Loggers, TheReportShowsSamples) {
  qorus_test::TemporaryFolder folder;
  const std::string path = folder / "run.html";
  const std::vector<std::uint8_t> grey{0, 10, 255, 7, 80, 90};                             // [2, 3]
  const std::vector<float> colours{0, 1, 0.5f, 0.2f, -3, 9, NAN, 0.6f, 0.1f, 0.4f, 1, 0};  // [3, 2, 2]
  const auto samples = [&](train::SamplePage& page) noexcept {
    page.picture("a <grey> one", Tensor::borrow(std::span<const std::uint8_t>(grey), {2, 3}));
    page.picture("colours", Tensor::borrow(std::span<const float>(colours), {3, 2, 2}));
    page.picture("a row", Tensor::borrow(std::span<const float>(colours), {12}));
    page.text("what it wrote", "if (a < b && c)\n  return \"x\";");
  };
  ASSERT_OK(run({train::report(path, {.title = "Two & two", .samples = samples})}));
  const std::string page = qorus_test::read_file(path);
  for (const char* part : {"<title>Two &amp; two</title>", "<h1>Two &amp; two</h1>", "a &lt;grey> one", ">Environment<",
                           "if (a &lt; b &amp;&amp; c)\n  return", "[height, width]"})
    EXPECT_NE(page.find(part), page.npos) << part;
  std::vector<std::string> bitmaps;
  for (auto at = page.find("base64,"); at != page.npos; at = page.find("base64,", at + 1)) {
    std::string bytes;
    std::uint32_t bits = 0, count = 0;
    for (auto i = at + 7; page[i] != '"' && page[i] != '='; ++i) {
      bits = bits << 6 |
             static_cast<std::uint32_t>(
                 std::string_view("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/").find(page[i]));
      if ((count += 6) >= 8) bytes += static_cast<char>(bits >> (count -= 8));
    }
    bitmaps.push_back(bytes);
  }
  ASSERT_EQ(bitmaps.size(), 2u);
  const auto bytes_of = [](const std::string& file) {
    return std::vector<int>(reinterpret_cast<const unsigned char*>(file.data()) + 54,
                            reinterpret_cast<const unsigned char*>(file.data()) + file.size());
  };
  EXPECT_EQ(bitmaps[0].size(), 54u + 2 * 12);  // rows of 9 bytes, padded; the lower one first
  EXPECT_EQ(bytes_of(bitmaps[0]), (std::vector<int>{7, 7, 7, 80, 80, 80, 90,  90,  90,  0, 0, 0,  //
                                                    0, 0, 0, 10, 10, 10, 255, 255, 255, 0, 0, 0}));
  EXPECT_EQ(bytes_of(bitmaps[1]), (std::vector<int>{255, 0, 128, 0, 153, 51, 0, 0,  // blue, green, red
                                                    26, 0, 0, 102, 255, 255, 0, 0}));
}

TEST(Loggers, AllOfThemTogetherAllocateNothingPerStep) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  qorus_test::TemporaryFolder folder;
  const std::string csv = folder / "a.csv", json = folder / "a.jsonl", board = folder / "tb", page = folder / "a.html";
  std::uint64_t before = 0, worst = 0;
  const auto watch = [&](train::Event& event) noexcept {
    if (event.moment == train::Moment::step_end && event.step > 1)
      worst = std::max(worst, qorus_test::allocations() - before);
    before = qorus_test::allocations();
  };
  ASSERT_OK(run({train::csv_logger(csv), train::json_logger(json, 1), train::tensor_board(board, {.every_steps = 1}),
                 train::report(page), train::reduce_on_plateau(), train::early_stopping(), train::terminate_on_nan(),
                 train::time_limit(1000), watch}));
  EXPECT_EQ(worst, 0u);
}

TEST(Loggers, APlaceThatCannotBeWrittenEndsTheRun) {
  qorus_test::TemporaryFolder folder;
  const std::string nowhere = folder / "no/such/file";
  EXPECT_FAILS(run({train::csv_logger(nowhere)}), Errc::not_found);
  EXPECT_FAILS(run({train::json_logger(nowhere)}), Errc::not_found);
  EXPECT_FAILS(run({train::tensor_board(nowhere)}), Errc::not_found);
  EXPECT_FAILS(run({train::report(nowhere)}), Errc::not_found);
  EXPECT_FAILS(run({train::csv_logger("/dev/full")}), Errc::io);
  EXPECT_FAILS(run({train::model_checkpoint({.path = nowhere})}), Errc::not_found);
}

TEST(Loggers, AModelCheckpointKeepsTheLastOnes) {
  qorus_test::TemporaryFolder folder;
  const std::string pattern = folder / "model-{epoch}.safetensors", best = folder / "best.safetensors";
  ASSERT_OK(run({train::model_checkpoint({.path = pattern, .keep = 2}),
                 train::model_checkpoint({.path = best, .best_only = true})}));
  EXPECT_TRUE(qorus_test::read_file(folder / "model-1.safetensors").empty());
  EXPECT_FALSE(qorus_test::read_file(folder / "model-2.safetensors").empty());
  EXPECT_FALSE(qorus_test::read_file(folder / "model-3.safetensors").empty());
  EXPECT_FALSE(qorus_test::read_file(best).empty());
}
