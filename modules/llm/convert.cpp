// Bodies of qorus.llm:convert: the way through.
module;
#include <sys/stat.h>

#include <cerrno>
module qorus.llm;
import qorus.std;
import :convert_plan;
import :convert_steps;

namespace qorus::llm {
namespace {

constexpr const char* k_op = "convert";

std::size_t bytes_of(const Step& step) noexcept { return row_bytes(step.dtype, step.shape.numel()); }
bool has_gguf_names(Container container) noexcept { return container != Container::safetensors; }

class Conversion {
 public:
  Conversion(const Origin& origin, std::string_view to, const ConvertOptions& options) noexcept
      : origin_(origin), to_(to), options_(options), planner_(origin, config_) {}

  [[nodiscard]] Result<Converted> run() noexcept {
    if (auto done = plan(); !done) return fail(done.error());
    List<Step>& steps = planner_.steps();
    std::size_t most = 0;
    for (const Step& step : steps) {
      result_.bytes += bytes_of(step);
      most = std::max(most, step.shape.numel());
    }
    result_.tensors = steps.size();
    // Address space; what is used is a tensor that is turned, as stored and in f32, and 8 MiB.
    workspace_.emplace(WorkspaceOptions{.scratch = most * 3 * sizeof(float) + 64_MiB, .threads = options_.threads});
    if (auto ready = workspace_->status(); !ready) return fail(ready.error());
    const bool folder = options_.to == Container::safetensors && !to_.ends_with(".safetensors");
    if (auto done = folder ? write_folder() : write_file(to_, 0, steps.size()); !done) return fail(done.error());
    return result_;
  }

 private:
  // --- the plan ---

  [[nodiscard]] Status plan() noexcept {
    using Kind = Origin::Kind;
    const bool theirs = origin_.kind() == Kind::hugging_face;
    model_ = origin_.is_model();
    if (model_) {
      auto config = origin_.config();
      if (!config) return fail(config.error());
      config_ = std::move(*config);
    }
    if (options_.to == Container::llama2c && !model_)
      return fail(Errc::unsupported, k_op, "no language model that is known", to_);
    const bool to_theirs = model_ && !theirs && !has_gguf_names(options_.to);
    auto done = theirs && has_gguf_names(options_.to) ? planner_.from_hugging_face()
                : to_theirs                           ? planner_.to_hugging_face()
                                                      : planner_.as_they_are();
    if (!done) return done;
    to_theirs_ = to_theirs;
    if (auto chosen = choose_types(); !chosen) return chosen;
    if (options_.to == Container::llama2c) return order_for_llama2c(config_, planner_.steps());
    return options_.to == Container::safetensors ? put_wide_first() : Status();
  }

  // So that all tensors of a safetensors file stand where their elements may be read.
  [[nodiscard]] Status put_wide_first() noexcept {
    List<Step> ordered;
    for (const std::size_t size : {std::size_t{4}, std::size_t{2}, std::size_t{1}}) {
      for (const Step& step : planner_.steps()) {
        if (size_of(step.dtype) != size) continue;
        if (auto kept = ordered.push(step); !kept) return kept;
      }
    }
    planner_.steps() = std::move(ordered);
    return {};
  }

