// An array whose first dimension is the images, or all layers of them: image n of the predictions finds its part.
#pragma once
#include "core/hostdevice.h"

namespace pydistill::math {

template <class A> struct PerImage {
  const A* data;
  int64_t images, stride;  // fewer than 2^32 of both kinds of images: a GPU divides 64 bits slowly
  PD_HD const A* at(int64_t n) const {
    return data ? data + int64_t(uint32_t(n) % uint32_t(images)) * stride : nullptr;
  }
};

}  // namespace pydistill::math
