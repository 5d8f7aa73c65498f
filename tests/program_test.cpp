// The qorus program and the examples, run as a user runs them: what they print where, what they leave, and their exit codes.
// Imports nothing: it looks at processes from outside.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <regex>
#include <string>
#include <utility>

#include "tests/program.h"
#include "tests/test_data.h"

namespace {

using qorus_test::Outcome;

class Program : public qorus_test::ProgramTest {
 protected:
  static double accuracy_in(const std::string& text) {
    std::smatch found;
    return std::regex_search(text, found, std::regex(R"(accuracy (\d+\.\d+) %)")) ? std::stod(found[1]) : -1;
  }
};

}  // namespace

TEST_F(Program, HelpAndVersion) {
  const Outcome help = run("qorus --help"), version = run("qorus --version"), train = run("qorus train --help");
  EXPECT_EQ(help.code, 0);
  for (const char* word :
       {"train", "predict", "inspect", "tokenize", "generate", "logits", "perplexity", "bench", "Exit codes"})
    EXPECT_NE(help.out.find(word), std::string::npos) << word;
  EXPECT_EQ(version.code, 0);
  EXPECT_EQ(version.out.rfind("qorus ", 0), 0u);
  EXPECT_EQ(train.code, 0);
  for (const char* word : {"--data", "--epochs", "--threads", "--seed", "--out"})
    EXPECT_NE(train.out.find(word), std::string::npos) << word;
}

TEST_F(Program, WrongUsageIsExitCode2) {
  for (const char* line : {"qorus",
                           "qorus fly",
                           "qorus train",
                           "qorus train cats",
                           "qorus train digits --threads 0",
                           "qorus train digits --epochs 0",
                           "qorus train digits --epochs x",
                           "qorus predict",
                           "qorus inspect",
                           "qorus train digits --lr -1",
                           "qorus train digits --nonsense",
                           "qorus tokenize",
                           "qorus tokenize x",
                           "qorus quantize a b --type q9",
                           "qorus quantize a",
                           "qorus quantize a b --tensor x",
                           "qorus diff a",
                           "qorus verify",
                           "qorus tokenize x --text a --file b",
                           "qorus tokenize x --file ''"}) {
    const Outcome outcome = run(line);
    EXPECT_EQ(outcome.code, 2) << line;
    EXPECT_EQ(outcome.out, "") << line;
    EXPECT_NE(outcome.err, "") << line;
  }
}

TEST_F(Program, FailuresAreExitCode1WithTheReason) {
  std::ofstream(folder / "text") << "this is no model";
  const struct {
    std::string line, says;
  } cases[] = {
      {"qorus train mnist", "--data"},
      {"qorus train mnist --data " + folder / "nowhere", "nowhere"},
      {"qorus inspect " + folder / "nothing", "nothing"},
      {"qorus inspect " + folder / "text", "text"},
      {"qorus inspect " + folder.path(), "without safetensors"},
      {"qorus predict " + folder / "text", "text"},
      {"qorus tokenize " + folder / "text" + " --text a", "text"},
      {"qorus tokenize " + folder / "nothing" + " --text a", "nothing"},
      {"qorus train digits --epochs 1 --hidden 4 --out " + folder / "no/such/folder/model", "folder"},
  };
  for (const auto& c : cases) {
    const Outcome outcome = run(c.line);
    EXPECT_EQ(outcome.code, 1) << c.line;
    EXPECT_NE(outcome.err.find("error: "), std::string::npos) << c.line << "\n" << outcome.err;
    EXPECT_NE(outcome.err.find(c.says), std::string::npos) << c.line << "\n" << outcome.err;
  }
}

