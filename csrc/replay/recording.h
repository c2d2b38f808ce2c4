// What tools/record_launches.py wrote: words apart by white space, and bytes after the end of a line.
//
//   pydistill-launches 1
//   case OP NUMBER DTYPE                a new case; the storages of the last one are gone
//   call FUNCTION                       then each storage it is given, once:
//     before ID BYTES fresh               not written since it was allocated
//     before ID BYTES kept                as the last call left it
//     before ID BYTES given               and the bytes, from the next line on
//   arguments COUNT                     and as many of these:
//     none | number VALUE | list LENGTH and as many of these |
//     tensor ID OFFSET CODE BITS RANK SIZES STRIDES      the offset in bytes, the type as DLPack has it
//   after ID kept | written             of each storage; written: and the bytes
//
// Two values stand for what has none that another run could repeat:
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

namespace pydistill::replay {

constexpr std::byte kUnwritten{0xa5};  // nobody has written here
constexpr std::byte kAddress{0xb7};    // part of an address

class Recording {
 public:
  explicit Recording(const char* file) {
    std::ifstream in(file, std::ios::binary);
    text_.assign(std::istreambuf_iterator<char>(in), {});
    if (peek() != "pydistill-launches")
      throw std::runtime_error(std::string("expected a file of tools/record_launches.py, got ") + file);
    word();
    if (integer() != 1) throw std::runtime_error("expected a recording of version 1, got another");
  }

  std::string word() {
    const size_t begin = text_.find_first_not_of(kSpace, at_);
    if (begin == std::string::npos) return at_ = text_.size(), std::string();
    at_ = std::min(text_.find_first_of(kSpace, begin), text_.size());
    return text_.substr(begin, at_ - begin);
  }
  std::string peek() {  // the next word; empty at the end
    const size_t at = at_;
    const std::string next = word();
    at_ = at;
    return next;
  }
  bool next_is(const char* keyword) { return peek() == keyword && (word(), true); }
  void expect(const char* keyword) {
    if (const std::string got = word(); got != keyword)
      throw std::runtime_error(std::string("the recording: expected `") + keyword + "`, got `" + got + "`");
  }
  int64_t integer() { return std::strtoll(word().c_str(), nullptr, 10); }
  double number() { return std::strtod(word().c_str(), nullptr); }

  const std::byte* bytes(int64_t count) {
    const size_t begin = at_ + 1;  // the line ends here
    if (begin + size_t(count) > text_.size()) throw std::runtime_error("the recording ends too early");
    at_ = begin + size_t(count);
    return reinterpret_cast<const std::byte*>(text_.data() + begin);
  }

 private:
  static constexpr const char* kSpace = " \n";
  std::string text_;
  size_t at_ = 0;
};

}  // namespace pydistill::replay
