// A feature map (N, C, H, W) as the kernels walk it, from the strides of its tensor.
#pragma once
#include "core/check.h"
#include "math/feature_map.h"

namespace pydistill {

// One stride leads from pixel to pixel; the channels (interleaved) or the pixels lie side by side.
template <class T>
math::FeatureMap<T> feature_map(const char* op, const char* name, const TensorView& t, bool interleaved) {
  const int64_t h = t.size(2), w = t.size(3);
  const int64_t pixel = w > 1 ? t.stride(3) : h > 1 ? t.stride(2) : interleaved ? t.size(1) : 1;
  const bool regular = (w <= 1 || h <= 1 || t.stride(2) == w * pixel) &&
                       (interleaved ? t.size(1) <= 1 || t.stride(1) == 1 : h * w <= 1 || pixel == 1);
  const std::string expected = std::string(name) + " with " + (interleaved ? "channels" : "pixels") + " side by side";
  check::that(t.numel() == 0 || regular, op, expected.c_str(), "other strides");
  return {t.ptr<T>(), t.stride(0), t.stride(1), pixel};
}

}  // namespace pydistill