TEST_F(Program, TrainsSavesLoadsAndPredicts) {
  const std::string model = folder / "digits.safetensors";
  const Outcome train = run("qorus train digits --epochs 3 --seed 7 --out " + model);
  ASSERT_EQ(train.code, 0) << train.err;
  EXPECT_GE(accuracy_in(train.out), 98) << train.out;
  EXPECT_EQ(train.err.find('\r'), std::string::npos);  // no terminal, no redrawing
  const Outcome inspect = run("qorus inspect " + model);
  ASSERT_EQ(inspect.code, 0) << inspect.err;
  EXPECT_NE(inspect.out.find("[256,784]"), std::string::npos) << inspect.out;
  EXPECT_NE(inspect.out.find("4 tensors, 203530 elements"), std::string::npos) << inspect.out;
  const Outcome predict = run("qorus predict " + model + " --seed 7 --show 3");
  ASSERT_EQ(predict.code, 0) << predict.err;
  EXPECT_EQ(accuracy_in(predict.out), accuracy_in(train.out)) << predict.out;  // what was loaded is what was saved
  EXPECT_NE(predict.out.find("prediction"), std::string::npos);
  // The same seed gives the same file, whatever the threads.
  const Outcome again = run("qorus train digits --epochs 3 --seed 7 --threads 1 --out " + folder / "again");
  ASSERT_EQ(again.code, 0);
  EXPECT_EQ(read_file(folder / "again"), read_file(model));
}

TEST_F(Program, InspectShowsAGgufFile) {
  const std::string file = folder / "tiny.gguf";
  const auto put = [&](auto value, const std::string& text = "") {
    std::ofstream out(file, std::ios::binary | std::ios::app);
    out.write(reinterpret_cast<const char*>(&value), sizeof value);
    out << text;
  };
  put(std::uint32_t{0x46554747});  // "GGUF"
  put(std::uint32_t{3});
  put(std::uint64_t{1});  // tensors
  put(std::uint64_t{1});  // entries
  put(std::uint64_t{3}, "key");
  put(std::uint32_t{8});  // a text
  put(std::uint64_t{5}, "value");
  put(std::uint64_t{1}, "w");
  put(std::uint32_t{2});
  put(std::uint64_t{32});
  put(std::uint64_t{2});
  put(std::uint32_t{8});  // q8_0
  put(std::uint64_t{0}, std::string(11 + 68, '\0'));
  const Outcome inspect = run("qorus inspect " + file);
  ASSERT_EQ(inspect.code, 0) << inspect.err;
  for (const char* words :
       {"\"value\"", "GGUF version 3, 1 entries", "[2,32]", "Q8_0", "1 tensors, 64 elements, 68 bytes"})
    EXPECT_NE(inspect.out.find(words), std::string::npos) << words << "\n" << inspect.out;
  std::ofstream(file, std::ios::binary) << "GGUF and no more";
  const Outcome broken = run("qorus inspect " + file);
  EXPECT_EQ(broken.code, 1);
  EXPECT_NE(broken.err.find("read_gguf"), std::string::npos) << broken.err;
}

TEST_F(Program, AFullDiskLosesNothing) {
  const std::string model = folder / "model";
  ASSERT_EQ(run("qorus train digits --epochs 1 --hidden 8 --out " + model).code, 0);
  const std::string before = read_file(model);
  // No file may grow beyond 8 KiB: the write fails as on a full disk.
  const Outcome full = run("qorus train digits --epochs 1 --hidden 64 --out " + model, "trap '' XFSZ; ulimit -f 8;");
  EXPECT_EQ(full.code, 1) << full.err;
  EXPECT_NE(full.err.find("error: save"), std::string::npos) << full.err;
  EXPECT_EQ(read_file(model), before);
  EXPECT_EQ(std::system(("test $(ls " + folder.path() + " | wc -l) = 3").c_str()), 0)
      << "a temporary file was left behind";
}

TEST_F(Program, MnistReaches98PercentIn5Epochs) {
  QORUS_NEEDS_DATA("mnist");
  if (!qorus_test::k_counts_allocations) GTEST_SKIP() << "too slow under a sanitizer";
  const Outcome train = run("qorus train mnist --epochs 5 --data " + qorus_test::data_path("mnist"));
  ASSERT_EQ(train.code, 0) << train.err;
  EXPECT_GE(accuracy_in(train.out), 98.0) << train.out;
}

