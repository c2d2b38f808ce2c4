// A gradient that few elements of are written: zeros first.
#pragma once
#include "core/check.h"
#include "core/launch.h"
#include "core/pages.h"
#include "math/zeros.h"

namespace pydistill {

// In any order of its dimensions.
inline void without_gaps(const char* op, const TensorView& t) {
  int64_t last = 0;
  for (int d = 0; d < t.ndim; ++d) last += (t.size(d) - 1) * t.stride(d);
  check::that(t.present() && (t.numel() == 0 || last == t.numel() - 1), op, "a gradient without gaps in memory", t);
  with_floating(op, t, [](auto) {});
}

template <class Device> void zeros(const Context& context, const char* op, const TensorView& t) {
  without_gaps(op, t);
  if (t.numel() == 0) return;
  huge_pages(t);
  with_floating(op, t, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const math::Tiles tiles{t.numel(), 1 << 15};
    Device::rows(context, tiles.per_image(), tiles.size, math::Zeros<T>{t.ptr<T>(), tiles});
  });
}

}  // namespace pydistill
