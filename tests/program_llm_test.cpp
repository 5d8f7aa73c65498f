// The commands of the qorus program that run language models, from outside.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "tests/program.h"

namespace {

using qorus_test::Outcome;

class LanguageProgram : public qorus_test::ProgramTest {
 protected:
  void SetUp() override { QORUS_NEEDS_DATA("models/stories260K"); }
  const std::string model = qorus_test::data_path("models/stories260K/stories260K-F32.gguf");
};

// The numbers of an npy file of f32.
std::vector<float> npy_values(const std::string& bytes) {
  std::vector<float> values;
  if (bytes.size() < 10) return values;
  const std::size_t header = 10 + static_cast<std::uint8_t>(bytes[8]) + 256u * static_cast<std::uint8_t>(bytes[9]);
  values.resize((bytes.size() - header) / sizeof(float));
  std::memcpy(values.data(), bytes.data() + header, values.size() * sizeof(float));
  return values;
}

}  // namespace

TEST_F(LanguageProgram, Generates) {
  const Outcome story = run("qorus generate " + model + " -p 'Once upon a time' -n 20");
  ASSERT_EQ(story.code, 0) << story.err;
  EXPECT_EQ(story.out.rfind("Once upon a time, there was a little girl named Lily.", 0), 0u) << story.out;
  EXPECT_NE(story.err.find("20 written"), std::string::npos) << story.err;
  const Outcome from_file = shell("printf 'Once upon a time' | " QORUS_BIN "/qorus generate " + model + " -f - -n 20");
  EXPECT_EQ(from_file.out, story.out) << from_file.err;
  const Outcome stopped = run("qorus generate " + model + " -p 'Once upon a time' -n 20 --stop 'girl' --stop Lily");
  EXPECT_EQ(stopped.out, "Once upon a time, there was a little \n");
}

TEST_F(LanguageProgram, SamplersChangeTheTextAndASeedKeepsIt) {
  const std::string base = "qorus generate " + model + " -p 'Once upon a time' -n 24 --temperature 0.9 ";
  const std::string plain = run(base).out;
  for (const char* how :
       {"--top-k 3", "--top-p 0.3", "--min-p 0.5", "--typical 0.2", "--mirostat 1.5", "--repetition-penalty 3",
        "--frequency-penalty 9", "--presence-penalty 9", "--bias 432=-100", "--seed 4"}) {
    const Outcome one = run(base + how + " --threads 1"), two = run(base + how + " --threads 2");
    EXPECT_EQ(one.code, 0) << how << one.err;
    EXPECT_EQ(one.out, two.out) << how;
    EXPECT_NE(one.out, plain) << how;
  }
}

TEST_F(LanguageProgram, GuessesAheadAndWritesTheSame) {
  const std::string draft = qorus_test::data_path("models/stories260K/stories260K-q8_0.gguf");
  const std::string base = "qorus generate " + model + " -p 'Once upon a time' -n 100 --temperature 0.3 ";
  const Outcome plain = run(base);
  ASSERT_EQ(plain.code, 0) << plain.err;
  EXPECT_EQ(plain.err.find("guesses"), std::string::npos) << plain.err;
  for (const std::string& how : {std::string("--guess 8"), "--draft " + draft, "--guess 3 --draft " + draft}) {
    const Outcome guessed = run(base + how);
    EXPECT_EQ(guessed.out, plain.out) << how << guessed.err;
    EXPECT_NE(guessed.err.find("guesses were right"), std::string::npos) << how << guessed.err;
  }
  std::ofstream(folder / "lines") << "Once upon a time\n Lily\n";
  const std::string chat = QORUS_BIN "/qorus chat " + model + " --template plain -n 60 --context 400 --seed 3 ";
  const Outcome talk = shell(chat + "< " + folder / "lines"),
                guessed = shell(chat + "--draft " + draft + " < " + folder / "lines");
  EXPECT_EQ(talk.code, 0) << talk.err;
  EXPECT_EQ(guessed.out, talk.out) << guessed.err;
  EXPECT_NE(guessed.err.find("guesses were right"), std::string::npos) << guessed.err;
}

