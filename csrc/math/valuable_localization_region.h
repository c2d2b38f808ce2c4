// Valuable localization region, Zheng et al. 2022, arXiv:2102.12252: anchor a is in the band of box j if
//   gamma t_j <= X(a, j) <= t_j,  X = DIoU,  t_j the threshold of the assigner.
// Its weight is the largest plain IoU over the bands it is in, 0 outside all.
#pragma once
#include "math/padded_boxes.h"

namespace pydistill::math {

struct Larger {
  template <class A> PD_HD A operator()(A a, A b) const { return a < b ? b : a; }
  template <class A> PD_HD static A identity() { return A(0); }
};

template <class A, bool kReleased> struct Band {  // kReleased: X of the released code
  A gamma;
  bool open;  // at its upper end
  bool one;   // the weight is 1 instead of the IoU

  // Box j's weight of an anchor. Without overlap there is none, also where a box has no area and its band is {0}.
  PD_HD auto weight(const Box<A>& box, A threshold) const {
    const A high = box.proper() ? threshold : A(INFINITY), low = gamma * high;
    return [=, *this](const Box<A>& anchor) {
      const A v = iou(anchor, box, kAreaFloor<A>);
      const A x = kReleased ? diou_released(anchor, box, kAreaFloor<A>) : diou(anchor, box, kAreaFloor<A>);
      const bool inside =
          (v > 0) & (x >= low) & ((x < high) | (!open & (x == high)));  // no branch: a vector of anchors
      return inside ? (one ? A(1) : v) : A(0);
    };
  }
};

// One row = a tile of an image's anchors.
template <class T, class A, bool kReleased> struct ValuableRegion {
  const T* anchors;  // (A, 4)
  PaddedBoxes<T> boxes;
  const A* threshold;           // (B, G), or null: `level` for every box
  const bool *valid, *exclude;  // (B, A), or null
  A* weight;                    // (B, A)
  Tiles tiles;
  A level;
  Band<A, kReleased> band;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t image = tiles.image(row), first = tiles.first(row), base = image * tiles.total + first;
    const T* tile = anchors + 4 * first;
    A* out = weight + base;
    g.column_fold(
        Grid{1, tiles.count(row)}, out, [n = boxes.count(image)](int) { return Span{0, n}; },
        [=, *this](int, int j) {
          const A t = threshold ? threshold[image * boxes.most + j] : level;
          return [=, weigh = band.weight(boxes.template box<A>(image, j), t)](int i) {
            return weigh(load_box<A>(tile + 4 * i));
          };
        },
        Larger{});
    const bool *v = valid ? valid + base : nullptr, *x = exclude ? exclude + base : nullptr;
    g.each(tiles.count(row), [=](int i) {
      const bool counts = (!v || v[i]) && (!x || !x[i]) && load_box<A>(tile + 4 * i).proper();
      out[i] = counts ? out[i] : A(0);
    });
  }
};

}  // namespace pydistill::math
