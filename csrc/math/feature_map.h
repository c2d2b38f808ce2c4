// Where the pixels and channels of feature maps are: NCHW, or a pixel's channels side by side.
#pragma once
#include "core/group.h"

namespace pydistill::math {

template <class T> struct FeatureMap {  // (N, C, pixels); `channel` is 1, or `pixel` is
  T* data;
  int64_t image, channel, pixel;
  PD_HD T* at(int64_t n, int64_t first) const { return data + n * image + first * pixel; }
};

}  // namespace pydistill::math