TEST_F(LanguageProgram, Chats) {
  std::ofstream(folder / "t.jinja")
      << "{% for m in messages %}{{ m.content }}{% if m.role == 'user' and m.content == 'no' %}"
         "{{ raise_exception('not so') }}{% endif %}{% endfor %}";
  const std::string program = "/qorus chat " + model + " --temperature 0 -n 20";
  const auto chat = [&](const std::string& lines, const std::string& more = "") {
    std::ofstream(folder / "lines") << lines;
    const std::string jinja = more.find("--template") == more.npos ? " --template " + folder / "t.jinja" : "";
    return shell(QORUS_BIN + program + more + jinja + " < " + folder / "lines");
  };
  // A template that writes the contents one after the other: the answer is what generate gives.
  const std::string story = run("qorus generate " + model + " -p 'Once upon a time' -n 20").out;
  const Outcome answer = chat("Once upon a time\n");
  ASSERT_EQ(answer.code, 0) << answer.err;
  EXPECT_EQ("Once upon a time" + answer.out, story);
  EXPECT_NE(answer.err.find("20 written"), std::string::npos) << answer.err;
  // The cache is read on from: a second turn is the same as in one go.
  const std::string longer =
      run("qorus generate " + model + " -p \"" + story.substr(0, story.size() - 1) + " Lily\" -n 20").out;
  const Outcome turns = chat("Once upon a time\n Lily\n");
  EXPECT_EQ(
      "Once upon a time" + answer.out.substr(0, answer.out.size() - 1) + " Lily" + turns.out.substr(answer.out.size()),
      longer);
  EXPECT_EQ(chat("Once upon a time\n/regenerate\n").out, answer.out + answer.out);
  EXPECT_EQ(chat("Once \\\nupon\n/undo\nOnce upon a time\n/save " + folder / "talk" + "\n/quit\nx\n")
                .out.ends_with(answer.out),
            true);
  const Outcome loaded = chat("/load " + folder / "talk" + "\n/show\n/reset\nOnce upon a time\n");
  EXPECT_EQ(loaded.out, "user: Once upon a time\nassistant: " + answer.out + answer.out) << loaded.err;
  EXPECT_EQ(chat("/show\n", " --system 'Be kind.'").out, "system: Be kind.\n");
  EXPECT_EQ(chat("/system Be kind.\n/show\n").out, "system: Be kind.\n");
  EXPECT_NE(chat("/help\n").err.find("/regenerate"), std::string::npos);
  EXPECT_EQ(chat("Hello\n", " --template plain").code, 0);
  EXPECT_EQ(chat("Hello\n", " --template chatml --cache f16").code, 0);
  std::ofstream(folder / "bad.json") << "[{\"role\": \"user\"}]";
  const struct {
    std::string lines, more, says;
  } cases[] = {
      {"/nope\n", "", "/nope"},
      {"/undo\n", "", "nothing"},
      {"/save\n", "", "/help"},
      {"/load " + folder / "none" + "\n", "", "none"},
      {"/load " + folder / "bad.json" + "\n", "", "role and content"},
      {"no\n", "", "not so"},
      {"Once upon a time\n", " --context 4", "context"},
      {"", " --template " + folder / "none", "none"},
      {"", " --template " + folder / "lines2", "frobnicate"},
  };
  std::ofstream(folder / "lines2") << "{{ 1 | frobnicate }}";
  for (const auto& c : cases) {
    const Outcome outcome = chat(c.lines.empty() ? "Hello\n" : c.lines, c.more);
    EXPECT_EQ(outcome.code, 1) << c.lines << c.more;
    EXPECT_NE(outcome.err.find(c.says), std::string::npos) << c.lines << c.more << "\n" << outcome.err;
  }
}

