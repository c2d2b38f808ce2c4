// Host side of fine_grained_region, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "math/fine_grained_region.h"
#include "ops/padded_boxes.h"

namespace pydistill {

// floor (B, A) and threshold (B, G): scratch.
template <class Device>
void fine_grained_region(const Context& context, const TensorView& anchors, const TensorView& boxes,
                         const TensorView& counts, double factor, const TensorView& valid, const TensorView& floor,
                         const TensorView& threshold, const TensorView& inside) {
  constexpr auto op = "fine_grained_region";
  check::anchors(op, anchors);
  check::padded_boxes(op, "boxes", boxes, counts, anchors);
  check::that(factor >= 0 && factor <= 1, op, "factor in [0, 1]", factor);
  const int64_t a = anchors.size(0), b = boxes.size(0), most = boxes.size(1);
  if (valid.present()) check::buffer(op, "valid", valid, {b, a}, ScalarKind::Bool, anchors);
  check::buffer(op, "inside", inside, {b, a}, ScalarKind::Bool, anchors);
  with_boxes(op, anchors, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    check::buffer(op, "floor", floor, {b, a}, kind_of<A>, anchors);
    check::buffer(op, "threshold", threshold, {b, most}, kind_of<A>, anchors);
    const math::Tiles tiles{a, Device::kPixels};
    const auto targets = padded_boxes<T>(boxes, counts);
    anchor_floor<Device, T, A>(context, anchors, valid, {}, 0, floor, tiles, b);
    Device::rows(context, b * most, 8 * a,
                 math::BestOverlap<T, A, math::ShareOfBest<A>>{
                     anchors.ptr<T>(), targets, floor.ptr<A>(), int(a), {threshold.ptr<A>(), A(factor)}});
    Device::rows(context, b * tiles.per_image(), tiles.size * (most + 1) * 8,
                 math::AnyBox<math::OverlapsMore<T, A>>{
                     {anchors.ptr<T>(), targets, threshold.ptr<A>(), floor.ptr<A>()}, inside.ptr<uint8_t>(), tiles});
  });
}

}  // namespace pydistill