  [[nodiscard]] Status choose_types() noexcept {
    formats::ModelFacts facts{
        .layers = config_.layers, .heads = config_.heads, .kv_heads = config_.kv_heads, .experts = config_.experts};
    facts.llama = model_ && config_.architecture->gguf == "llama";
    for (const Step& step : planner_.steps())
      facts.has_output = facts.has_output || step.name.view() == "output.weight";
    const formats::Scheme* scheme = options_.scheme;
    if (scheme && is_block(scheme->dtype) && options_.to != Container::gguf && options_.to != Container::native)
      return fail(Errc::unsupported, k_op, "the format has no such element type", scheme->name);
    for (Step& step : planner_.steps()) {
      const bool whole_number = step.stored == DType::i32 || step.stored == DType::i8 || step.stored == DType::u8;
      const bool matrix = step.shape.rank() >= 2 && step.dtype == step.stored;
      if (scheme && !whole_number && (matrix || is_block(step.stored))) {
        step.dtype = scheme->choose(facts, step.name.view(), step.shape, step.dtype, false);
        const std::int64_t columns = step.shape.rank() ? step.shape[-1] : 1;
        if (columns % static_cast<std::int64_t>(block_size(step.dtype)) != 0) step.dtype = DType::f32;
      }
      const bool plain = !is_block(step.dtype) && (step.dtype != DType::bf16 || options_.to != Container::npz);
      if (options_.to != Container::gguf && options_.to != Container::native && !plain) step.dtype = DType::f32;
    }
    return {};
  }

  // --- one file ---

  [[nodiscard]] Status write_file(std::string_view path, std::size_t first, std::size_t last) noexcept {
    auto made = Target::create(options_.to, path);
    if (!made) return fail(made.error());
    Target& target = *made;
    if (target.metadata()) {
      if (auto done = tell(*target.metadata()); !done) return done;
    }
    const std::span<const Step> steps = planner_.steps().span().subspan(first, last - first);
    for (const Step& step : steps) {
      if (auto done = target.declare(step); !done) return done;
    }
    const bool laid_out = options_.laid_out && options_.to == Container::native;
    for (std::size_t i = 0; laid_out && i < steps.size(); ++i) {
      if (!is_laid_out(steps[i])) continue;
      if (auto done = target.declare_laid_out(i); !done) return done;
    }
    if (auto done = target.begin(workspace_->context()); !done) return done;
    const bool llama2c = options_.to == Container::llama2c;
    const bool tied = llama2c && steps.back().name.view() != "output.weight";
    if (llama2c) {
      if (auto done = write_llama2c_header(target, config_, tied); !done) return done;
    }
    for (const Step& step : steps) {
      if (llama2c && step.name.view() == "output.weight") {
        if (auto done = write_llama2c_angles(target, config_); !done) return done;
      }
      if (auto done = write_step(target, step); !done)
        return fail(done.error().subject[0] ? done.error() : done.error().about(step.name.view()));
      if (options_.progress && !options_.progress(options_.user, step.name.view(), ++done_, result_.tensors))
        return fail(Errc::invalid_argument, k_op, "stopped on the way", path);
    }
    if (tied) {
      if (auto done = write_llama2c_angles(target, config_); !done) return done;
    }
    for (const Step& step : steps) {
      if (!laid_out || !is_laid_out(step)) continue;
      if (auto done = write_laid_out(target, step); !done) return fail(done.error().about(step.name.view()));
    }
    if (auto there = origin_.whole(); !there) return there;
    return target.commit();
  }

  // Embeddings are looked up by row; only where they are the output as well they are multiplied with.
  [[nodiscard]] bool is_laid_out(const Step& step) const noexcept {
    const std::string_view name = step.name.view();
    if (formats::laid_out_bytes(step.dtype, step.shape) == 0 || name == "position_embd.weight") return false;
    if (name != "token_embd.weight") return true;
    const auto steps = planner_steps();
    return std::none_of(steps.begin(), steps.end(), [](const Step& one) { return one.name.view() == "output.weight"; });
  }
  [[nodiscard]] std::span<const Step> planner_steps() const noexcept {
    return const_cast<Planner&>(planner_).steps().span();
  }

  // --- tensors ---

  [[nodiscard]] Status write_step(Target& target, const Step& step) noexcept {
    if (auto done = target.next(step); !done) return done;
    const formats::Sink sink{
        &target, [](void* self, std::span<const std::byte> bytes) { return static_cast<Target*>(self)->write(bytes); }};
    return each_piece(step,
                      [&](const Tensor& tensor) { return formats::recode(*workspace_, tensor, step.dtype, {}, sink); });
  }

