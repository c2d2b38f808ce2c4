// Host side of assign_max_iou, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "math/assign_max_iou.h"
#include "ops/padded_boxes.h"

namespace pydistill {

// floor (B, A) and best (B, G): scratch.
template <class Device>
void assign_max_iou(const Context& context, const TensorView& anchors, const TensorView& boxes,
                    const TensorView& counts, double positive, double negative, double min_positive, bool low_quality,
                    const TensorView& valid, const TensorView& ignore_boxes, const TensorView& ignore_counts,
                    double ignore_threshold, const TensorView& floor, const TensorView& best,
                    const TensorView& gt_index, const TensorView& max_iou, const TensorView& threshold) {
  constexpr auto op = "assign_max_iou";
  check::anchors(op, anchors);
  check::padded_boxes(op, "boxes", boxes, counts, anchors);
  check::that(positive > 0 && positive <= 1, op, "positive in (0, 1]", positive);
  check::that(negative >= 0 && negative <= positive, op, "negative in [0, positive]", negative);
  const int64_t a = anchors.size(0), b = boxes.size(0), most = boxes.size(1);
  if (valid.present()) check::buffer(op, "valid", valid, {b, a}, ScalarKind::Bool, anchors);
  check::ignored(op, ignore_boxes, ignore_counts, boxes);
  check::buffer(op, "gt_index", gt_index, {b, a}, ScalarKind::Int64, anchors);
  with_boxes(op, anchors, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    using Body = math::MaxIouAssignment<T, A>;
    check::buffer(op, "floor", floor, {b, a}, kind_of<A>, anchors);
    check::buffer(op, "best", best, {b, most}, kind_of<A>, anchors);
    check::buffer(op, "max_iou", max_iou, {b, a}, kind_of<A>, anchors);
    check::buffer(op, "threshold", threshold, {b, most}, kind_of<A>, anchors);
    const math::Tiles tiles{a, Device::kPixels};
    const auto targets = padded_boxes<T>(boxes, counts);
    anchor_floor<Device, T, A>(context, anchors, valid, ignored_boxes<T>(ignore_boxes, ignore_counts, ignore_threshold),
                               ignore_threshold, floor, tiles, b);
    Device::rows(context, b * most, 8 * a,
                 math::BestOverlap<T, A, math::MaxIouThreshold<A>>{
                     anchors.ptr<T>(),
                     targets,
                     floor.ptr<A>(),
                     int(a),
                     {best.ptr<A>(), threshold.ptr<A>(), A(positive), A(min_positive), low_quality}});
    Device::rows(context, b * tiles.per_image(), tiles.size * (most + 1) * 8,
                 Body{anchors.ptr<T>(), targets, floor.ptr<A>(), best.ptr<A>(), gt_index.ptr<int64_t>(),
                      max_iou.ptr<A>(), tiles, A(positive), A(negative)},
                 Body::bytes(tiles.size));
  });
}

}  // namespace pydistill
