// Host side of assign_points, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "math/assign_points.h"
#include "ops/padded_boxes.h"

namespace pydistill {

// radius, low, high: of each level, in pixels.
template <class Device>
void assign_points(const Context& context, const TensorView& points, const std::vector<int64_t>& level_sizes,
                   const TensorView& boxes, const TensorView& counts, const std::vector<double>& radius,
                   const std::vector<double>& low, const std::vector<double>& high, const TensorView& valid,
                   const TensorView& gt_index, const TensorView& centerness) {
  constexpr auto op = "assign_points";
  check::points(op, points);
  check::padded_boxes(op, "boxes", boxes, counts, points);
  const int64_t a = points.size(0), b = boxes.size(0);
  const math::Levels levels = check::levels(op, level_sizes, a);
  for (const auto& v : {radius, low, high})
    check::that(v.size() == level_sizes.size(), op, "one number per level", int64_t(v.size()));
  if (valid.present()) check::buffer(op, "valid", valid, {b, a}, ScalarKind::Bool, points);
  check::buffer(op, "gt_index", gt_index, {b, a}, ScalarKind::Int64, points);
  with_boxes(op, points, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    using Body = math::PointAssignment<T, A>;
    check::buffer(op, "centerness", centerness, {b, a}, kind_of<A>, points);
    math::PointLevels<A> of{levels, {}, {}, {}};
    for (int l = 0; l < levels.count; ++l)
      of.radius[l] = A(radius[size_t(l)]), of.low[l] = A(low[size_t(l)]), of.high[l] = A(high[size_t(l)]);
    const math::Tiles tiles{a, Device::kPixels};
    Device::rows(context, b * tiles.per_image(), tiles.size * (boxes.size(1) + 1) * 4,
                 Body{points.ptr<T>(), padded_boxes<T>(boxes, counts), valid.ptr<bool>(), gt_index.ptr<int64_t>(),
                      centerness.ptr<A>(), tiles, of},
                 Body::bytes(tiles.size));
  });
}

}  // namespace pydistill
