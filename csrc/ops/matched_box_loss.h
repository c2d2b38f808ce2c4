// Host side of matched_box_loss, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "core/launch.h"
#include "math/matched_box_loss.h"
#include "ops/matched.h"

namespace pydistill {

namespace matched {

struct BoxOptions {
  double eps;
  bool corners, l1_corners, clamp_targets;
};

template <class T, class A>
math::MatchedBoxes<T, A> boxes(const char* op, const TensorView& boxes, const TensorView& targets,
                               const TensorView& match, const TensorView& weight, const TensorView& sizes,
                               const BoxOptions& o, int pixels) {
  check::that(boxes.ndim == 3 && boxes.size(2) == 4, op, "boxes of shape (N, Q, 4)", boxes);
  const int64_t n = boxes.size(0), q = boxes.size(1);
  check::buffer(op, "boxes", boxes, {n, q, 4}, kind_of<T>, boxes);
  check::buffer(op, "target_of_query", match, {n, q}, ScalarKind::Int64, boxes);
  if (weight.present()) check::buffer(op, "weight", weight, {n, q}, kind_of<A>, boxes);
  check::that(o.eps >= 0, op, "giou_eps >= 0", o.eps);
  const auto of = per_image<A>(op, "target_boxes", targets, {-1, 4}, n, boxes);
  check::that(targets.present() && targets.size(1) <= std::numeric_limits<int>::max(), op, "target_boxes", targets);
  return {boxes.ptr<T>(),
          of,
          match.ptr<int64_t>(),
          weight.ptr<A>(),
          per_image<A>(op, "image_sizes", sizes, {2}, n, boxes),
          int(targets.size(1)),
          math::Tiles{q, pixels},
          {o.corners, o.l1_corners, false},
          {o.corners, o.l1_corners, o.clamp_targets},
          A(o.eps)};
}

}  // namespace matched

// boxes: (N, Q, 4); target_boxes: (B, T, 4) with N a multiple of B; target_of_query, weight (or None): (N, Q);
// image_sizes: (B, 2) or None; losses: (2, N, Q), L1 and GIoU.
template <class Device>
void matched_box_loss(const Context& context, const TensorView& boxes, const TensorView& target_boxes,
                      const TensorView& target_of_query, const TensorView& weight, const TensorView& image_sizes,
                      double eps, bool corners, bool l1_corners, bool clamp_targets, const TensorView& losses) {
  constexpr auto op = "matched_box_loss";
  with_floating(op, boxes, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const auto in = matched::boxes<T, A>(op, boxes, target_boxes, target_of_query, weight, image_sizes,
                                         {eps, corners, l1_corners, clamp_targets}, Device::kPixels);
    const int64_t n = boxes.size(0), q = boxes.size(1);
    check::buffer(op, "losses", losses, {2, n, q}, kind_of<A>, boxes);
    A* out = losses.ptr<A>();
    Device::rows(context, n * in.tiles.per_image(), in.tiles.size * 8,
                 math::MatchedBoxLoss<T, A>{in, out, out + n * q});
  });
}

// dl1, dgiou: N * Q numbers, of any three strides.
template <class Device>
void matched_box_loss_backward(const Context& context, const TensorView& dl1, const TensorView& dgiou,
                               const TensorView& boxes, const TensorView& target_boxes,
                               const TensorView& target_of_query, const TensorView& weight,
                               const TensorView& image_sizes, double eps, bool corners, bool l1_corners,
                               bool clamp_targets, const TensorView& dboxes) {
  constexpr auto op = "matched_box_loss_backward";
  with_floating(op, boxes, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const auto in = matched::boxes<T, A>(op, boxes, target_boxes, target_of_query, weight, image_sizes,
                                         {eps, corners, l1_corners, clamp_targets}, Device::kPixels);
    const int64_t n = boxes.size(0), q = boxes.size(1);
    for (const TensorView* d : {&dl1, &dgiou}) {
      check::kind(op, "dloss", *d, kind_of<A>);
      check::that(d->numel() == n * q && check::same_device(*d, boxes), op, "a gradient of one number a query", *d);
    }
    check::buffer(op, "dboxes", dboxes, {n, q, 4}, kind_of<T>, boxes);
    const math::MatchedBoxLossBackward<T, A> body{in, rows_of<const A>(op, dl1, -1), rows_of<const A>(op, dgiou, -1),
                                                  dboxes.ptr<T>()};
    Device::rows(context, n * in.tiles.per_image(), in.tiles.size * 16, body);
  });
}

}  // namespace pydistill
