// The numbers behind a schedule: small state, fast, the same everywhere.
#pragma once
#include <bit>
#include <cstdint>

namespace shim {

struct Random {  // SplitMix64
  uint64_t state;
  using result_type = uint64_t;
  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return ~uint64_t(0); }
  uint64_t operator()() {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  unsigned bit_of(unsigned set) {  // one of its bits
    const int turn = int((*this)() % 32);
    return (unsigned(std::countr_zero(std::rotr(set, turn))) + unsigned(turn)) % 32;
  }
};

}  // namespace shim
