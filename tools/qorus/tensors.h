// The tensors of a file of any format, for the commands that look at files; and the progress of those that write them. Included after the
// standard headers: it imports.
#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

import qorus;
import qorus.llm;

// A line that is written over by the next; nothing stays after the last.
void show_progress(std::string_view tensor, std::size_t done, std::size_t tensors);
// The most that the process has had in memory, pages of mapped files included.
double peak_megabytes();

// GGUF, `.qorus`, safetensors (a file, or all of a folder) or npz, told apart by content.
class Tensors {
 public:
  static qorus::Result<Tensors> open(const std::string& path);

  struct Line {
    std::string name, type;
    qorus::Shape shape;
    std::size_t bytes = 0;
  };
  [[nodiscard]] const std::vector<Line>& lines() const { return lines_; }  // as in the file
  [[nodiscard]] const Line* find(std::string_view name) const;
  // Valid until the next call, if the file is an archive.
  [[nodiscard]] qorus::Result<qorus::Tensor> tensor(const std::string& name);
  [[nodiscard]] const qorus::io::Gguf* gguf() const;  // of a GGUF or `.qorus` file; else null
  [[nodiscard]] std::string_view format() const { return format_; }

 private:
  qorus::Status add(const std::string& path);
  std::optional<qorus::formats::Native> native_;
  std::vector<qorus::io::SafeTensors> shards_;
  std::optional<qorus::io::Npz> npz_;
  qorus::Owned array_;
  std::vector<Line> lines_;
  std::string_view format_;
};
