// What language models learn from: files of text, mapped, and their ids, mapped as well, so that neither need fit into memory.
export module qorus.tune:corpus;
import qorus.std;
import qorus.tensor;
import qorus.text;

export namespace qorus::tune {

// A text, or many. Movable.
class Corpus {
 public:
  // A file; or all files of a folder and of the folders in it, but for those whose names begin with a dot, in the order of their paths.
  // The last `validation` of all bytes is kept apart; where the border falls into a text, it is cut at the next end of a line.
  // Errors: those of MappedFile; invalid_argument (validation is not in [0, 1)), invalid_size (no text at all), unsupported (folders more than
  // 64 deep), out_of_memory.
  [[nodiscard]] static Result<Corpus> open(std::string_view path, double validation = 0.1) noexcept;

  // Texts, in order; valid as long as this lives, also where it is moved. Bytes that need not be UTF-8.
  [[nodiscard]] std::span<const std::string_view> train() const noexcept { return train_.span(); }
  [[nodiscard]] std::span<const std::string_view> validation() const noexcept { return validation_.span(); }
  // Errc::io, with the file's name, if a text could not be read to its end, or its file is shorter than it was: to be asked when all of it
  // was read.
  [[nodiscard]] Status whole() const noexcept;
  [[nodiscard]] std::size_t files() const noexcept { return files_.size(); }
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }  // of all of them

 private:
  [[nodiscard]] Status add(std::string_view path) noexcept;
  [[nodiscard]] Status divide(double validation) noexcept;
  struct File {
    MappedFile bytes;
    List<char> path;
  };
  List<File> files_;
  List<std::string_view> train_, validation_;
  std::uint64_t bytes_ = 0;
};

// The ids of texts one after the other, with the tokenizer's end-of-text between two of them. Two bytes each, or four where a vocabulary
// has more pieces. Movable.
class Tokens {
 public:
  Tokens() noexcept = default;
  // They are written to a new file at `path`, which is mapped and has no name any more when this returns. Memory: for 16 MiB of
  // text. A longer text is cut where a line ends between letters, which changes no ids of byte-level vocabularies. Errors: those of Tokenizer::encode,
  // AtomicFile and MappedFile.
  [[nodiscard]] static Result<Tokens> encode(const text::Tokenizer& tokenizer, std::span<const std::string_view> texts,
                                             std::string_view path) noexcept;

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  // ids = those from `begin` on, which must all be there.
  void copy_to(std::size_t begin, std::span<std::int32_t> ids) const noexcept;

 private:
  MappedFile file_;
  std::size_t size_ = 0;
  bool wide_ = false;
};

}  // namespace qorus::tune