TEST_F(LanguageProgram, FinetunesAndMerges) {
  std::ofstream lines(folder / "d.jsonl");
  for (const char* name : {"Tom", "Lily", "Max", "Sue", "Ben", "Mia"})
    lines << "{\"prompt\": \"" << name << " has a cat.\", \"response\": \" The cat is very happy.\"}\n";
  lines.close();
  const std::string out = folder / "a.gguf", base = "qorus finetune " + model + " --data " + folder / "d.jsonl";
  const Outcome done =
      run(base + " --out " + out +
          " --lora 4 --targets q,v,up,down --epochs 12 --batch 1 --lr 1e-2 --validation 0.2 --sample Ben --recompute");
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_NE(done.out.find("tokens/s, peak memory"), std::string::npos) << done.out;
  EXPECT_NE(done.err.find("validation perplexity"), std::string::npos) << done.err;
  const std::string prompt = " -p 'Ben has a cat.' -n 12 ", taught = "Ben has a cat. The cat is very happy.";
  EXPECT_NE(run("qorus generate " + model + prompt).out.rfind(taught, 0), 0u);
  const Outcome adapted = run("qorus generate " + model + prompt + "--lora " + out);
  EXPECT_EQ(adapted.out.rfind(taught, 0), 0u) << adapted.out << adapted.err;
  const Outcome merged = run("qorus merge " + model + " " + out + " " + folder / "m.gguf");
  ASSERT_EQ(merged.code, 0) << merged.err;
  EXPECT_EQ(merged.out, "20 of 48 tensors changed\n");
  EXPECT_EQ(run("qorus generate " + folder / "m.gguf" + prompt).out, adapted.out);
  const struct {
    std::string more, says;
    int code;
  } cases[] = {
      {" --out " + folder / "none/a.gguf", "none", 1},    {" --out " + out + " --lora 0", "rank", 1},
      {" --out " + out + " --targets nose", "nose", 1},   {" --out " + out + " --context 100000", "context", 1},
      {" --out " + out + " --context 4", "d.jsonl:1", 1}, {" --out " + out + " --full --lora 4", "--lora", 2},
      {" --out " + out + " --lr 3e38", "diverged", 1}};
  for (const auto& c : cases) {
    const Outcome outcome = run(base + c.more);
    EXPECT_EQ(outcome.code, c.code) << c.more;
    EXPECT_NE(outcome.err.find(c.says), std::string::npos) << c.more << outcome.err;
  }
}

TEST_F(LanguageProgram, InspectTellsWhatItTakes) {
  const Outcome told = run("qorus inspect " + model);
  EXPECT_EQ(told.code, 0) << told.err;
  EXPECT_NE(told.out.find("llama: 5 layers of 64, 8 heads of 8 (4 of keys and values), context 128"), std::string::npos)
      << told.out;
  EXPECT_NE(told.out.find("f32 0.2 MB"), std::string::npos) << told.out;  // 2 * 5 * 4 * 8 * 128 * 4 bytes
}

