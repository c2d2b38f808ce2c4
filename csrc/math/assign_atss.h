// Adaptive training sample selection, Zhang et al. 2020, arXiv:1912.02424, algorithm 1. Box j of an image:
//   candidates C_j = of each level the k anchors with the nearest centres (ties: lower index)
//   t_j = mean + std of IoU(C_j, j), ddof 1;  positive: a in C_j, IoU(a, j) >= t_j, centre of a inside j
// An anchor that is positive for several boxes takes the one of highest IoU (ties: lower index).
// Three stages; nothing of the size anchors x boxes is ever stored.
#pragma once
#include "math/anchor_floor.h"

namespace pydistill::math {

// One row = one box.
template <class T, class A> struct AtssCandidates {
  const T* anchors;
  PaddedBoxes<T> boxes;
  const A* floor;
  A* threshold;    // (B, G), infinity where nothing can be positive
  int* candidate;  // (B, G, slots): the positive anchors, -1 where there is none
  A* overlap;      // (B, G, slots): their IoU
  Levels levels;
  int k;

  PD_HD int slots() const { return k * levels.count; }

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t image = row / boxes.most;
    const int j = int(row % boxes.most);
    const Box<A> box = boxes.template box<A>(image, j);
    int* c = candidate + row * slots();
    A* v = overlap + row * slots();
    const bool present = j < boxes.count(image) && box.proper();
    if (present) nearest(g, box, floor + image * levels.total(), c, v);
    const A limit = present ? adaptive_threshold(g, v) : A(INFINITY);
    g.once([=, t = threshold] { t[row] = limit; });
    g.each(slots(), [=, a = anchors](int s) {
      const bool positive =
          limit < A(INFINITY) && v[s] >= limit && centre_inside(load_box<A>(a + 4 * int64_t(c[s])), box);
      if (!positive) c[s] = -1;
    });
  }

 private:
  // Slots of candidates get the anchor and its IoU, the others anchor 0 and IoU -1.
  template <class Group> PD_HD void nearest(Group g, const Box<A>& box, const A* lowest, int* c, A* v) const {
    g.each(slots(), [=](int s) { c[s] = 0, v[s] = A(-1); });
    for (int l = 0; l < levels.count; ++l) {
      const int first = levels.first[l], count = levels.size(l) < k ? levels.size(l) : k;
      const T* level = anchors + 4 * int64_t(first);
      const A* floors = lowest + first;
      int* picked = c + l * k;
      A* iou_of = v + l * k;
      g.top_k(
          levels.size(l), count, [=](int i) { return distance(load_box<A>(level + 4 * i), box, floors[i]); }, picked);
      g.each(count, [=](int s) {
        const bool usable = floors[picked[s]] < A(INFINITY);
        iou_of[s] = usable ? iou(load_box<A>(level + 4 * picked[s]), box, kAreaFloor<A>) : A(-1);
        picked[s] += first;
      });
    }
  }

  // The legs in order of size: with fused multiply-add (3, 4) and (4, 3) would not be a tie.
  PD_HD static A distance(const Box<A>& a, const Box<A>& b, A lowest) {
    constexpr A most = std::numeric_limits<A>::max();
    const A dx = std::abs(a.x() - b.x()), dy = std::abs(a.y() - b.y());
    const A longer = dx < dy ? dy : dx, shorter = dx < dy ? dx : dy, d = longer * longer + shorter * shorter;
    const A finite = d < most ? d : most;
    return finite < lowest ? lowest : finite;
  }

  // A single candidate has no standard deviation: nothing is positive.
  template <class Group> PD_HD A adaptive_threshold(Group g, const A* v) const {
    const A n = g.sum(slots(), [=](int s) { return v[s] < 0 ? A(0) : A(1); });
    const A mean = g.sum(slots(), [=](int s) { return v[s] < 0 ? A(0) : v[s]; }) / n;
    const A squares = g.sum(slots(), [=](int s) { return v[s] < 0 ? A(0) : (v[s] - mean) * (v[s] - mean); });
    const A limit = mean + std::sqrt(squares / (n - 1));
    return n > 1 && limit == limit ? limit : A(INFINITY);
  }

  PD_HD static bool centre_inside(const Box<A>& a, const Box<A>& b) {
    const A margin = A(0.01);  // pixels
    return a.x() - b.x1 > margin && a.y() - b.y1 > margin && b.x2 - a.x() > margin && b.y2 - a.y() > margin;
  }
};

// One row = a tile of an image's anchors, which takes what the boxes claim of it, in order.
template <class A> struct TakeHighest {
  const int* candidate;
  const A *overlap, *floor;
  const int64_t* counts;
  int64_t* gt_index;  // (B, A)
  A* max_iou;         // (B, A)
  int most, slots;
  Tiles tiles;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t image = tiles.image(row), first = tiles.first(row), base = image * tiles.total + first;
    const int size = tiles.count(row);
    int64_t* index = gt_index + base;
    A* best = max_iou + base;
    g.each(size, [=, f = floor + base](int i) { index[i] = f[i] == A(0) ? kBackground : kIgnored, best[i] = A(0); });
    const int boxes = PaddedBoxes<A>{nullptr, counts, most}.count(image);
    for (int j = 0; j < boxes; ++j) {
      const int64_t claims = (image * most + j) * slots;
      g.each(slots, [=, c = candidate + claims, v = overlap + claims](int s) {
        const int64_t i = c[s] - first;
        if (c[s] >= 0 && i >= 0 && i < size && (index[i] < 0 || v[s] > best[i])) index[i] = j, best[i] = v[s];
      });
    }
  }
};

}  // namespace pydistill::math
