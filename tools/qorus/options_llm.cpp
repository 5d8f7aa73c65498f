// The command line of the commands that run language models.
#include <string>

#include "options_llm.h"

namespace {

const CLI::Validator k_named([](std::string& name) { return name.empty() ? "no name" : std::string(); }, "FILE");

void add_model(CLI::App& command, Options& options) {
  command
      .add_option("model", options.model,
                  "A GGUF file, a folder with config.json and safetensors, or a checkpoint of llama2.c")
      ->required()
      ->type_name("MODEL");
  command.add_option("--tokenizer", options.tokenizer, "The tokenizer's file, where none lies with the model")
      ->type_name("FILE");
  command.add_option("--lora", options.adapter, "An adapter to run it with: a GGUF file, or PEFT's folder")
      ->check(k_named)
      ->type_name("FILE");
  command.add_option("--lora-scale", options.adapter_scale, "How much of the adapter")
      ->capture_default_str()
      ->type_name("X");
  command.add_option("--threads", options.threads, "Worker threads (default: every processor this process may use)")
      ->check(CLI::Range(1, 256))
      ->type_name("N");
}

void add_context(CLI::App& command, Options& options, const char* what) {
  command.add_option("--context", options.context, what)->check(CLI::Range(1, 1 << 20))->type_name("N");
}

void add_cache(CLI::App& command, Options& options) {
  command
      .add_option("--cache", options.cache,
                  "How keys and values are kept: f16 and q8_0 take half and a quarter of the memory, and are faster "
                  "after some hundred tokens")
      ->check(CLI::IsMember({"f32", "f16", "q8_0"}))
      ->capture_default_str();
}

void add_sampling(CLI::App& command, Options& options) {
  const auto number = [&](const char* name, auto& value, const char* what, const CLI::Validator& range) {
    command.add_option(name, value, what)
        ->check(range)
        ->capture_default_str()
        ->type_name("N")
        ->group("Choice of tokens");
  };
  const CLI::Range share(0.0, 1.0), penalty(-1000.0, 1000.0), any_count(0, 1 << 20);
  number("--temperature", options.temperature, "0: always the most likely token", CLI::Range(0.0, 1e6));
  number("--top-k", options.top_k, "Only so many of the most likely tokens; 0: all", any_count);
  number("--top-p", options.top_p, "Only the most likely tokens that have this probability together",
         CLI::Range(0.0001, 1.0));
  number("--min-p", options.min_p, "Only tokens with this share of the likeliest one's probability", share);
  number("--typical", options.typical_p, "Only tokens of about the expected surprise, of this mass",
         CLI::Range(0.0001, 1.0));
  number("--mirostat", options.mirostat_tau, "Above 0: mirostat 2 towards this surprise in bits", CLI::Range(0.0, 1e3));
  number("--mirostat-rate", options.mirostat_eta, "How fast mirostat gets there", CLI::Range(0.0, 1e3));
  number("--repetition-penalty", options.repetition_penalty, "Divides the logits of tokens seen lately; 1: none",
         CLI::Range(0.001, 1000.0));
  number("--frequency-penalty", options.frequency_penalty, "Taken from a logit for each time that the token was seen",
         penalty);
  number("--presence-penalty", options.presence_penalty, "Taken from the logits of tokens seen lately", penalty);
  number("--penalty-last", options.penalty_last, "How many tokens are lately", any_count);
  command.add_option("--seed", options.seed, "The same seed, the same text")
      ->capture_default_str()
      ->type_name("N")
      ->group("Choice of tokens");
  command.add_option("--bias", options.bias, "Adds a number to a token's logit, as in 13=-2.5; may be given again")
      ->type_name("ID=NUMBER")
      ->group("Choice of tokens");
  command.add_option("--stop", options.stop, "A text that ends it, and is not printed; may be given again")
      ->type_name("TEXT")
      ->group("Choice of tokens");
}

void add_guessing(CLI::App& command, Options& options) {
  command
      .add_option(
          "--guess", options.guess,
          "So many tokens at most are guessed ahead, as they stood before or by --draft; the text stays the same "
          "(default: 0, with --draft 7)")
      ->check(CLI::Range(0, 64))
      ->type_name("N");
  command.add_option("--draft", options.draft, "A smaller model with the same vocabulary, which guesses")
      ->check(k_named)
      ->type_name("MODEL");
}
void choose_guessing(const CLI::App& command, Options& options) {
  if (command.count("--draft") > 0 && command.count("--guess") == 0) options.guess = 7;
}

void add_generate(CLI::App& app, Options& options) {
  CLI::App* generate = app.add_subcommand("generate", "Continue a text with a language model");
  add_model(*generate, options);
  CLI::Option* text = generate->add_option("-p,--prompt", options.prompt, "The text to continue; none: begin anew");
  text->type_name("TEXT");
  generate->add_option("-f,--file", options.file, "A file with the text; - is the standard input")
      ->check(k_named)
      ->excludes(text)
      ->type_name("FILE");
  generate->add_option("-n,--tokens", options.tokens, "Tokens at most")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str()
      ->type_name("N");
  generate->add_flag("--special", options.special, "Take control pieces that the text spells out for what they are");
  add_cache(*generate, options);
  add_context(*generate, options, "Tokens of prompt and text together (default: as the model was trained)");
  add_guessing(*generate, options);
  add_sampling(*generate, options);
  generate->callback([generate, &options] {
    options.command = Command::generate;
    choose_guessing(*generate, options);
  });
}

void add_chat(CLI::App& app, Options& options) {
  CLI::App* chat = app.add_subcommand("chat", "Talk with a language model");
  add_model(*chat, options);
  chat->add_option("--template", options.jinja,
                   "How a conversation is spelled: a file in Jinja, or chatml, or plain (default: as the model says)")
      ->check(k_named)
      ->type_name("FILE");
  chat->add_option("--system", options.system, "What the model is told first")->type_name("TEXT");
  chat->add_option("-n,--tokens", options.tokens, "Tokens of an answer at most (default: 1024)")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N");
  add_cache(*chat, options);
  add_context(*chat, options, "Tokens of the conversation (default: as the model was trained)");
  add_guessing(*chat, options);
  add_sampling(*chat, options);
  chat->footer(
      "Without any choice of tokens it is as the model's files suggest, else --temperature 0.8 --top-p 0.95.\nA line "
      "that begins with / is a command: /help lists them. One that ends in \\ goes on in the next.");
  chat->callback([chat, &options] {
    options.command = Command::chat;
    choose_guessing(*chat, options);
    if (chat->count("--tokens") == 0) options.tokens = 1024;
    for (const CLI::Option* option : chat->get_options())
      options.sampled = options.sampled || (option->get_group() == "Choice of tokens" && option->count() > 0 &&
                                            option->get_name() != "--seed" && option->get_name() != "--stop");
  });
}

void add_logits(CLI::App& app, Options& options) {
  CLI::App* logits = app.add_subcommand("logits", "Save what a language model gives for every token of a text");
  add_model(*logits, options);
  CLI::Option_group* input = logits->add_option_group("input", "One of these");
  input->add_option("--text", options.text, "The text; a BOS before it where the model wants one")->type_name("TEXT");
  input->add_option("--ids", options.ids, "Tokens, as in 1,403,407")->type_name("IDS");
  input->require_option(1);
  logits->add_option("--npy", options.npy, "Where to: an array [tokens, vocabulary] of f32")
      ->required()
      ->check(k_named)
      ->type_name("FILE");
  logits->callback([&options] { options.command = Command::logits; });
}

void add_perplexity(CLI::App& app, Options& options) {
  CLI::App* perplexity = app.add_subcommand("perplexity", "How well a language model foretells a text");
  add_model(*perplexity, options);
  perplexity->add_option("--file", options.file, "The text; - is the standard input")
      ->required()
      ->check(k_named)
      ->type_name("FILE");
  add_context(*perplexity, options, "Tokens of a window (default: 512, or what the model has if that is less)");
  perplexity->callback([&options] { options.command = Command::perplexity; });
}

void add_bench(CLI::App& app, Options& options) {
  CLI::App* bench = app.add_subcommand("bench", "Measure a language model: tokens per second");
  add_model(*bench, options);
  const auto count = [&](const char* name, int& value, const char* what, int least) {
    bench->add_option(name, value, what)->check(CLI::Range(least, 1 << 19))->capture_default_str()->type_name("N");
  };
  count("--prompt", options.prompt_tokens, "Tokens of the prompt", 1);
  count("--generate", options.generate_tokens, "Tokens generated one by one, after the prompt", 0);
  count("--repeat", options.repeat, "Rounds, of which the median counts", 1);
  add_cache(*bench, options);
  bench->add_flag("--json", options.json, "One line of JSON instead of the table");
  bench->callback([&options] { options.command = Command::bench; });
}

}  // namespace

void add_llm_commands(CLI::App& app, Options& options) {
  add_generate(app, options);
  add_chat(app, options);
  add_logits(app, options);
  add_perplexity(app, options);
  add_bench(app, options);
}
