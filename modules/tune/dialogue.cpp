// Bodies of qorus.tune:dialogue: from files to tokens.
module;
#include <dirent.h>
#include <sys/stat.h>

#include <cerrno>
module qorus.tune;
import qorus.std;
import :dialogue;

namespace qorus::tune {
namespace {

constexpr const char* k_op = "data";

using Ids = List<std::int32_t>;

std::size_t common_prefix(std::span<const std::int32_t> a, std::span<const std::int32_t> b) noexcept {
  const std::size_t n = std::min(a.size(), b.size());
  return static_cast<std::size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin()).first - a.begin());
}

// Reads files one after the other into samples.
class SampleReader {
 public:
  SampleReader(const llm::Model& model, const SampleOptions& options, List<Sample>& samples) noexcept
      : model_(model), tokenizer_(model.tokenizer()), options_(options), samples_(samples) {}

  [[nodiscard]] Status prepare() noexcept {
    if (tokenizer_.size() == 0) return fail(Errc::not_found, k_op, "the model came without a tokenizer");
    context_ = static_cast<std::size_t>(options_.context > 0 ? options_.context : model_.config().context);
    const std::string_view jinja = options_.jinja.empty() ? model_.chat_template() : options_.jinja;
    if (options_.plain || jinja.empty()) return {};
    auto parsed = text::ChatTemplate::parse(jinja);
    if (!parsed) return fail(parsed.error());
    template_ = std::move(*parsed);
    templated_ = true;
    return {};
  }

