// Chat templates: what Jinja makes of them (tests/templates, by bench/peers/chat_templates.py), their bounds, and what they refuse.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "tests/files.h"
#include "tests/json.h"
#include "tests/testing.h"

import qorus.text;

using namespace qorus;
using qorus_test::Json;

namespace {

constexpr text::ChatOptions k_options{.add_generation_prompt = false, .bos = "<s>", .eos = "</s>", .now = 1700000000};

std::string rendered(const std::string& source, const std::string& variables = "{}",
                     const text::ChatOptions& options = k_options) {
  auto made = text::ChatTemplate::parse(source);
  if (!made) return std::string("parse: ") + made.error().message().c_str();
  auto out = made->render(variables, options);
  if (!out) return std::string("error: ") + out.error().message().c_str();
  return {out->data(), out->size()};
}
// The error of parsing or, where that is none, of running.
Status failure(const std::string& source, const text::ChatOptions& options = k_options,
               const std::string& variables = "{}") {
  auto made = text::ChatTemplate::parse(source);
  if (!made) return fail(made.error());
  auto out = made->render(variables, options);
  if (!out) return fail(out.error());
  return {};
}

}  // namespace

TEST(ChatTemplate, IsWhatJinjaMakesOfIt) {
  ::setenv("TZ", "UTC", 1);
  const char* other = std::getenv("QORUS_TEMPLATES");
  std::size_t cases = 0;
  for (const auto& entry : std::filesystem::directory_iterator(other ? other : QORUS_TEMPLATES)) {
    if (entry.path().extension() != ".json") continue;
    const Json file = qorus_test::JsonParser(qorus_test::read_file(entry.path().string())).value();
    auto made = text::ChatTemplate::parse(file["template"].text);
    EXPECT_OK(made) << entry.path();
    if (!made) continue;
    for (const Json& c : file["cases"].items) {
      ++cases;
      auto out = made->render(c["variables"].text, k_options);
      if (c.members.contains("error")) {
        EXPECT_FALSE(out) << entry.path() << " should say " << c["error"].text;
        continue;
      }
      EXPECT_OK(out) << entry.path() << c["variables"].text;
      if (out) {
        EXPECT_EQ(std::string(out->data(), out->size()), c["text"].text) << entry.path() << c["variables"].text;
      }
    }
  }
  EXPECT_GE(cases, other ? 1u : 40u);
}

TEST(ChatTemplate, OfAConversation) {
  auto made = text::ChatTemplate::parse(
      "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m['content'] }}{{ eos_token }}{% endfor %}"
      "{% if add_generation_prompt %}[assistant]{% endif %}");
  ASSERT_OK(made);
  const text::ChatMessage messages[] = {{"system", "s"}, {"user", "{{ u }}"}};
  auto out = made->render(messages, {.bos = "<s>", .eos = "</s>"});
  ASSERT_OK(out);
  EXPECT_EQ(std::string(out->data(), out->size()), "<s>[system]s</s>[user]{{ u }}</s>[assistant]");
}

TEST(ChatTemplate, SaysWhatIsWrong) {
  EXPECT_FAILS(failure("{% for %}"), Errc::corrupt);
  EXPECT_FAILS(failure("{% if a %}"), Errc::corrupt);
  EXPECT_FAILS(failure("{{ a"), Errc::corrupt);
  EXPECT_FAILS(failure("{{ 'a }}"), Errc::corrupt);
  EXPECT_FAILS(failure("{# a"), Errc::corrupt);
  EXPECT_FAILS(failure("{% endif %}"), Errc::unsupported);
  EXPECT_FAILS(failure("{{ 1 + }}"), Errc::corrupt);
  EXPECT_FAILS(failure("{{ ] }}"), Errc::corrupt);
  EXPECT_FAILS(failure("{{ 99999999999999999999 }}"), Errc::corrupt);
  EXPECT_FAILS(failure("{{ '\\u12' }}"), Errc::corrupt);
  EXPECT_FAILS(failure("{% include 'x' %}"), Errc::unsupported);
  EXPECT_FAILS_SAYING(failure("{% extends 'x' %}"), "extends");
  EXPECT_FAILS_SAYING(failure("{{ 1 | frobnicate }}"), "frobnicate");
  EXPECT_FAILS_SAYING(failure("{{ 1 is frobnicated }}"), "frobnicated");
  EXPECT_FAILS_SAYING(failure("{{ 'a'.frobnicate() }}"), "frobnicate");
  EXPECT_FAILS_SAYING(failure("{{ frobnicate() }}"), "frobnicate");
  EXPECT_FAILS_SAYING(failure("{{ raise_exception('no such roles') }}"), "no such roles");
  EXPECT_FAILS(failure("{{ a.b.c }}"), Errc::invalid_argument);
  EXPECT_FAILS(failure("{{ 1 + 'a' }}"), Errc::invalid_argument);
  EXPECT_FAILS(failure("{{ 1 / 0 }}"), Errc::invalid_argument);
  EXPECT_FAILS(failure("{{ 1 % 0 }}"), Errc::invalid_argument);
  EXPECT_FAILS(failure("{{ 9223372036854775807 + 1 }}"), Errc::invalid_argument);
  EXPECT_FAILS(failure("{{ [1] < ['a'] }}"), Errc::invalid_argument);
  EXPECT_FAILS(failure("{{ 'a'[1:2:0] }}"), Errc::invalid_argument);
  EXPECT_FAILS(failure("{% set a, b = [1] %}"), Errc::invalid_argument);
  EXPECT_FAILS(failure("{% set a.b = 1 %}"), Errc::invalid_argument);
  EXPECT_FAILS(failure("{% for a in 5 %}{% endfor %}"), Errc::invalid_argument);
  EXPECT_FAILS(failure("x", k_options, "[1]"), Errc::corrupt);
  EXPECT_FAILS(failure("x", k_options, "{"), Errc::corrupt);
  EXPECT_FAILS(text::ChatTemplate().render("{}"), Errc::not_built);
}

