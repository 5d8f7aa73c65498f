// The commands of model files, added to the command line. For options.cpp alone.
#pragma once
#include <CLI/CLI.hpp>

#include "options.h"

void add_file_commands(CLI::App& app, Options& options);
