// The commands of language models, added to the command line. For options.cpp alone.
#pragma once
#include <CLI/CLI.hpp>

#include "options.h"

void add_llm_commands(CLI::App& app, Options& options);
