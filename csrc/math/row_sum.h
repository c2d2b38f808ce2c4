// The end of a loss of rows: the sum of its rows, times a number, over avg_factor.
#pragma once
#include "core/group.h"

namespace pydistill::math {

// What multiplies every row's gradient: 1 / avg_factor, and 0 where that is 0.
template <class A> PD_HD A per_factor(const A* factor) {
  return !factor ? A(1) : *factor == A(0) ? A(0) : A(1) / *factor;
}

// Sums of `size` numbers each; the last step divides by avg_factor, and 0 / 0 is 0.
template <class A> struct SumTiles {
  const A* value;
  A* sum;  // one per tile
  int64_t total;
  int size;
  A scale;
  const A* factor;  // or null

  template <class Group> PD_HD void operator()(Group g, int64_t tile) const {
    const int64_t first = tile * size;
    const int count = total - first < size ? int(total - first) : size;
    const A all = g.sum(count, [v = value + first](int i) { return v[i]; }) * scale;
    g.once([=, *this] { sum[tile] = !factor || (all == A(0) && *factor == A(0)) ? all : all / *factor; });
  }
};

}  // namespace pydistill::math