TEST_F(Program, Tokenizes) {
  QORUS_NEEDS_DATA("tokenizer-vocab/llama2-tokenizer.model");
  for (const char* name : {"tokenizer-vocab/ggml-vocab-llama-spm.gguf", "tokenizer-vocab/llama2-tokenizer.model"}) {
    const std::string command = "qorus tokenize " + qorus_test::data_path(name);
    const Outcome plain = run(command + " --text 'Hello world'");
    EXPECT_EQ(plain.code, 0) << plain.err;
    EXPECT_EQ(plain.out, "15043 3186\n");
    EXPECT_EQ(run(command + " --bos --text 'Hello world'").out, "1 15043 3186\n");
    EXPECT_EQ(run(command + " --text ''").out, "\n");
    EXPECT_EQ(run(command + " --special --text '</s>'").out, "2\n");
    EXPECT_NE(run(command + " --text '</s>'").out, "2\n");
    const std::string text = std::string("a\xff\0b\r\n  \xe2\x82\xac", 11);
    std::ofstream(folder / "text", std::ios::binary) << text;
    const Outcome ids = run(command + " --file " + folder / "text");
    std::ofstream(folder / "ids") << ids.out;
    EXPECT_EQ(run(command + " --decode --file " + folder / "ids").out, text);
    EXPECT_EQ(run(command + " --decode --text '15043, 3186'").out, "Hello world");
    EXPECT_EQ(run(command + " --decode --text '99999999'").code, 1);
    EXPECT_EQ(run(command + " --decode --text '1x'").code, 1);
  }
  const Outcome gpt2 = run("qorus tokenize " + qorus_test::data_path("tokenizer-json/gpt2/tokenizer.json") +
                           " --text 'How are you doing?'");
  EXPECT_EQ(gpt2.out, "2437 389 345 1804 30\n");
  const Outcome stories = run("qorus tokenize " + qorus_test::data_path("models/stories260K/tok512.bin") +
                              " --bos --text 'Once upon a time'");
  EXPECT_EQ(stories.out, "1 403 407 261 378\n");
}

TEST_F(Program, ExamplesRun) {
  QORUS_NEEDS_EXAMPLES();
  for (const char* name : {"classifier", "tape_loop", "custom_layer", "own_kernel", "two_branches"}) {
    const Outcome outcome = run(std::string("example_") + name);
    EXPECT_EQ(outcome.code, 0) << name << "\n" << outcome.err;
    EXPECT_GE(accuracy_in(outcome.out), 97) << name << "\n" << outcome.out;
  }
}

TEST_F(Program, ExamplesOfPicturesRun) {
  QORUS_NEEDS_EXAMPLES();
  for (const auto& [name, least] : {std::pair{"lenet", 96}, {"conv_net", 90}, {"resnet", 95}}) {
    const Outcome outcome = run(std::string("example_") + name, "cd " + folder / "." + " &&");
    EXPECT_EQ(outcome.code, 0) << name << "\n" << outcome.err;
    EXPECT_GE(accuracy_in(outcome.out), least) << name << "\n" << outcome.out;
  }
  const Outcome outcome = run("example_autoencoder");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  std::smatch found;
  ASSERT_TRUE(std::regex_search(outcome.out, found, std::regex(R"(error (\d\.\d+) after the first epoch, (\d\.\d+))")));
  EXPECT_LT(std::stod(found[2]), 0.6 * std::stod(found[1])) << outcome.out;
}

// On a small budget and the data that they carry: that they run, and say what they found.
TEST_F(Program, QuickExamplesRun) {
  QORUS_NEEDS_EXAMPLES();
  for (const char* name :
       {"gpt", "llama", "moe_gpt", "names", "forecast", "tables", "customers", "code_assistant", "domain_text"}) {
    const Outcome outcome = run(std::string("example_") + name + " --quick", "cd " + folder / "." + " &&");
    EXPECT_EQ(outcome.code, 0) << name << "\n" << outcome.err;
    EXPECT_GT(outcome.out.size(), 50u) << name << "\n" << outcome.out;
  }
}

