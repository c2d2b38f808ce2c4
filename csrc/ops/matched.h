// Host side of what the losses of matched pairs share: checks of targets per image.
#pragma once
#include "core/check.h"
#include "math/per_image.h"

namespace pydistill::matched {

// (B, ...) or (N, ...) with N = B times the layers; `rest` is what follows the first dimension, -1: of any size.
template <class A>
math::PerImage<A> per_image(const char* op, const char* name, const TensorView& t, std::initializer_list<int64_t> rest,
                            int64_t images, const TensorView& like) {
  if (!t.present()) return {nullptr, 1, 0};
  bool fits = t.ndim == int(rest.size()) + 1 && (t.size(0) == images || (t.size(0) > 0 && images % t.size(0) == 0));
  for (int d = 1; fits && d < t.ndim; ++d) {
    const int64_t want = rest.begin()[d - 1];
    fits = want < 0 || t.size(d) == want;
  }
  if (!fits) check::that(false, op, (std::string(name) + " of one entry an image").c_str(), t);
  check::kind(op, name, t, kind_of<A>);
  if (!t.contiguous() || !check::same_device(t, like))
    check::that(false, op, (std::string(name) + " contiguous, on the device of the others").c_str(), t);
  return {t.ptr<A>(), t.size(0) > 0 ? t.size(0) : 1, t.size(0) ? t.numel() / t.size(0) : 0};
}

}  // namespace pydistill::matched
