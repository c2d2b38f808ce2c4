#pragma once
#include "core/dtype.h"
#include "math/tiles.h"

namespace pydistill::math {

// One row = a tile of memory.
template <class T> struct Zeros {
  T* data;
  Tiles tiles;
  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    g.each(tiles.count(row), [to = data + tiles.first(row)](int i) { to[i] = T(typename Accumulate<T>::type(0)); });
  }
};

}  // namespace pydistill::math
