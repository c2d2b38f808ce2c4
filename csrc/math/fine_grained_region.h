// IoU(a, j) > factor max_b IoU(b, j) for a box j of the image, the maximum over all its anchors b
#pragma once
#include "math/any_box.h"
#include "math/best_overlap.h"

namespace pydistill::math {

template <class A> struct ShareOfBest {
  A* threshold;  // (B, G)
  A factor;
  PD_HD void write(int64_t row, bool present, A best) const { threshold[row] = present ? factor * best : A(INFINITY); }
};

template <class T, class A> struct OverlapsMore {
  const T* anchors;  // (A, 4)
  PaddedBoxes<T> boxes;
  const A *threshold, *floor;  // (B, G), (B, A)

  PD_HD auto against(int64_t image, int j, int64_t first) const {
    return [box = boxes.template box<A>(image, j), p = anchors + 4 * first, limit = threshold[image * boxes.most + j]](
               int i) -> uint8_t { return iou(load_box<A>(p + 4 * i), box, kAreaFloor<A>) > limit; };
  }
  PD_HD bool usable(int64_t at) const { return floor[at] == A(0); }
};

}  // namespace pydistill::math
