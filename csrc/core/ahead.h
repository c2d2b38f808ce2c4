// Memory that is read soon: a CPU asks for it while it does something else.
#pragma once
#include "core/group.h"

namespace pydistill {

// A prefetch in code that a CPU and a GPU share: a GPU has other warps to run while one waits.
template <class Group, class T> PD_HD void ahead(const Group&, const T* p, int64_t n) {
  if constexpr (std::is_same_v<Group, Serial>) prefetch(p, n);
}

}  // namespace pydistill
