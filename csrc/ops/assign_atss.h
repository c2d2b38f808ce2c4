// Host side of assign_atss, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "math/assign_atss.h"
#include "ops/padded_boxes.h"

namespace pydistill {

// floor (B, A), candidate (B, G, L topk) int32 and overlap (B, G, L topk) are scratch.
template <class Device>
void assign_atss(const Context& context, const TensorView& anchors, const std::vector<int64_t>& level_sizes,
                 const TensorView& boxes, const TensorView& counts, int64_t topk, const TensorView& valid,
                 const TensorView& ignore_boxes, const TensorView& ignore_counts, double ignore_threshold,
                 const TensorView& floor, const TensorView& candidate, const TensorView& overlap,
                 const TensorView& gt_index, const TensorView& max_iou, const TensorView& threshold) {
  constexpr auto op = "assign_atss";
  check::anchors(op, anchors);
  const int64_t a = anchors.size(0);
  const math::Levels levels = check::levels(op, level_sizes, a);
  check::padded_boxes(op, "boxes", boxes, counts, anchors);
  check::that(topk > 0, op, "topk > 0", topk);
  check::that(topk < 1 << 27, op, "topk < 2^27", topk);
  const int64_t b = boxes.size(0), most = boxes.size(1), slots = topk * levels.count;
  if (valid.present()) check::buffer(op, "valid", valid, {b, a}, ScalarKind::Bool, anchors);
  check::ignored(op, ignore_boxes, ignore_counts, boxes);
  check::buffer(op, "gt_index", gt_index, {b, a}, ScalarKind::Int64, anchors);
  check::buffer(op, "candidate", candidate, {b, most, slots}, ScalarKind::Int32, anchors);
  with_boxes(op, anchors, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    check::buffer(op, "floor", floor, {b, a}, kind_of<A>, anchors);
    check::buffer(op, "overlap", overlap, {b, most, slots}, kind_of<A>, anchors);
    check::buffer(op, "max_iou", max_iou, {b, a}, kind_of<A>, anchors);
    check::buffer(op, "threshold", threshold, {b, most}, kind_of<A>, anchors);
    const math::Tiles tiles{a, Device::kPixels};
    anchor_floor<Device, T, A>(context, anchors, valid, ignored_boxes<T>(ignore_boxes, ignore_counts, ignore_threshold),
                               ignore_threshold, floor, tiles, b);
    Device::rows(
        context, b * most, a,
        math::AtssCandidates<T, A>{anchors.ptr<T>(), padded_boxes<T>(boxes, counts), floor.ptr<A>(), threshold.ptr<A>(),
                                   candidate.ptr<int>(), overlap.ptr<A>(), levels, int(topk)});
    Device::rows(context, b * tiles.per_image(), tiles.size + most * slots,
                 math::TakeHighest<A>{candidate.ptr<int>(), overlap.ptr<A>(), floor.ptr<A>(), counts.ptr<int64_t>(),
                                      gt_index.ptr<int64_t>(), max_iou.ptr<A>(), int(most), int(slots), tiles});
  });
}

}  // namespace pydistill
