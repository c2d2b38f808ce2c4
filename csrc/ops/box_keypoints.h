// Host side of box_keypoints, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "core/check.h"
#include "core/launch.h"
#include "math/box_keypoints.h"

namespace pydistill {

// boxes (B, M, 7+); along x across points, or the nine where both are 0; points (B, M, K, 2).
template <class Device>
void box_keypoints(const Context& context, const TensorView& boxes, int64_t along, int64_t across, double x_min,
                   double y_min, double cell_x, double cell_y, const TensorView& points) {
  constexpr auto op = "box_keypoints";
  check::rank(op, "boxes of shape (B, M, 7 or more)", boxes, 3);
  const int64_t b = boxes.size(0), m = boxes.size(1), d = boxes.size(2);
  constexpr int64_t most = std::numeric_limits<int>::max();
  check::that(d >= 7 && d <= most, op, "boxes of seven numbers or more", boxes);
  check::that((along == 0 && across == 0) || (along > 0 && across > 0 && along <= most && across <= most / 2 / along),
              op, "fewer than 2^30 points, or the nine", along);
  check::positive(op, "cell_x", cell_x);
  check::positive(op, "cell_y", cell_y);
  const math::BoxPlaces places{int(along), int(across)};
  with_floating(op, boxes, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    check::buffer(op, "boxes", boxes, {b, m, d}, kind_of<T>, boxes);
    check::buffer(op, "points", points, {b, m, places.count(), 2}, kind_of<A>, boxes);
    Device::rows(
        context, b * m, 4LL * places.count(),
        math::BoxKeypoints<T, A>{boxes.ptr<T>(), points.ptr<A>(), int(d), places, x_min, y_min, cell_x, cell_y});
  });
}

}  // namespace pydistill
