// qorus.llm: guessing ahead. Rows that are fed together have the bits that they have alone; so the text is the same to the byte, whoever guesses.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/llm_models.h"

import qorus.formats;

using namespace qorus;
using namespace qorus_test;

namespace {
using Ids = std::vector<std::int32_t>;
using Floats = std::vector<float>;
constexpr DType k_caches[] = {DType::f32, DType::f16, DType::q8_0};
}  // namespace

// One to seventeen at once, before and after the place where a cache that is not f32 is read in two stretches, with and without a window that moves
// on: every weight type and cache.
TEST(LlmGuess, RowsHaveTheSameBitsTogetherAndAlone) {
  constexpr std::size_t k_most = 17, k_vocab = 96;
  const qorus_test::TemporaryFolder folder;
  Ids ids;
  for (int i = 0; i < 280; ++i) ids.push_back((i * 31 + i * i * 7) % 95);
  for (const std::string kind : {"llama", "mistral"}) {
    write_babbler(folder / kind, kind, kind == "mistral" ? "\"sliding_window\": 40, " : "");
    ASSERT_OK(llm::convert(folder / kind, folder / "f32.gguf", {.threads = 1}));
    for (const DType dtype : {DType::f32, DType::f16, DType::q8_0, DType::q4_0, DType::q4_k, DType::q6_k}) {
      ASSERT_OK(formats::quantize(folder / "f32.gguf", folder / "x.gguf", {.dtype = dtype, .threads = 1}));
      auto model = llm::open(folder / "x.gguf");
      ASSERT_OK(model);
      ASSERT_OK(model->ready());
      for (const DType cache : k_caches) {
        auto single = llm::Session::create(*model, {.cache = cache, .threads = 1});
        ASSERT_OK(single);
        std::vector<Floats> alone;
        for (const std::int32_t id : ids) {
          auto logits = single->feed({&id, 1});
          ASSERT_OK(logits);
          alone.emplace_back(logits->begin(), logits->end());
        }
        for (const int threads : {1, 2}) {
          auto session = llm::Session::create(*model, {.cache = cache, .threads = threads});
          ASSERT_OK(session);
          for (const std::size_t past : {std::size_t{1}, std::size_t{36}, std::size_t{248}}) {
            for (std::size_t count = 1; count <= k_most; ++count) {
              ASSERT_OK(session->continue_as(std::span(ids).first(past)));
              std::size_t rows = 0;
              ASSERT_OK(session->feed(std::span(ids).subspan(past, count),
                                      [&](std::size_t row, std::span<const float> logits) {
                                        rows += row == rows && logits.size() == k_vocab &&
                                                std::equal(logits.begin(), logits.end(), alone[past + row].begin());
                                      }));
              ASSERT_EQ(rows, count) << kind << " " << static_cast<int>(dtype) << " " << static_cast<int>(cache) << " "
                                     << threads << " after " << past;
            }
          }
        }
      }
    }
  }
}
