// Memory that is read soon: a CPU asks for it while it does something else.
#pragma once
#include "core/group.h"

namespace pydistill {

template <class Group, class T> PD_HD void ahead(const Group&, const T* p, int64_t n) {
  if constexpr (std::is_same_v<Group, Serial>) {
#ifndef __CUDACC__
    asm volatile("");  // g++ 12 takes a function that only prefetches for one without effect, and drops the call
#endif
    constexpr int kLine = 64 / sizeof(T);
    for (int64_t i = 0; i < n; i += kLine) __builtin_prefetch(p + i);
    __builtin_prefetch(p + n - 1);
  }
}

}  // namespace pydistill
