// Box j may have point p of level l if p is strictly inside j, within r_l of its centre along x and along y, and
// low_l <= max(left, top, right, bottom) <= high_l of the distances from p to the sides. The smallest such box has it, of
// equals the first.   centerness = sqrt(min(left, right) / max(left, right)  min(top, bottom) / max(top, bottom))
#pragma once
#include "math/anchor_floor.h"

namespace pydistill::math {

template <class A> struct PointLevels {
  Levels levels;
  A radius[Levels::kMost], low[Levels::kMost], high[Levels::kMost];  // r_l: infinity without centre sampling
  PD_HD int of(int64_t point) const {
    int l = 0;
    while (point >= levels.first[l + 1]) ++l;
    return l;
  }
};

template <class A> struct SideDistances {
  A left, top, right, bottom;
  PD_HD SideDistances(A x, A y, const Box<A>& b) : left(x - b.x1), top(y - b.y1), right(b.x2 - x), bottom(b.y2 - y) {}
  PD_HD bool inside() const { return (left > A(0)) & (top > A(0)) & (right > A(0)) & (bottom > A(0)); }
  PD_HD A furthest() const {
    const A h = left < right ? right : left, v = top < bottom ? bottom : top;
    return h < v ? v : h;
  }
  PD_HD A centerness() const {
    const A h = left < right ? left / right : right / left, v = top < bottom ? top / bottom : bottom / top;
    return std::sqrt(h * v);
  }
};

// One row = a tile of an image's points.
template <class T, class A> struct PointAssignment {
  const T* points;  // (A, 2)
  PaddedBoxes<T> boxes;
  const bool* valid;  // (B, A) or null
  int64_t* gt_index;  // (B, A)
  A* centerness;      // (B, A)
  Tiles tiles;
  PointLevels<A> of;

  PD_HD static int64_t bytes(int size) { return 4 * scratch_bytes<A>(size) + scratch_bytes<int>(size); }
  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t image = tiles.image(row), first = tiles.first(row), base = image * tiles.total + first;
    const int size = tiles.count(row);
    const T* tile = points + 2 * first;
    A *area = g.template scratch<A>(size), *radius = g.template scratch<A>(size);
    A *low = g.template scratch<A>(size), *high = g.template scratch<A>(size);
    int* index = g.template scratch<int>(size);
    g.each(size, [=, *this](int i) {
      const int l = of.of(first + i);
      area[i] = A(INFINITY), index[i] = -1, radius[i] = of.radius[l], low[i] = of.low[l], high[i] = of.high[l];
    });
    const int count = boxes.count(image);
    for (int j = 0; j < count; ++j) {
      const Box<A> box = boxes.template box<A>(image, j);
      if (!box.proper()) continue;
      g.each(size, [=](int i) {
        const A x = A(tile[2 * i]), y = A(tile[2 * i + 1]), r = radius[i];
        const SideDistances<A> d(x, y, box);
        const bool central = (x > box.x() - r) & (x < box.x() + r) & (y > box.y() - r) & (y < box.y() + r);
        const A furthest = d.furthest();
        const bool takes = d.inside() & central & (furthest >= low[i]) & (furthest <= high[i]) & (box.area() < area[i]);
        area[i] = takes ? box.area() : area[i];
        index[i] = takes ? j : index[i];
      });
    }
    g.each(size, [=, *this](int i) {
      constexpr A most = std::numeric_limits<A>::max();
      const A x = A(tile[2 * i]), y = A(tile[2 * i + 1]);
      const bool usable = (!valid || valid[base + i]) && std::abs(x) <= most && std::abs(y) <= most;
      const bool has = usable && index[i] >= 0;
      gt_index[base + i] = has ? index[i] : usable ? kBackground : kIgnored;
      const int j = has ? index[i] : 0;
      centerness[base + i] = has ? SideDistances<A>(x, y, boxes.template box<A>(image, j)).centerness() : A(0);
    });
  }
};

}  // namespace pydistill::math
