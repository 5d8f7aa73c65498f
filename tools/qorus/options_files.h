// The commands of model files, added to the command line. For options.cpp alone.
#pragma once
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "options.h"

// Every type that can be made; the mixtures are llama.cpp's.
const std::vector<std::string>& quantize_types();
void add_file_commands(CLI::App& app, Options& options);
