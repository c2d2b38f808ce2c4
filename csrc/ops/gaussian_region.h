// Host side of gaussian_region, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "core/check.h"
#include "core/launch.h"
#include "math/gaussian_region.h"

namespace pydistill {

// boxes (B, M, 5+), valid (B, M), labels (B, M) or None; region (B, classes, H, W), classes = 1 without labels.
template <class Device>
void gaussian_region(const Context& context, const TensorView& boxes, const TensorView& valid, const TensorView& labels,
                     double x_min, double y_min, double cell_x, double cell_y, double overlap, double min_radius,
                     bool released, const TensorView& region) {
  constexpr auto op = "gaussian_region";
  check::rank(op, "boxes of shape (B, M, 5 or more)", boxes, 3);
  check::rank(op, "region of shape (B, classes, H, W)", region, 4);
  const int64_t b = boxes.size(0), m = boxes.size(1), d = boxes.size(2), classes = region.size(1);
  const int64_t h = region.size(2), w = region.size(3);
  constexpr int64_t most = std::numeric_limits<int>::max();
  check::that(d >= 5 && d <= most && m <= most, op, "boxes of five numbers or more", boxes);
  check::that(labels.present() || classes == 1, op, "labels, or one class", region);
  check::that(classes <= most && h * w <= most, op, "fewer than 2^31 cells and classes", region);
  check::positive(op, "cell_x", cell_x);
  check::positive(op, "cell_y", cell_y);
  with_floating(op, boxes, [&](auto tag) {
    using A = typename decltype(tag)::type;
    if constexpr (sizeof(A) >= 4) {
      check::buffer(op, "boxes", boxes, {b, m, d}, kind_of<A>, boxes);
      check::buffer(op, "valid", valid, {b, m}, ScalarKind::Bool, boxes);
      if (labels.present()) check::buffer(op, "labels", labels, {b, m}, ScalarKind::Int64, boxes);
      check::buffer(op, "region", region, {b, classes, h, w}, kind_of<A>, boxes);
      if (region.numel() == 0) return;
      Device::rows(context, b * classes, h * w,
                   math::GaussianRegion<A>{boxes.ptr<A>(), valid.ptr<bool>(), labels.ptr<int64_t>(), region.ptr<A>(),
                                           int(m), int(d), int(classes), Grid{int(h), int(w)}, A(x_min), A(y_min),
                                           A(cell_x), A(cell_y), A(overlap), A(min_radius), released});
    } else {
      check::kind(op, "boxes", boxes, ScalarKind::Float32);
    }
  });
}

}  // namespace pydistill
