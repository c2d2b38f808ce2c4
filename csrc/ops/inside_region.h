// Host side of inside_region, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "math/inside_region.h"
#include "ops/padded_boxes.h"

namespace pydistill {

template <class Device>
void inside_region(const Context& context, const TensorView& points, const TensorView& boxes, const TensorView& counts,
                   const TensorView& valid, const TensorView& inside) {
  constexpr auto op = "inside_region";
  check::points(op, points);
  check::padded_boxes(op, "boxes", boxes, counts, points);
  const int64_t a = points.size(0), b = boxes.size(0);
  if (valid.present()) check::buffer(op, "valid", valid, {b, a}, ScalarKind::Bool, points);
  check::buffer(op, "inside", inside, {b, a}, ScalarKind::Bool, points);
  with_boxes(op, points, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Test = math::InsideBox<T, typename Accumulate<T>::type>;
    const math::Tiles tiles{a, Device::kPixels};
    Device::rows(
        context, b * tiles.per_image(), tiles.size * (boxes.size(1) + 1),
        math::AnyBox<Test>{
            {points.ptr<T>(), padded_boxes<T>(boxes, counts), valid.ptr<bool>()}, inside.ptr<uint8_t>(), tiles});
  });
}

}  // namespace pydistill