TEST_F(Program, ALongRunGoesOn) {
  QORUS_NEEDS_EXAMPLES();
  qorus_test::TemporaryFolder folder;
  const std::string place = folder / "long";
  EXPECT_EQ(run("example_long_run " + place + " 1").code, 0);
  const Outcome outcome = run("example_long_run " + place + " 2");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("2 epochs, 188 steps"), outcome.out.npos) << outcome.out;
  EXPECT_GE(accuracy_in(outcome.out), 80) << outcome.out;
}

TEST_F(Program, FilesAreQuantisedComparedAndVerified) {
  QORUS_NEEDS_DATA("models/stories260K/stories260K-F32.gguf");
  const std::string from = qorus_test::data_path("models/stories260K/stories260K-F32.gguf"), to = folder / "x.gguf";
  const Outcome made = run("qorus quantize " + from + " " + to + " --type q8_0 --tensor 'blk.0.*=f16'");
  EXPECT_EQ(made.code, 0) << made.err;
  EXPECT_NE(made.out.find("tensors converted"), made.out.npos) << made.out;
  const Outcome shown = run("qorus inspect " + to);
  EXPECT_NE(shown.out.find("Q8_0"), shown.out.npos);
  EXPECT_NE(shown.out.find("F16"), shown.out.npos);
  const Outcome same = run("qorus diff " + from + " " + from), other = run("qorus diff " + from + " " + to);
  EXPECT_EQ(same.code, 0) << same.err;
  EXPECT_EQ(other.code, 1);
  EXPECT_NE(other.out.find("F32/Q8_0"), other.out.npos) << other.out;
  EXPECT_EQ(run("qorus verify " + to).code, 0);
  std::ofstream(folder / "cut.gguf") << "GGUF";
  const Outcome cut = run("qorus verify " + folder / "cut.gguf");
  EXPECT_EQ(cut.code, 1);
  EXPECT_NE(cut.err.find("cut.gguf"), cut.err.npos) << cut.err;
  EXPECT_EQ(run("qorus verify --as npy " + to).code, 1);
}

TEST_F(Program, FilesAreConvertedBothWays) {
  QORUS_NEEDS_DATA("models/stories260K/stories260K-F32.gguf");
  const std::string from = qorus_test::data_path("models/stories260K/stories260K-F32.gguf");
  const std::string native = folder / "x.qorus", back = folder / "x.gguf", parts = folder / "parts";
  const Outcome made = run("qorus convert " + from + " " + native + " --laid-out");
  EXPECT_EQ(made.code, 0) << made.err;
  EXPECT_EQ(run("qorus verify " + native).out, native + ": a valid qorus file\n");
  EXPECT_EQ(run("qorus convert " + native + " " + back).code, 0);
  EXPECT_EQ(run("qorus diff " + from + " " + back).code, 0);
  EXPECT_EQ(run("qorus convert " + from + " " + parts + " --shard-size 100kB --type bf16").code, 0);
  EXPECT_EQ(run("qorus verify " + parts).code, 0);
  EXPECT_NE(run("qorus inspect " + parts).out.find("model.layers.0.self_attn.q_proj.weight"), std::string::npos);
  EXPECT_EQ(run("qorus convert " + from + " " + folder / "y.npz" + " --type f16").code, 0);
  EXPECT_EQ(run("qorus verify " + folder / "y.npz").code, 0);
  const Outcome cannot = run("qorus convert " + from + " " + folder / "z.npz" + " --type q8_0");
  EXPECT_EQ(cannot.code, 1);
  EXPECT_NE(cannot.err.find("q8_0"), cannot.err.npos) << cannot.err;
  EXPECT_EQ(run("qorus convert " + from + " " + native + " --to docx").code, 2);
}
