// Memory of one row, handed out in order: a piece of the group's scratch, or what the caller brought where that is too
// small.
#pragma once
#include <cstddef>

#include "core/hostdevice.h"

namespace pydistill::math {

struct Workspace {
  std::byte* next;

  template <class T> PD_HD static int64_t bytes(int64_t n) { return (n * int64_t(sizeof(T)) + 63) / 64 * 64; }
  template <class T> PD_HD T* take(int64_t n) {
    T* p = reinterpret_cast<T*>(next);
    next += bytes<T>(n);
    return p;
  }
};

}  // namespace pydistill::math
