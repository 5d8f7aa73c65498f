// Small files for tests of readers: written whole, damaged byte by byte, cut at every length.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

namespace qorus_test {

inline void write_file(const std::string& path, const std::string& bytes) {
  std::remove(path.c_str());  // ext4 flushes a file that is overwritten, which makes sweeps slow
  std::FILE* file = std::fopen(path.c_str(), "wb");
  ASSERT_NE(file, nullptr) << path;
  EXPECT_EQ(std::fwrite(bytes.data(), 1, bytes.size(), file), bytes.size());
  EXPECT_EQ(std::fclose(file), 0);
}
inline std::string read_file(const std::string& path) {
  std::string bytes;
  if (std::FILE* file = std::fopen(path.c_str(), "rb")) {
    char chunk[4096];
    while (const std::size_t some = std::fread(chunk, 1, sizeof chunk, file)) bytes.append(chunk, some);
    std::fclose(file);
  }
  return bytes;
}

// Calls read(bytes) with every byte of a valid file set to 0, to 255, one up, one down, and with every shorter file.
template <class F>
void sweep(const std::string& valid, F&& read) {
  for (std::size_t i = 0; i < valid.size(); ++i) {
    read(valid.substr(0, i));
    for (const int value : {0, 255, valid[i] + 1, valid[i] - 1}) {
      std::string damaged = valid;
      damaged[i] = static_cast<char>(value);
      read(damaged);
    }
  }
}

}  // namespace qorus_test
