// max_a IoU(a, j) of each box j over the anchors that take part. One row = one box.
#pragma once
#include "math/anchor_floor.h"

namespace pydistill::math {

// rule.write(row, present, best) stores what the op wants of it; a box that is none, or padding, is not present.
template <class T, class A, class Rule> struct BestOverlap {
  const T* anchors;  // (A, 4)
  PaddedBoxes<T> boxes;
  const A* floor;  // (B, A): 0 where an anchor takes part
  int total;
  Rule rule;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t image = row / boxes.most;
    const int j = int(row % boxes.most);
    const Box<A> box = boxes.template box<A>(image, j);
    const bool present = j < boxes.count(image) && box.proper();
    A best = A(0);
    if (present)
      best = g.max(total, [=, a = anchors, f = floor + image * total](int i) {
        const A v = iou(load_box<A>(a + 4 * int64_t(i)), box, kAreaFloor<A>);
        return f[i] == A(0) && v > A(0) ? v : A(0);
      });
    g.once([=, r = rule] { r.write(row, present, best); });
  }
};

}  // namespace pydistill::math