// Loops in loops, texts that double, macros that call themselves, brackets without end: an error, soon.
TEST(ChatTemplate, IsBounded) {
  const std::string many = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
  const text::ChatOptions few{.steps = 1000000, .memory = 16_MiB};
  EXPECT_FAILS(failure(many), Errc::overflow);
  EXPECT_FAILS(failure("{% for a in range(100001) %}{% endfor %}"), Errc::overflow);
  EXPECT_FAILS(failure("{% set n = namespace(t='x') %}{% for a in range(100) %}{% set n.t = n.t + n.t %}{% endfor %}"),
               Errc::overflow);
  EXPECT_FAILS(failure("{{ 'x' * 99999999999 }}"), Errc::overflow);
  EXPECT_FAILS(failure("{% for a in range(9999) %}{{ 'x' * 99999 }}{% endfor %}"), Errc::overflow);
  EXPECT_FAILS(failure("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), Errc::overflow);
  EXPECT_FAILS(failure("{% macro m(a) %}{{ m([a]) }}{% endmacro %}{{ m(1) }}"), Errc::overflow);
  EXPECT_FAILS(
      failure("{% set n = namespace(t=1) %}{% for a in range(100) %}{% set n.t = [n.t] %}{% endfor %}{{ n.t }}"),
      Errc::overflow);
  EXPECT_FAILS(failure(many, {.steps = 100}), Errc::overflow);
  // A value of 2^60 parts that takes 60 places.
  const std::string twice =
      "{% set n = namespace(t=1, u=1) %}{% for a in range(60) %}{% set n.t = [n.t, n.t] %}{% set n.u = [n.u, n.u] %}{% "
      "endfor %}";
  for (const char* use : {"{{ n.t }}", "{{ n.t | tojson }}", "{{ n.t == n.u }}", "{{ n.t in [n.u] }}",
                          "{{ [n.t, n.u] | unique }}", "{{ [n.t, n.u] | sort }}", "{{ n.t < n.u }}"})
    EXPECT_FAILS(failure(twice + use, few), Errc::overflow) << use;
  EXPECT_FAILS(
      failure("{% set a = 'a' * 500000 %}{% for i in range(500) %}{{ (a + 'b') in (a + a) }}{% endfor %}", few),
      Errc::overflow);
  EXPECT_FAILS(
      failure("{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{% call m() %}{% endcall %}"),
      Errc::overflow);
  (void)failure(
      "{% set n = namespace() %}{% macro m() %}{% set n.c = caller %}{% endmacro %}{% for a in [1] %}{% call m() %}{{ "
      "a }}{% endcall %}"
      "{% endfor %}{{ n.c() }}");
  EXPECT_EQ(rendered("{{ [0.0, 1e308 * 10 - 1e308 * 10, 2, 1] | sort | length }}"), "4");
  for (const char* open : {"(", "[", "{'a':", "not ", "-", "1 if ", "a(", "a["}) {
    std::string source = "{{ ";
    for (int i = 0; i < 20000; ++i) source += open;
    EXPECT_FALSE(failure(source + " }}")) << open;
  }
  for (const char* open : {"{% if a %}", "{% for a in b %}", "{% if a %}{% elif b %}"}) {
    std::string source;
    for (int i = 0; i < 20000; ++i) source += open;
    EXPECT_FALSE(failure(source)) << open;
  }
  for (const char* more : {" ~ 'a'", " + 1", "[0]", ".a", "|trim", " and 1", " if 1 else 1", " == 1", "()"}) {
    std::string source = "{{ 1";
    for (int i = 0; i < 20000; ++i) source += more;
    (void)failure(source + " }}");
  }
  EXPECT_FAILS(failure(std::string(2u << 20, 'x')), Errc::overflow);
}

TEST(ChatTemplate, DamagedTemplatesAreErrorsOrTexts) {
  const std::string source = qorus_test::read_file(std::string(QORUS_TEMPLATES) + "/chatml.jinja");
  qorus_test::sweep(source, [](const std::string& damaged) {
    (void)failure(damaged, k_options, R"({"messages": [{"role": "user", "content": "a"}, {"role": "b"}]})");
  });
}

TEST(ChatTemplate, BlanksAroundTags) {
  EXPECT_EQ(rendered("a\n"), "a");
  EXPECT_EQ(rendered("a\n\n"), "a\n");
  EXPECT_EQ(rendered("  {% if 1 %}\n  x\n  {% endif %}\ny"), "  x\ny");
  EXPECT_EQ(rendered("a {%- if 1 -%} b {%- endif %} c"), "ab c");
  EXPECT_EQ(rendered("{{ 1 }}\n{{ 2 }}"), "1\n2");
  EXPECT_EQ(rendered("{{ 1 -}}\n {{- 2 }}"), "12");
  EXPECT_EQ(rendered("  {# c #}\nx{#- c -#}  y"), "xy");
}
