// What the examples of language models share: the text, the training, and inventing more of it. Textual: include it before `import
// qorus;`, and characters_main.h after it.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "arguments.h"