  // Calls visit with the tensors that make up the new one, one after the other, turned, in a frame of their own.
  template <class F>
  [[nodiscard]] Status each_piece(const Step& step, F&& visit) noexcept {
    const std::string_view source = step.source.view();
    if (source.starts_with("rope_f") && origin_.kind() == Origin::Kind::hugging_face)
      return visit_factors(source, visit);
    const io::Gguf* told = origin_.metadata();
    if (step.turn == Turn::minus_one && told && told->metadata(key_of_source(source).view())) {
      auto values = told->reals(key_of_source(source).view());
      if (!values || values->size() != step.shape.numel())
        return values ? fail(Errc::corrupt, k_op, "its original is broken") : fail(values.error());
      return visit(Tensor::borrow(std::span<const float>(values->span()), step.shape));
    }
    const std::int64_t count = step.turn == Turn::stack ? step.number : 1;
    for (std::int64_t i = 0; i < count; ++i) {
      Owned kept;
      auto tensor =
          origin_.tensor(step.turn == Turn::stack ? numbered(source, i).view() : source, planner_.by_file(), kept);
      if (!tensor) return fail(tensor.error());
      if (step.turn == Turn::stack && tensor->shape() != Shape{step.shape[1], step.shape[2]})
        return fail(Errc::invalid_size, k_op, "experts of different sizes", tensor->shape().dims());
      {
        auto frame = workspace_->frame();
        auto turned = turn(frame, *tensor, step);
        if (!turned) return fail(turned.error());
        if (auto done = visit(*turned); !done) return done;
      }
      MappedFile::let_go({tensor->data(), kept.tensor().data() ? 0 : row_bytes(tensor->dtype(), tensor->numel())});
    }
    return {};
  }

  template <class F>
  [[nodiscard]] Status visit_factors(std::string_view name, F&& visit) noexcept {
    List<float> values;
    if (name == "rope_freqs.weight") {
      auto all = frequencies(config_.rope, config_, config_.context);
      if (!all) return fail(all.error());
      for (std::size_t i = 0; i < all->turn.size(); ++i) {
        const double plain = std::pow(static_cast<double>(config_.rope.base),
                                      -2.0 * static_cast<double>(i) / static_cast<double>(config_.rope.dim));
        if (auto kept = values.push(static_cast<float>(plain / all->turn[i])); !kept) return kept;
      }
    } else {
      const List<float>& from = name == "rope_factors_long.weight" ? config_.long_factors : config_.short_factors;
      if (auto kept = values.append(from.span()); !kept) return kept;
    }
    return visit(
        Tensor::borrow(std::span<const float>(values.span()), Shape{static_cast<std::int64_t>(values.size())}));
  }

  [[nodiscard]] static Result<Tensor> turn(Scope& frame, const Tensor& tensor, const Step& step) noexcept {
    auto input = frame.input(tensor);
    if (!input || step.turn == Turn::none || step.turn == Turn::stack) return input;
    if (step.turn == Turn::part) {
      const std::size_t bytes = row_bytes(tensor.dtype(), step.shape.numel());
      return frame.input(Tensor(tensor.data() + static_cast<std::size_t>(step.number) * bytes, tensor.dtype(),
                                Layout::dense(step.shape), tensor.lifetime()));
    }
    if (is_block(tensor.dtype()) || step.turn == Turn::plus_one || step.turn == Turn::minus_one)
      input = ops::cast(input, DType::f32);
    if (!input) return input;
    if (step.turn == Turn::plus_one) return input + 1.0f;
    if (step.turn == Turn::minus_one) return input + -1.0f;
    const std::int64_t row = input->stride(0), column = input->rank() > 1 ? input->stride(1) : 1;
    Layout layout{.shape = step.shape};
    if (step.turn == Turn::transpose) {
      layout.stride = {column, row};
    } else {
      const std::int64_t heads = step.number, rows = input->dim(0), columns = input->rank() > 1 ? input->dim(1) : 1;
      if (rows % (2 * heads) != 0)
        return fail(Errc::invalid_size, k_op, "rows that are no whole heads", tensor.shape().dims());
      const std::int64_t each = rows / heads, half = each / 2;
      const bool pair = step.turn == Turn::pair;
      layout.shape = pair ? Shape{heads, half, 2, columns} : Shape{heads, 2, half, columns};
      layout.stride = {each * row, pair ? row : row, pair ? half * row : 2 * row, column};
    }
    return ops::contiguous(input->seen_as(layout));
  }

