// A GPT of characters on Tiny Shakespeare: 4 layers, 128 wide, 64 characters of context.
// Result with --data, seed 7: validation loss 1.541 nats per character after 4000 steps, 627 s of processor time on two
// threads.
#include "characters.h"

import qorus;
using namespace qorus;
#include "characters_main.h"

int main(int argc, char** argv) {
  return train_on_characters(argc, argv, 4000, [](int vocab) {
    return nn::gpt({.vocab = vocab, .context = k_context, .d_model = 128, .heads = 4, .layers = 4});
  });
}