TEST_F(LanguageProgram, SavesLogits) {
  const Outcome saved = run("qorus logits " + model + " --ids 1,403,407 --npy " + folder / "l.npy");
  ASSERT_EQ(saved.code, 0) << saved.err;
  const auto values = npy_values(read_file(folder / "l.npy"));
  const auto wanted = npy_values(read_file(qorus_test::data_path("models/stories260K/stories260K-F32.logits.npy")));
  ASSERT_EQ(values.size(), 3u * 512);
  for (std::size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(values[i], wanted[i], 1e-4) << i;
}

TEST_F(LanguageProgram, MeasuresPerplexityAndSpeed) {
  std::string text;
  for (int i = 0; i < 12; ++i)
    text += "Once upon a time, there was a little girl named Lily. She loved to play outside. ";
  std::ofstream(folder / "text") << text;
  const Outcome measured = run("qorus perplexity " + model + " --context 64 --file " + folder / "text");
  ASSERT_EQ(measured.code, 0) << measured.err;
  EXPECT_EQ(measured.out.rfind("perplexity ", 0), 0u) << measured.out;
  const double perplexity = std::stod(measured.out.substr(11));
  EXPECT_GT(perplexity, 1);
  EXPECT_LT(perplexity, 4);
  const Outcome bench = run("qorus bench " + model + " --prompt 8 --generate 4 --threads 1 --repeat 1 --json");
  ASSERT_EQ(bench.code, 0) << bench.err;
  for (const char* name : {"\"threads\": 1", "\"prompt_tokens\": 8", "prompt_tokens_per_s", "generate_tokens_per_s",
                           "first_token_s", "peak_rss_mb"})
    EXPECT_NE(bench.out.find(name), std::string::npos) << name << bench.out;
}

TEST_F(LanguageProgram, EndsCleanlyWhenInterruptedOrNotRead) {
  // Ctrl-C (which the shell's background jobs ignore, so that the program is started by a shell that does not). --foreground: once; without it the
  // whole group is signalled as well, and a second Ctrl-C while the first is obeyed ends the program at once.
  const Outcome stopped = shell("timeout --foreground -s INT 2 " QORUS_BIN "/qorus generate " + model +
                                " -n 100000 --context 100001; test $? = 124 || test $? = 0");
  EXPECT_EQ(stopped.code, 0) << stopped.err;
  EXPECT_NE(stopped.err.find("written"), std::string::npos) << stopped.err;
  const Outcome unread = shell("(" QORUS_BIN "/qorus generate " + model + " -n 300; echo code $? >&2) | head -c 20");
  EXPECT_NE(unread.err.find("code 0"), std::string::npos) << unread.err;
  EXPECT_EQ(unread.err.find("error"), std::string::npos) << unread.err;
  const Outcome full = shell(QORUS_BIN "/qorus generate " + model + " -n 3 > /dev/full");
  EXPECT_EQ(full.code, 1) << full.err;
}

TEST_F(LanguageProgram, BadInputIsExitCode1WithTheReason) {
  std::ofstream(folder / "text") << "this is no model";
  std::ofstream(folder / "empty") << "";
  const std::string whole = read_file(model), npy = " --npy " + folder / "x.npy";
  std::ofstream(folder / "cut.gguf", std::ios::binary) << whole.substr(0, whole.size() / 2);
  const struct {
    std::string line, says;
  } cases[] = {
      {"generate " + folder / "none", "none"},
      {"generate " + folder / "text", "text"},
      {"generate " + folder / "cut.gguf", "cut.gguf"},
      {"generate " + model + " -f " + folder / "none", "none"},
      {"generate " + model + " --context 4 -p 'There was a little girl named Lily'", "context"},
      {"generate " + model + " --bias 99999=1", "vocabulary"},
      {"generate " + model + " --bias x=1", "ID=NUMBER"},
      {"generate " + model + " --draft " + folder / "text", "text"},
      {"generate " + model + " --draft " + folder / "cut.gguf", "cut.gguf"},
      {"generate " + model + " --draft " + folder / "none", "none"},
      {"chat " + model + " --template plain --draft " + folder / "none", "none"},
      {"logits " + model + " --ids 1,512" + npy, "vocabulary"},
      {"logits " + model + " --ids 1,-2" + npy, "vocabulary"},
      {"logits " + model + " --ids 1,x" + npy, "x"},
      {"logits " + model + " --ids 1 --npy " + folder / "no/where.npy", "where.npy"},
      {"perplexity " + model + " --file " + folder / "empty", "tokens"},
      {"bench " + folder / "text", "text"},
  };
  for (const auto& c : cases) {
    const Outcome outcome = run("qorus " + c.line);
    EXPECT_EQ(outcome.code, 1) << c.line;
    EXPECT_NE(outcome.err.find("error: "), std::string::npos) << c.line << "\n" << outcome.err;
    EXPECT_NE(outcome.err.find(c.says), std::string::npos) << c.line << "\n" << outcome.err;
  }
  for (const char* line : {"generate", "logits x", "logits x --ids 1", "logits x --text a --ids 1 --npy y",
                           "perplexity x", "bench x --prompt 0", "generate x -p a -f b", "generate x --top-p 0",
                           "generate x --guess 65", "generate x --draft ''"})
    EXPECT_EQ(run(std::string("qorus ") + line).code, 2) << line;
}

// --- qorus train text ---

namespace {

class TextProgram : public qorus_test::ProgramTest {
 protected:
  void SetUp() override {
    std::ofstream file(folder / "sea.txt");
    for (int i = 0; i < 60; ++i)
      file << "The sea was wet as wet could be, the sands were dry as dry. You could not see a cloud, because\n";
  }
  // A run of a few seconds at most on a small model.
  Outcome train(const std::string& more, const std::string& data = "sea.txt") {
    return run("qorus train text --data " + folder / data +
               " --layers 1 --width 32 --heads 2 --context 32 --batch 4 --lr 0.01 --threads 1 " + more);
  }
};

}  // namespace

TEST_F(TextProgram, TrainsWhatGenerateRuns) {
  for (const char* tokenizer : {"bytes", "chars", "bpe:300"}) {
    const std::string model = folder / "model.gguf";
    const Outcome made = train("--steps 60 --sample 8 --report " + folder / "run.html" + " --tokenizer " + tokenizer +
                               " --out " + model);
    ASSERT_EQ(made.code, 0) << tokenizer << made.err;
    EXPECT_NE(made.out.find("perplexity"), std::string::npos) << made.out;
    EXPECT_NE(made.out.find("60 steps"), std::string::npos) << made.out;
    EXPECT_NE(made.err.find("validation loss"), std::string::npos) << made.err;
    EXPECT_NE(read_file(folder / "run.html").find("<html"), std::string::npos);
    const Outcome text = run("qorus generate " + model + " -p 'The sea' -n 5");
    EXPECT_EQ(text.code, 0) << text.err;
    EXPECT_EQ(text.out.rfind("The sea", 0), 0u) << text.out;
    EXPECT_EQ(run("qorus verify " + model + " --as model").code, 0);
    // In the same words, another type, further on the other's vocabulary.
    const Outcome again = train("--steps 2 --type q8_0 --tied --tokenizer " + model + " --out " + folder / "b.gguf");
    EXPECT_EQ(again.code, 0) << again.err;
    EXPECT_EQ(run("qorus generate " + model + " -p 'The sea' -n 5 --draft " + folder / "b.gguf").out, text.out);
    const std::string words = " --text 'You could not, Größe'";
    EXPECT_EQ(run("qorus tokenize " + model + words).out, run("qorus tokenize " + folder / "b.gguf" + words).out);
  }
}

// Vocabularies of other programs: ids are cut as the source's tokenizer cuts them, and the file says so to whoever reads it.
TEST_F(TextProgram, TakesTheVocabularyOfAFile) {
  QORUS_NEEDS_DATA("tokenizer-vocab");
  for (const char* name : {"tokenizer-vocab/llama2-tokenizer.model", "tokenizer-json/gpt2/tokenizer.json",
                           "models/stories260K/tok512.bin"}) {
    const std::string file = qorus_test::data_path(name);
    const std::string model = folder / "model.gguf";
    const Outcome made = train("--steps 2 --bf16 --type f16 --tokenizer " + file + " --out " + model);
    ASSERT_EQ(made.code, 0) << file << made.err;
    EXPECT_EQ(run("qorus generate " + model + " -p 'The sea' -n 3").code, 0) << file;
    const std::string words = " --text 'The sea was wet, you could not see'";
    EXPECT_EQ(run("qorus tokenize " + model + words).out, run("qorus tokenize " + file + words).out) << file;
    EXPECT_EQ(shell("ls " + folder.path()).out.find("vocabulary"), std::string::npos);
  }
}

TEST_F(TextProgram, TheExampleRuns) {
  QORUS_NEEDS_EXAMPLES();
  const Outcome made = run("example_text_model " + folder / "sea.txt" + " " + folder / "example.gguf" + " 3");
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_NE(made.out.find("validation loss"), std::string::npos) << made.out;
  EXPECT_EQ(run("qorus generate " + folder / "example.gguf" + " -p sea -n 3").code, 0);
}

TEST_F(TextProgram, GoesOnWhereItWasKilled) {
  const std::string same = "--steps 120 --tokenizer bytes --checkpoint-every 5 --out ";
  ASSERT_EQ(train(same + folder / "whole.gguf").code, 0);
  for (const char* seconds : {"0.15", "0.4"}) {
    (void)shell("timeout -s KILL " + std::string(seconds) + " " QORUS_BIN "/qorus train text --data " +
                folder / "sea.txt" +
                " --layers 1 --width 32 --heads 2 --context 32 --batch 4 --lr 0.01 --threads 1 --checkpoints " +
                folder / "run " + same + folder / "parts.gguf");
  }
  ASSERT_EQ(train("--checkpoints " + folder / "run " + same + folder / "parts.gguf").code, 0);
  EXPECT_EQ(read_file(folder / "parts.gguf"), read_file(folder / "whole.gguf"));
}

// One kill of each kind of run; tools/kill-runs alone does 200.
TEST_F(TextProgram, KilledRunsEndWithTheSameFile) {
  QORUS_NEEDS_DATA("models/stories260K");
  const Outcome done = shell(QORUS_TOOLS "/kill-runs --count 6 --build " QORUS_BIN "/..");
  EXPECT_EQ(done.code, 0) << done.out << done.err;
  EXPECT_EQ(std::count(done.out.begin(), done.out.end(), '\n'), 6) << done.out;
}

TEST_F(TextProgram, BadInputIsExitCode1WithTheReason) {
  std::ofstream(folder / "empty") << "";
  std::ofstream(folder / "short") << "A few words.";
  const std::string out = " --out " + folder / "m.gguf";
  const struct {
    std::string more, data, says;
  } cases[] = {
      {"--steps 1" + out, "none", "none"},
      {"--steps 1" + out, "empty", "no text"},
      {"--steps 1 --validation 0" + out, "short", "more tokens than a window"},
      {"--steps 1 --tokenizer bpe:100" + out, "sea.txt", "257"},
      {"--steps 1 --tokenizer bpe:many" + out, "sea.txt", "bpe:many"},
      {"--steps 1 --tokenizer " + folder / "sea.txt" + out, "sea.txt", "sea.txt"},
      {"--steps 1 --kv-heads 3" + out, "sea.txt", "heads"},
      {"--steps 1 --out " + folder / "no/where.gguf", "sea.txt", "where.gguf"},
  };
  for (const auto& c : cases) {
    const Outcome outcome = train(c.more, c.data);
    EXPECT_EQ(outcome.code, 1) << c.more;
    EXPECT_NE(outcome.err.find("error: "), std::string::npos) << c.more << "\n" << outcome.err;
    EXPECT_NE(outcome.err.find(c.says), std::string::npos) << c.more << "\n" << outcome.err;
  }
  for (const char* line : {"train", "train text", "train text --data x", "train text --data x --out y --type q3"})
    EXPECT_EQ(run(std::string("qorus ") + line).code, 2) << line;
  EXPECT_EQ(shell("ls " + folder.path()).out.find("ids"), std::string::npos);
}
