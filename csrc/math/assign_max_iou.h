// m_a = max_j IoU(a, j):  anchor a has the first such box if m_a >= positive, none if m_a < negative, and is ignored
// between. Then box j takes every anchor whose IoU with it is b_j = max_a IoU(a, j), if b_j > 0 and b_j >= min_positive;
// of several such boxes the last takes it. Equal is what differs by rounding alone.
#pragma once
#include "math/best_overlap.h"

namespace pydistill::math {

template <class A> struct MaxIouThreshold {
  A *best, *threshold;  // (B, G): from which IoU on box j takes an anchor whatever else it overlaps; any box does
  A positive, min_positive;
  bool low_quality;
  PD_HD void write(int64_t row, bool present, A most) const {
    const bool low = present && low_quality && most > A(0) && most >= min_positive;
    best[row] = low ? most * (A(1) - 4 * std::numeric_limits<A>::epsilon()) : A(INFINITY);
    threshold[row] = !present ? A(INFINITY) : low && most < positive ? most : positive;
  }
};

// One row = a tile of an image's anchors.
template <class T, class A> struct MaxIouAssignment {
  const T* anchors;  // (A, 4)
  PaddedBoxes<T> boxes;
  const A *floor, *best;  // (B, A), (B, G)
  int64_t* gt_index;      // (B, A)
  A* max_iou;             // (B, A)
  Tiles tiles;
  A positive, negative;

  PD_HD static int64_t bytes(int size) { return 2 * scratch_bytes<int>(size); }
  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t image = tiles.image(row), first = tiles.first(row), base = image * tiles.total + first;
    const int size = tiles.count(row);
    const T* tile = anchors + 4 * first;
    A* most = max_iou + base;
    int *nearest = g.template scratch<int>(size), *claimed = g.template scratch<int>(size);
    g.each(size, [=](int i) { most[i] = A(0), nearest[i] = claimed[i] = -1; });
    const int count = boxes.count(image);
    for (int j = 0; j < count; ++j) {
      const Box<A> box = boxes.template box<A>(image, j);
      if (!box.proper()) continue;
      g.each(size, [=, own = best[image * boxes.most + j]](int i) {
        const A v = iou(load_box<A>(tile + 4 * i), box, kAreaFloor<A>);
        const bool more = v > most[i];
        nearest[i] = more ? j : nearest[i];
        most[i] = more ? v : most[i];
        claimed[i] = v >= own ? j : claimed[i];
      });
    }
    g.each(size, [=, *this](int i) {
      const A v = most[i];
      const int64_t other = v < negative ? kBackground : kIgnored;
      int64_t index = claimed[i] >= 0 ? claimed[i] : v >= positive ? nearest[i] : other;
      if (!(floor[base + i] == A(0))) index = kIgnored;
      gt_index[base + i] = index;
      most[i] =
          index < 0 ? A(0) : iou(load_box<A>(tile + 4 * i), boxes.template box<A>(image, int(index)), kAreaFloor<A>);
    });
  }
};

}  // namespace pydistill::math