  // From the source by the same way as before: where it lies, if it is what was written, else in memory as one tensor.
  [[nodiscard]] Status write_laid_out(Target& target, const Step& step) noexcept {
    List<std::byte> packed;
    if (auto room = packed.resize(formats::laid_out_bytes(step.dtype, step.shape)); !room) return room;
    const Shape all = step.shape.rank() == 3 ? Shape{step.shape[0] * step.shape[1], step.shape[2]} : step.shape;
    const auto pack = [&](const std::byte* rows, const Lifetime& lifetime) -> Status {
      auto frame = workspace_->frame();
      auto input = frame.input(Tensor(rows, step.dtype, Layout::dense(all), lifetime));
      if (!input) return fail(input.error());
      return ops::pack_weight(*input, packed.span());
    };
    Status done;
    if (step.turn == Turn::none && step.dtype == step.stored) {
      done = each_piece(step, [&](const Tensor& tensor) { return pack(tensor.data(), tensor.lifetime()); });
    } else {
      List<std::byte> rows;
      if (auto room = rows.reserve(bytes_of(step)); !room) return room;
      const formats::Sink sink{&rows, [](void* self, std::span<const std::byte> bytes) {
                                 return static_cast<List<std::byte>*>(self)->append(bytes);
                               }};
      done = each_piece(
          step, [&](const Tensor& tensor) { return formats::recode(*workspace_, tensor, step.dtype, {}, sink); });
      if (done) done = pack(rows.data(), {});
    }
    return done ? target.write(packed.span()) : done;
  }

  // --- what is told besides ---

  [[nodiscard]] Status tell(io::GgufMetadata& to) noexcept {
    constexpr std::string_view k_file_type = "general.file_type", k_version = "general.quantization_version";
    if (const io::Gguf* told = origin_.metadata()) {
      for (const io::GgufEntry& entry : told->metadata()) {
        if (options_.scheme && (entry.key == k_file_type || entry.key == k_version)) continue;
        if (auto done = to.put(entry); !done) return done;
      }
    } else if (model_) {
      if (auto done = describe_model(origin_, config_, to); !done) return done;
      if (auto done = keep_companions(to); !done) return done;
    } else {
      return {};
    }
    if (!options_.scheme && origin_.metadata()) return {};
    const DType mostly = options_.scheme ? options_.scheme->dtype : mostly_of();
    const std::uint32_t type = options_.scheme ? options_.scheme->file_type : formats::file_type_of(mostly);
    if (auto done = to.put(k_file_type, type); !done) return done;
    return is_block(mostly) ? to.put(k_version, std::uint32_t{2}) : Status();
  }

  // The type of most matrices' bytes.
  [[nodiscard]] DType mostly_of() const noexcept {
    std::size_t bytes[k_dtype_count] = {}, best = 0;
    for (const Step& step : planner_steps()) {
      if (step.shape.rank() >= 2) bytes[static_cast<int>(step.dtype)] += bytes_of(step);
    }
    for (std::size_t i = 1; i < k_dtype_count; ++i) best = bytes[i] > bytes[best] ? i : best;
    return static_cast<DType>(best);
  }

