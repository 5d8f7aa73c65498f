// What `qorus train text` is told.
#pragma once
#include <cstdint>
#include <string>

struct TextTraining {
  std::string data, tokenizer = "bpe", out, type = "f32", name, checkpoints, report;
  int layers = 4, heads = 4, kv_heads = 0, width = 128, feed_forward = 0,
      context = 128;  // 0: as heads; 8/3 of the width
  int batch = 16, accumulate = 1, shards = 1, epochs = 0;
  long steps = 0;  // 0 with epochs 0: 2000
  double learning_rate = 2e-3, decay = 0.1, dropout = 0, validation = 0.1;
  int validate_every = 500, checkpoint_every = 100, sample = 0;
  bool tied = false, bf16 = false;
  int threads = 0;
  std::uint64_t seed = 7;
};
