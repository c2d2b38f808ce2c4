// x1 < x < x2 and y1 < y < y2 for a box of the image
#pragma once
#include "math/any_box.h"

namespace pydistill::math {

template <class T, class A> struct InsideBox {
  const T* points;  // (A, 2)
  PaddedBoxes<T> boxes;
  const bool* valid;  // (B, A) or null

  PD_HD auto against(int64_t image, int j, int64_t first) const {
    const Box<A> box = boxes.template box<A>(image, j);
    return [=, p = points + 2 * first, proper = box.proper()](int i) -> uint8_t {
      const A x = A(p[2 * i]), y = A(p[2 * i + 1]);
      return proper & (x > box.x1) & (x < box.x2) & (y > box.y1) & (y < box.y2);
    };
  }
  PD_HD bool usable(int64_t at) const { return !valid || valid[at]; }
};

}  // namespace pydistill::math