  [[nodiscard]] Status keep_companions(io::GgufMetadata& to) noexcept {
    if (origin_.kind() != Origin::Kind::hugging_face) return {};
    constexpr std::size_t k_most = 16_MiB;
    for (const std::string_view name : k_companions) {
      auto file = open_if_there(path_in(origin_.weights().folder(), name).view());
      if (!file) return fail(file.error());
      const auto bytes = file->bytes();
      if (bytes.empty() || bytes.size() > k_most) continue;
      Text key;
      (key += k_file_prefix) += name;
      if (auto done = to.put_text(key.view(), {reinterpret_cast<const char*>(bytes.data()), bytes.size()}); !done)
        return done;
    }
    List<Text> lines;
    for (const Step& step : planner_steps()) {
      if (step.dtype == step.stored || (step.dtype != DType::f32) || options_.scheme) continue;
      Text line;
      ((line += step.name.view()) += "=") += to_string(step.stored);
      if (auto kept = lines.push(line); !kept) return kept;
    }
    if (auto done = keep_norms(to); !done) return done;
    List<std::string_view> views;
    for (const Text& line : lines) {
      if (auto kept = views.push(line.view()); !kept) return kept;
    }
    return views.empty() ? Status() : to.put(k_source_types, views.span());
  }

  // Where a vector was kept that is not what it was after adding 1 and taking it away.
  [[nodiscard]] static Text key_of_source(std::string_view name) noexcept {
    Text key;
    return (key += "qorus.source.") += name;
  }
  [[nodiscard]] Status keep_norms(io::GgufMetadata& to) noexcept {
    for (const Step& step : planner_steps()) {
      if (step.turn != Turn::plus_one) continue;
      Owned kept;
      auto tensor = origin_.tensor(step.source.view(), false, kept);
      if (!tensor) return fail(tensor.error());
      auto frame = workspace_->frame();
      auto values = ops::cast(frame.input(*tensor), DType::f32);
      if (!values) return fail(values.error());
      const std::span<const float> all(values->f32(), values->numel());
      if (std::all_of(all.begin(), all.end(), [](float x) { return (x + 1.0f) - 1.0f == x; })) continue;
      if (auto done = to.put(key_of_source(step.name.view()).view(), all); !done) return done;
    }
    return {};
  }

  // --- a folder of safetensors ---

  [[nodiscard]] Status write_folder() noexcept {
    const FilePath path = path_in(to_, "");
    if (path.size == 0) return fail(Errc::invalid_argument, k_op, "a path that is too long", to_);
    if (::mkdir(path.bytes.data(), 0777) != 0 && errno != EEXIST)
      return fail_system(errno, k_op, "cannot make the folder", to_);
    if (auto done = write_shards(); !done) return done;
    return write_companions();
  }

  [[nodiscard]] Status write_shards() noexcept {
    const List<Step>& steps = planner_.steps();
    List<std::size_t> ends;
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const std::size_t own = bytes_of(steps[i]);
      const std::size_t first = ends.empty() ? 0 : ends.back();
      if (options_.shard_bytes > 0 && i > first && bytes + own > options_.shard_bytes) {
        if (auto kept = ends.push(i); !kept) return kept;
        bytes = 0;
      }
      bytes += own;
    }
    if (ends.empty()) return write_file(path_in(to_, "model.safetensors").view(), 0, steps.size());
    if (auto kept = ends.push(steps.size()); !kept) return kept;
    for (std::size_t i = 0, first = 0; i < ends.size(); first = ends[i++]) {
      if (auto done = write_file(path_in(to_, shard_name(i, ends.size()).view()).view(), first, ends[i]); !done)
        return done;
    }
    return write_index(ends);
  }

