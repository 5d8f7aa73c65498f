// A small JSON reader for expected values that the tests' data gives as JSON. Trusts its input; plain C++.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace qorus_test {

struct Json {
  std::string text;  // of a string what it means, of all else but arrays and objects as it stands
  std::vector<Json> items;
  std::map<std::string, Json> members;

  const Json& operator[](const std::string& key) const {
    static const Json none;
    const auto found = members.find(key);
    return found == members.end() ? none : found->second;
  }
  std::vector<std::int32_t> ids() const {
    std::vector<std::int32_t> all;
    for (const Json& item : items)
      all.push_back(static_cast<std::int32_t>(std::strtol(item.text.c_str(), nullptr, 10)));
    return all;
  }
};

class JsonParser {
 public:
  explicit JsonParser(const std::string& text) : at_(text.c_str()) {}

  Json value() {
    Json made;
    if (take('{')) {
      while (*at_ && !take('}')) {
        take(',');
        const std::string key = string();
        take(':');
        made.members[key] = value();
      }
    } else if (take('[')) {
      while (*at_ && !take(']')) {
        take(',');
        made.items.push_back(value());
      }
    } else if (*at_ == '"') {
      made.text = string();
    } else {
      while (*at_ && !std::strchr(",]} \n", *at_)) made.text += *at_++;
    }
    return made;
  }

 private:
  bool take(char c) {
    while (*at_ && std::strchr(" \n\r\t", *at_)) ++at_;
    if (*at_ != c) return false;
    ++at_;
    return true;
  }
  unsigned unit() {
    const std::string digits(at_, 4);
    at_ += 4;
    return static_cast<unsigned>(std::strtoul(digits.c_str(), nullptr, 16));
  }
  void append(std::string& out, unsigned code) {
    const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (code >> shift & 63)); };
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else if (code < 0x800) {
      out += static_cast<char>(0xc0 | code >> 6);
      tail(0);
    } else if (code < 0x10000) {
      out += static_cast<char>(0xe0 | code >> 12);
      tail(6), tail(0);
    } else {
      out += static_cast<char>(0xf0 | code >> 18);
      tail(12), tail(6), tail(0);
    }
  }
  std::string string() {
    std::string made;
    take('"');
    while (*at_ && *at_ != '"') {
      if (*at_ != '\\') {
        made += *at_++;
        continue;
      }
      const char letter = at_[1];
      at_ += 2;
      if (letter != 'u') {
        const auto known = std::string("bfnrt").find(letter);
        made += known == std::string::npos ? letter : "\b\f\n\r\t"[known];
        continue;
      }
      unsigned code = unit();
      if (code >= 0xd800 && code < 0xdc00 && at_[0] == '\\') {
        at_ += 2;
        code = 0x10000 + ((code - 0xd800) << 10) + (unit() - 0xdc00);
      }
      append(made, code);
    }
    take('"');
    return made;
  }

  const char* at_;
};

}  // namespace qorus_test
