// Host side of distance_to_box and box_to_distance, written once for both devices: check, then launch.
#pragma once
#include "core/check.h"
#include "core/launch.h"
#include "math/distance_to_box.h"

namespace pydistill {

namespace distance {

// Calls f(Tag<T>, rows, how many tiles), where boxes are (B, A, 4), points (A, 2), scale (A,) or None, out (B, A, 4).
template <class Device, class F>
void with_rows(const char* op, const TensorView& boxes, ScalarKind kind, const TensorView& points,
               const TensorView& scale, const TensorView& out, F f) {
  check::that(boxes.ndim == 3 && boxes.size(2) == 4, op, "boxes of shape (B, A, 4)", boxes);
  with_boxes(op, points, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const int64_t images = boxes.size(0), n = boxes.size(1);
    const bool back = kind == ScalarKind::Other;  // boxes are gradients
    check::buffer(op, "points", points, {n, 2}, kind_of<T>, boxes);
    if (scale.present()) check::buffer(op, "scale", scale, {n}, kind_of<T>, boxes);
    check::buffer(op, "boxes", boxes, {images, n, 4}, back ? kind_of<A> : kind_of<T>, points);
    check::buffer(op, "out", out, {images, n, 4}, back ? kind_of<T> : kind_of<A>, points);
    const math::Tiles tiles{n, Device::kPixels};
    f(tag, math::PointRows<T, A>{points.ptr<T>(), scale.ptr<T>(), tiles}, images * tiles.per_image());
  });
}

}  // namespace distance

template <class Device>
void distance_to_box(const Context& context, const TensorView& points, const TensorView& distances,
                     const TensorView& scale, const TensorView& out) {
  distance::with_rows<Device>("distance_to_box", distances, points.kind(), points, scale, out,
                              [&](auto tag, const auto& rows, int64_t n) {
                                using T = typename decltype(tag)::type;
                                using A = typename Accumulate<T>::type;
                                const math::DistanceToBox<T, A> body{rows, distances.ptr<T>(), out.ptr<A>()};
                                Device::rows(context, n, Device::kPixels * 4, body);
                              });
}

template <class Device>
void distance_to_box_backward(const Context& context, const TensorView& dout, const TensorView& points,
                              const TensorView& scale, const TensorView& ddistances) {
  distance::with_rows<Device>("distance_to_box_backward", dout, ScalarKind::Other, points, scale, ddistances,
                              [&](auto tag, const auto& rows, int64_t n) {
                                using T = typename decltype(tag)::type;
                                using A = typename Accumulate<T>::type;
                                const math::DistanceToBoxBackward<T, A> body{rows, dout.ptr<A>(), ddistances.ptr<T>()};
                                Device::rows(context, n, Device::kPixels * 4, body);
                              });
}

template <class Device>
void box_to_distance(const Context& context, const TensorView& points, const TensorView& boxes, const TensorView& scale,
                     double low, double high, const TensorView& out) {
  distance::with_rows<Device>(
      "box_to_distance", boxes, points.kind(), points, scale, out, [&](auto tag, const auto& rows, int64_t n) {
        using T = typename decltype(tag)::type;
        using A = typename Accumulate<T>::type;
        const math::BoxToDistance<T, A> body{rows, boxes.ptr<T>(), out.ptr<A>(), A(low), A(high)};
        Device::rows(context, n, Device::kPixels * 4, body);
      });
}

}  // namespace pydistill