  [[nodiscard]] Status write_index(const List<std::size_t>& ends) noexcept {
    auto file = AtomicFile::create(path_in(to_, "model.safetensors.index.json").view());
    if (!file) return fail(file.error());
    List<char> out;
    const auto text = [&](std::string_view more) { return out.append(std::span(more.data(), more.size())); };
    Text size;
    size += static_cast<std::int64_t>(result_.bytes);
    Status done = text("{\"metadata\": {\"total_size\": ");
    if (done) done = text(size.view());
    if (done) done = text("}, \"weight_map\": {");
    const List<Step>& steps = planner_.steps();
    for (std::size_t i = 0, shard = 0; i < steps.size() && done; ++i) {
      while (i >= ends[shard]) ++shard;
      done = text(i ? ",\n" : "\n");
      if (done) done = io::append_json_string(out, steps[i].name.view());
      if (done) done = text(": ");
      if (done) done = io::append_json_string(out, shard_name(shard, ends.size()).view());
    }
    if (done) done = text("}}\n");
    if (done) done = file->write(std::string_view(out.data(), out.size()));
    return done ? file->commit() : done;
  }

  [[nodiscard]] Status put_file(std::string_view name, std::string_view content) noexcept {
    auto file = AtomicFile::create(path_in(to_, name).view());
    if (!file) return fail(file.error());
    if (auto done = file->write(content); !done) return done;
    return file->commit();
  }

  // The texts beside the weights: the original's own, or such as say the same.
  [[nodiscard]] Status write_companions() noexcept {
    const io::Gguf* told = origin_.metadata();
    bool config = false, tokenizer = false;
    for (const std::string_view name : k_companions) {
      Text key;
      (key += k_file_prefix) += name;
      std::string_view content;
      MappedFile original;
      if (told) content = told->text(key.view(), "").value_or("");
      if (origin_.kind() == Origin::Kind::hugging_face) {
        auto file = open_if_there(path_in(origin_.weights().folder(), name).view());
        if (!file) return fail(file.error());
        original = std::move(*file);
        content = {reinterpret_cast<const char*>(original.bytes().data()), original.bytes().size()};
      }
      if (content.empty()) continue;
      config = config || name == "config.json";
      tokenizer = tokenizer || name.starts_with("tokenizer.");
      if (auto done = put_file(name, content); !done) return done;
    }
    if (!to_theirs_) return {};
    List<char> made;
    if (!config) {
      const auto steps = planner_steps();
      const bool tied =
          std::none_of(steps.begin(), steps.end(), [](const Step& one) { return one.name.view() == "lm_head.weight"; });
      if (auto done = describe_json(told, config_, *planner_.target(), mostly_of(), tied, made); !done) return done;
      if (auto done = put_file("config.json", {made.data(), made.size()}); !done) return done;
    }
    return tokenizer ? Status() : write_tokenizer(told);
  }

  [[nodiscard]] Status write_tokenizer(const io::Gguf* told) noexcept {
    List<char> made;
    if (told) {
      if (auto done = describe_pieces(*told, made); !done) return done;
      if (made.empty()) {
        if (auto done = describe_merges(*told, made); !done) return done;
        return made.empty() ? Status() : put_file("tokenizer.json", {made.data(), made.size()});
      }
      return put_file("tokenizer.model", {made.data(), made.size()});
    }
    Text numbered;  // llama2.c's own
    ((numbered += "tok") += config_.vocab) += ".bin";
    for (const std::string_view name : {std::string_view("tokenizer.bin"), numbered.view()}) {
      auto file = open_if_there(path_in(origin_.weights().folder(), name).view());
      if (!file) return fail(file.error());
      const auto bytes = file->bytes();
      if (bytes.empty()) continue;
      return put_file("tokenizer.bin", {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    }
    return {};
  }

  const Origin& origin_;
  std::string_view to_;
  const ConvertOptions& options_;
  Config config_;
  Planner planner_;
  std::optional<Workspace> workspace_;
  Converted result_;
  std::size_t done_ = 0;
  bool model_ = false, to_theirs_ = false;
};

}  // namespace

Result<Converted> convert(std::string_view from, std::string_view to, const ConvertOptions& options) noexcept {
  auto origin = Origin::open(from);
  if (!origin) return fail(origin.error());
  return Conversion(*origin, to, options).run();
}

}  // namespace qorus::llm
