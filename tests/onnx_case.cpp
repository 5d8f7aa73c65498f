// Reading the cases: a small JSON reader, a small .npy reader.
#include "tests/onnx_case.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

namespace qorus_test {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class Parser {
 public:
  explicit Parser(const std::string& text) : at_(text.c_str()), end_(at_ + text.size()) {}

  Json value() {
    skip();
    Json json;
    if (at_ == end_) return json;
    switch (*at_) {
      case '{': return object();
      case '[': return list();
      case '"':
        json.kind = Json::Kind::text;
        json.text = quoted();
        return json;
      case 't': return word("true", Json::Kind::boolean, 1);
      case 'f': return word("false", Json::Kind::boolean, 0);
      case 'n': return word("null", Json::Kind::null, 0);
      case 'N': return word("NaN", Json::Kind::number, std::nan(""));
      default: break;
    }
    char* after = nullptr;
    json.number = std::strtod(at_, &after);  // also Infinity
    if (after == at_) at_ = end_;
    json.kind = Json::Kind::number;
    at_ = std::max<const char*>(at_, after);
    return json;
  }

 private:
  void skip() {
    while (at_ < end_ && std::strchr(" \t\r\n,:", *at_)) ++at_;
  }
  Json word(const char* text, Json::Kind kind, double number) {
    at_ = std::min(at_ + std::strlen(text), end_);
    Json json;
    json.kind = kind;
    json.number = number;
    return json;
  }
  std::string quoted() {
    std::string text;
    for (++at_; at_ < end_ && *at_ != '"'; ++at_) {
      if (*at_ == '\\') ++at_;
      text += *at_;
    }
    ++at_;
    return text;
  }
  Json object() {
    Json json;
    json.kind = Json::Kind::object;
    for (++at_, skip(); at_ < end_ && *at_ == '"'; skip()) {
      const std::string name = quoted();
      json.object[name] = value();
    }
    ++at_;
    return json;
  }
  Json list() {
    Json json;
    json.kind = Json::Kind::list;
    for (++at_, skip(); at_ < end_ && *at_ != ']'; skip()) json.list.push_back(value());
    ++at_;
    return json;
  }

  const char *at_, *end_;
};

double half(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction ? std::nan("") : sign * HUGE_VAL;
  return sign * (exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24));
}

template <class T>
void convert(const std::string& bytes, std::size_t at, std::vector<double>& out) {
  for (double& value : out) {
    T element{};
    std::memcpy(&element, bytes.data() + at, sizeof element);
    value = static_cast<double>(element);
    at += sizeof element;
  }
}

// The elements from `at` on, of a type as NumPy writes it ("<f4"). False: another type.
bool elements(const std::string& type, const std::string& bytes, std::size_t at, OnnxValue& value) {
  struct Known {
    const char *descr, *name;
    std::size_t size;
    void (*read)(const std::string&, std::size_t, std::vector<double>&);
  };
  static const Known known[] = {
      {"f4", "float32", 4, convert<float>},        {"f8", "float64", 8, convert<double>},
      {"i8", "int64", 8, convert<std::int64_t>},   {"i4", "int32", 4, convert<std::int32_t>},
      {"i2", "int16", 2, convert<std::int16_t>},   {"i1", "int8", 1, convert<std::int8_t>},
      {"u8", "uint64", 8, convert<std::uint64_t>}, {"u4", "uint32", 4, convert<std::uint32_t>},
      {"u2", "uint16", 2, convert<std::uint16_t>}, {"u1", "uint8", 1, convert<std::uint8_t>},
      {"b1", "bool", 1, convert<std::uint8_t>},    {"f2", "float16", 2, convert<std::uint16_t>},
  };
  for (const Known& k : known) {
    if (type != k.descr) continue;
    if (bytes.size() - at < value.v.size() * k.size) return false;
    value.dtype = k.name;
    k.read(bytes, at, value.v);
    if (type == "f2") {
      for (double& x : value.v) x = half(static_cast<std::uint16_t>(x));
    }
    return true;
  }
  return false;
}

