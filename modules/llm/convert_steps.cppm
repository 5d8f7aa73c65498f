// The parts of a conversion: the plan, and the file that is written.
module qorus.llm:convert_steps;
import qorus.std;
import qorus.nn;
import qorus.io;
import qorus.formats;
import :config;
import :convert;
import :convert_plan;

namespace qorus::llm {

// A name with its '#' as a number.
[[nodiscard]] Text numbered(std::string_view name, std::int64_t number) noexcept;

// "model-00001-of-00003.safetensors"
[[nodiscard]] Text shard_name(std::size_t index, std::size_t count) noexcept;

// A file that need not be there; of no bytes if it is not. Errors: it is there, and cannot be read.
[[nodiscard]] Result<MappedFile> open_if_there(std::string_view path) noexcept;

// Lists the tensors of the new file.
class Planner {
 public:
  Planner(const Origin& origin, const Config& config) noexcept : origin_(origin), c_(config) {}
  [[nodiscard]] Status from_hugging_face() noexcept;
  [[nodiscard]] Status to_hugging_face() noexcept;
  [[nodiscard]] Status as_they_are() noexcept;
  [[nodiscard]] List<Step>& steps() noexcept { return steps_; }
  [[nodiscard]] bool by_file() const noexcept { return by_file_; }
  [[nodiscard]] const Architecture* target() const noexcept { return target_; }

 private:
  [[nodiscard]] Status add_from_hugging_face(std::string_view ours, std::string_view gguf) noexcept;
  [[nodiscard]] Status add_experts(std::int64_t layer) noexcept;
  [[nodiscard]] Status add_factors() noexcept;
  [[nodiscard]] Status check_all_used() const noexcept;
  [[nodiscard]] Status add_to_hugging_face(std::string_view name, DType dtype, const Shape& shape) noexcept;
  [[nodiscard]] Status restore_type(Step& step, std::string_view name) const noexcept;

  const Origin& origin_;
  const Config& c_;
  List<Step> steps_;
  const Architecture* target_ = nullptr;  // of safetensors
  std::size_t used_ = 0;                  // tensors of the old file
  bool by_file_ = false;
};

// One file of any format but safetensors' shards.
class Target {
 public:
  [[nodiscard]] static Result<Target> create(Container container, std::string_view path) noexcept;
  // Null where the format has none.
  [[nodiscard]] io::GgufMetadata* metadata() noexcept;
  [[nodiscard]] Status declare(const Step& step) noexcept;
  [[nodiscard]] Status declare_laid_out(std::size_t index) noexcept { return native_->declare_laid_out(index); }
  [[nodiscard]] Status begin(const Context& context) noexcept;
  // The next tensor's bytes follow.
  [[nodiscard]] Status next(const Step& step) noexcept;
  [[nodiscard]] Status write(std::span<const std::byte> bytes) noexcept;
  [[nodiscard]] Status commit() noexcept;

 private:
  std::optional<io::GgufWriter> gguf_;
  std::optional<formats::NativeWriter> native_;
  std::optional<formats::SafetensorsWriter> safetensors_;
  std::optional<formats::NpzWriter> npz_;
  std::optional<AtomicFile> plain_;  // of llama2.c
  io::GgufMetadata npz_metadata_;
};

// The steps in the order of a checkpoint of llama2.c, all f32. Errors: unsupported (another model than it can hold), not_found.
[[nodiscard]] Status order_for_llama2c(const Config& config, List<Step>& steps) noexcept;
// What stands before the tensors, and the tables of angles after the last norm.
[[nodiscard]] Status write_llama2c_header(Target& target, const Config& config, bool tied) noexcept;
[[nodiscard]] Status write_llama2c_angles(Target& target, const Config& config) noexcept;

}  // namespace qorus::llm
