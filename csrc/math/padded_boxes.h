// What the assigners and regions share: the boxes of a batch of images, and the levels of its anchors.
#pragma once
#include "math/boxes.h"
#include "math/tiles.h"

namespace pydistill::math {

template <class A> constexpr A kAreaFloor = A(1e-6);  // squared pixels, in every IoU of an assigner

// Boxes padded to the same number per image; counts outside [0, padding] are clamped.
template <class T> struct PaddedBoxes {
  const T* data;          // (B, most, 4)
  const int64_t* counts;  // (B,)
  int most;
  PD_HD int count(int64_t image) const {
    const int64_t n = counts[image];
    return n < 0 ? 0 : n < most ? int(n) : most;
  }
  template <class A> PD_HD Box<A> box(int64_t image, int j) const { return load_box<A>(data + 4 * (image * most + j)); }
};

struct Levels {  // anchors [first[l], first[l + 1]) belong to level l
  static constexpr int kMost = 16;
  int count;
  int first[kMost + 1];
  PD_HD int size(int l) const { return first[l + 1] - first[l]; }
  PD_HD int total() const { return first[count]; }
};

}  // namespace pydistill::math
