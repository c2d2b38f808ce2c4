// Which anchors take part in an assignment, and what the others are marked with.
#pragma once
#include "math/padded_boxes.h"

namespace pydistill::math {

constexpr int64_t kBackground = -1, kIgnored = -2;

// What the squared distance of an anchor to any box is at least: 0; the largest number if it is ignored, so that it is
// a candidate only where a level has too few others; infinity if it takes no part. One row = a tile of an image's
// anchors.
template <class T, class A> struct DistanceFloor {
  const T* anchors;   // (A, 4)
  const bool* valid;  // (B, A) or null
  PaddedBoxes<T> ignore;
  A* floor;  // (B, A)
  Tiles tiles;
  A threshold;  // of IoF with an ignored box

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t image = tiles.image(row), first = tiles.first(row);
    const int count = tiles.count(row);
    const T* tile = anchors + 4 * first;
    A* out = floor + image * tiles.total + first;
    const bool* v = valid ? valid + image * tiles.total + first : nullptr;
    g.each(count, [=](int i) { out[i] = load_box<A>(tile + 4 * i).proper() && (!v || v[i]) ? A(0) : A(INFINITY); });
    if (!ignore.data) return;
    for (int j = 0; j < ignore.count(image); ++j) {
      const Box<A> box = ignore.template box<A>(image, j);
      if (!box.proper()) continue;
      g.each(count, [=, t = threshold](int i) {
        const bool inside = iof(load_box<A>(tile + 4 * i), box, kAreaFloor<A>) > t;
        if (inside && out[i] == A(0)) out[i] = std::numeric_limits<A>::max();
      });
    }
  }
};

}  // namespace pydistill::math