  [[nodiscard]] Status read(std::string_view path, int depth) noexcept {
    const llm::FilePath name = llm::path_in({}, path);
    if (name.size == 0) return fail(Errc::invalid_argument, k_op, "no path, or too long a one", path);
    struct stat facts{};
    if (::stat(name.bytes.data(), &facts) != 0) return fail_system(errno, k_op, "cannot be read", path);
    if (S_ISDIR(facts.st_mode)) return read_folder(name, depth);
    auto file = MappedFile::open(path);
    if (!file) return fail(file.error());
    const std::string_view content(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
    const bool lines = path.ends_with(".jsonl") || path.ends_with(".json");
    const Status done = lines ? read_lines(content, path) : read_text(content, path);
    const Status there = file->whole(k_op, path);
    return there ? done : there;
  }

 private:
  using Name = std::array<char, 256>;

  [[nodiscard]] Status read_folder(const llm::FilePath& folder, int depth) noexcept {
    constexpr int k_deepest = 16;
    if (depth > k_deepest) return fail(Errc::overflow, k_op, "folders more than 16 deep", folder.view());
    DIR* open = ::opendir(folder.bytes.data());
    if (!open) return fail_system(errno, k_op, "cannot be read", folder.view());
    List<Name> names;
    Status done;
    while (const dirent* entry = ::readdir(open)) {
      if (entry->d_name[0] == '.') continue;
      Name name{};
      std::strncpy(name.data(), entry->d_name, name.size() - 1);
      if (done) done = names.push(name);
    }
    ::closedir(open);
    if (!done) return done;
    std::sort(names.begin(), names.end(),
              [](const Name& a, const Name& b) { return std::strcmp(a.data(), b.data()) < 0; });
    for (const Name& name : names) {
      const llm::FilePath path = llm::path_in(folder.view(), name.data());
      if (auto read_it = read(path.view(), depth + 1); !read_it) return read_it;
    }
    return {};
  }

  // A piece goes on where the one before ended: its first token is foretold by that one's last.
  [[nodiscard]] Status read_text(std::string_view content, std::string_view path) noexcept {
    auto ids = tokenizer_.encode(content, {.bos = tokenizer_.adds_bos()});
    if (!ids) return fail(ids.error().about(path));
    if (tokenizer_.eos() >= 0) {
      if (auto ended = ids->push(tokenizer_.eos()); !ended) return ended;
    }
    for (std::size_t at = 0; at + 1 < ids->size(); at += context_) {
      const auto piece =
          std::span<const std::int32_t>(ids->span()).subspan(at, std::min(context_ + 1, ids->size() - at));
      Sample sample;
      if (auto kept = sample.ids.append(piece); !kept) return kept;
      if (auto room = sample.counts.resize(piece.size()); !room) return room;
      std::fill(sample.counts.begin(), sample.counts.end(), std::uint8_t{1});
      if (auto kept = samples_.push(std::move(sample)); !kept) return kept;
    }
    return {};
  }

  [[nodiscard]] Status read_lines(std::string_view content, std::string_view path) noexcept {
    for (std::int64_t line = 1; !content.empty(); ++line) {
      const std::size_t end = std::min(content.find('\n'), content.size());
      const std::string_view text(content.data(), end);
      content.remove_prefix(std::min(end + 1, content.size()));
      if (text.find_first_not_of(" \t\r") == text.npos) continue;
      if (auto done = read_line(text); !done) {
        Text where;
        ((where += path) += ":") += line;
        return fail(done.error().about(where.view()));
      }
    }
    return {};
  }

  [[nodiscard]] Status read_line(std::string_view line) noexcept {
    text::JsonTree tree;
    if (auto parsed = tree.parse(line); !parsed) return parsed;
    const text::JsonValue root = tree.root(), prompt = root["prompt"], response = root["response"],
                          messages = root["messages"];
    List<text::ChatMessage> turns;
    if (messages) {
      auto done = messages.each([&](const text::JsonValue& message) -> Status {
        const text::JsonValue role = message["role"], content = message["content"];
        if (!role.is(text::JsonType::string) || !content.is(text::JsonType::string))
          return fail(Errc::corrupt, k_op, "a message needs a role and a content, both texts");
        return turns.push({role.string(), content.string()});
      });
      if (!done) return done;
      if (!templated_)
        return fail(Errc::not_found, k_op, "messages need a chat template, and the model came without one");
      return add_conversation(turns.span());
    }
    if (!prompt.is(text::JsonType::string))
      return fail(Errc::corrupt, k_op, "a line is an object with prompt and response, or with messages");
    if (!response.is(text::JsonType::string) || response.string().empty())
      return fail(Errc::invalid_argument, k_op, "there is no response, or an empty one");
    if (!templated_) return add_pair(prompt.string(), response.string());
    if (auto kept = turns.push({"user", prompt.string()}); !kept) return kept;
    if (auto kept = turns.push({"assistant", response.string()}); !kept) return kept;
    return add_conversation(turns.span());
  }

  // The response counts, and the token after it that ends the text. Where the two meet, tokens are those of both texts as one.
  [[nodiscard]] Status add_pair(std::string_view prompt, std::string_view response) noexcept {
    const text::EncodeOptions how{.bos = tokenizer_.adds_bos()};
    List<char> both;
    if (auto kept = both.append(std::span(prompt.data(), prompt.size())); !kept) return kept;
    if (auto kept = both.append(std::span(response.data(), response.size())); !kept) return kept;
    auto before = tokenizer_.encode(prompt, how), all = tokenizer_.encode({both.data(), both.size()}, how);
    if (!before) return fail(before.error());
    if (!all) return fail(all.error());
    if (tokenizer_.eos() >= 0) {
      if (auto ended = all->push(tokenizer_.eos()); !ended) return ended;
    }
    Sample sample;
    if (auto room = sample.counts.resize(all->size()); !room) return room;
    for (std::size_t i = common_prefix(before->span(), all->span()); i < all->size(); ++i) sample.counts[i] = 1;
    sample.ids = std::move(*all);
    return add(std::move(sample));
  }

  // As the template spells it; of each answer counts what follows the beginning that the template gives it.
  [[nodiscard]] Status add_conversation(std::span<const text::ChatMessage> turns) noexcept {
    Sample sample;
    auto all = spell(turns, false);
    if (!all) return fail(all.error());
    if (auto room = sample.counts.resize(all->size()); !room) return room;
    bool any = false;
    for (std::size_t i = 0; i < turns.size(); ++i) {
      if (turns[i].role != "assistant") continue;
      auto before = spell(turns.first(i), true), after = spell(turns.first(i + 1), false);
      if (!before) return fail(before.error());
      if (!after) return fail(after.error());
      const std::size_t first = common_prefix(before->span(), all->span()),
                        last = common_prefix(after->span(), all->span());
      for (std::size_t k = first; k < last; ++k) sample.counts[k] = 1;
      any = any || first < last;
    }
    if (!any) return fail(Errc::invalid_argument, k_op, "nothing in it is an answer of the assistant's");
    // What ends the text of a template that does not say so itself.
    if (turns.back().role == "assistant" && tokenizer_.eos() >= 0 && !ends(all->span())) {
      if (auto ended = all->push(tokenizer_.eos()); !ended) return ended;
      if (auto ended = sample.counts.push(1); !ended) return ended;
    }
    sample.ids = std::move(*all);
    return add(std::move(sample));
  }

  // Whether a token that ends a text stands among the last three: some templates have a line break after it.
  [[nodiscard]] bool ends(std::span<const std::int32_t> ids) const noexcept {
    const auto last = ids.last(std::min<std::size_t>(ids.size(), 3));
    return std::any_of(last.begin(), last.end(), [&](std::int32_t id) { return model_.ends_text(id); });
  }

  [[nodiscard]] Result<Ids> spell(std::span<const text::ChatMessage> turns, bool begin_answer) const noexcept {
    const auto spelled = [&](std::int32_t id) { return id < 0 ? std::string_view() : tokenizer_.piece(id); };
    const std::string_view bos = spelled(tokenizer_.bos());
    auto text =
        template_.render(turns, {.add_generation_prompt = begin_answer, .bos = bos, .eos = spelled(tokenizer_.eos())});
    if (!text) return fail(text.error());
    const std::string_view whole(text->data(), text->size());
    const bool begun = !bos.empty() && whole.starts_with(bos);
    return tokenizer_.encode(whole, {.bos = tokenizer_.adds_bos() && !begun, .special = true});
  }

  [[nodiscard]] Status add(Sample sample) noexcept {
    if (sample.ids.size() > context_ + 1) {
      const Dims lengths{
          .extent = {static_cast<std::int64_t>(sample.ids.size()) - 1, static_cast<std::int64_t>(context_)}, .rank = 2};
      return fail(Errc::invalid_size, k_op, "more tokens than the context has: theirs, and the context", lengths);
    }
    return samples_.push(std::move(sample));
  }

  const llm::Model& model_;
  const text::Tokenizer& tokenizer_;
  const SampleOptions& options_;
  List<Sample>& samples_;
  std::size_t context_ = 0;
  text::ChatTemplate template_;
  bool templated_ = false;
};

}  // namespace

Status read_samples(std::string_view path, const llm::Model& model, const SampleOptions& options,
                    List<Sample>& samples) noexcept {
  SampleReader reader(model, options, samples);
  if (auto ready = reader.prepare(); !ready) return ready;
  if (auto done = reader.read(path, 0); !done) return done;
  if (samples.empty()) return fail(Errc::invalid_size, k_op, "there is nothing to learn from", path);
  return {};
}

}  // namespace qorus::tune