// The type as the case names it: bfloat16 comes as the bits in uint16; another difference is a type that cannot be read.
void settle_type(const std::string& dtype, OnnxValue& value) {
  if (value.present && dtype == "bfloat16" && value.dtype == "uint16") {
    for (double& x : value.v) {
      const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
      float number = 0;
      std::memcpy(&number, &bits, sizeof number);
      x = static_cast<double>(number);
    }
  } else if (value.dtype != dtype) {
    value.present = false;
  }
  value.dtype = dtype;
}

}  // namespace

const Json* Json::find(const std::string& name) const {
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &found->second;
}

Json parse_json(const std::string& text) { return Parser(text).value(); }

OnnxValue read_npy(const std::string& path) {
  OnnxValue value;
  const std::string bytes = read_file(path);
  if (bytes.size() < 12 || bytes.compare(0, 6, "\x93NUMPY") != 0) return value;
  const bool wide = bytes[6] > 1;
  std::uint32_t length = 0;
  std::memcpy(&length, bytes.data() + 8, wide ? 4 : 2);
  const std::size_t start = wide ? 12 : 10;
  if (bytes.size() < start + length) return value;
  const std::string header = bytes.substr(start, length);
  const std::size_t type = header.find("'descr': '") + 10, shape = header.find('('),
                    columns = header.find("'fortran_order': True");
  if (columns != header.npos || shape == header.npos) return value;
  const std::string descr = header.substr(type + 1, header.find('\'', type) - type - 1);
  std::size_t count = 1;
  for (const char* at = header.c_str() + shape + 1; *at && *at != ')';) {
    char* after = nullptr;
    const std::int64_t extent = std::strtoll(at, &after, 10);
    if (after != at) {
      value.dims.push_back(extent);
      count *= static_cast<std::size_t>(extent);
    }
    at = after == at ? at + 1 : after;
  }
  value.v.resize(count);
  value.present = elements(descr, bytes, start + length, value);
  return value;
}

std::int64_t OnnxCase::integer(const std::string& attribute, std::int64_t otherwise) const {
  const Json* found = attributes.find(attribute);
  return found ? static_cast<std::int64_t>(found->number) : otherwise;
}
double OnnxCase::number(const std::string& attribute, double otherwise) const {
  const Json* found = attributes.find(attribute);
  return found ? found->number : otherwise;
}
std::string OnnxCase::text(const std::string& attribute, const std::string& otherwise) const {
  const Json* found = attributes.find(attribute);
  return found ? found->text : otherwise;
}
std::vector<std::int64_t> OnnxCase::integers(const std::string& attribute) const {
  std::vector<std::int64_t> values;
  if (const Json* found = attributes.find(attribute)) {
    for (const Json& item : found->list) values.push_back(static_cast<std::int64_t>(item.number));
  }
  return values;
}
std::vector<std::int64_t> OnnxCase::list(std::size_t input, const std::string& attribute) const {
  if (!has_input(input)) return integers(attribute);
  return {inputs[input].v.begin(), inputs[input].v.end()};
}

OnnxCase read_onnx_case(const std::string& folder) {
  OnnxCase result;
  const Json json = parse_json(read_file(folder + "/case.json"));
  const Json *name = json.find("case"), *op = json.find("op"), *opset = json.find("opset");
  if (!name || !op || !opset) return result;
  result.op = op->text;
  result.opset = static_cast<std::int64_t>(opset->number);
  if (const Json* found = json.find("rtol")) result.rtol = found->number;
  if (const Json* found = json.find("atol")) result.atol = found->number;
  if (const Json* found = json.find("attributes")) result.attributes = *found;
  for (const auto& [key, values] : {std::pair{"inputs", &result.inputs}, std::pair{"outputs", &result.outputs}}) {
    const Json* list = json.find(key);
    for (std::size_t i = 0; list && i < list->list.size(); ++i) {
      const Json* file = list->list[i].find("file");
      values->push_back(file ? read_npy(folder + "/" + file->text) : OnnxValue{});
      if (const Json* dtype = list->list[i].find("dtype")) settle_type(dtype->text, values->back());
    }
  }
  result.name = name->text;
  return result;
}

std::vector<std::string> onnx_case_names(const std::string& root) {
  std::vector<std::string> names;
  std::error_code trouble;
  for (const auto& entry : std::filesystem::directory_iterator(root, trouble)) {
    if (std::filesystem::exists(entry.path() / "case.json", trouble)) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace qorus_test
