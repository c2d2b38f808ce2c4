// Host side of valuable_localization_region, written once for both devices: check, then launch. Python allocates.
#pragma once
#include <type_traits>

#include "math/valuable_localization_region.h"
#include "ops/padded_boxes.h"

namespace pydistill {

// threshold (B, G), or None: `level` for every box.
template <class Device>
void valuable_localization_region(const Context& context, const TensorView& anchors, const TensorView& boxes,
                                  const TensorView& counts, const TensorView& threshold, double level, double gamma,
                                  bool released, bool open, bool one, const TensorView& valid,
                                  const TensorView& exclude, const TensorView& weight) {
  constexpr auto op = "valuable_localization_region";
  check::anchors(op, anchors);
  check::padded_boxes(op, "boxes", boxes, counts, anchors);
  const int64_t a = anchors.size(0), b = boxes.size(0), most = boxes.size(1);
  check::that(gamma >= 0 && gamma <= 1, op, "gamma in [0, 1]", gamma);
  if (valid.present()) check::buffer(op, "valid", valid, {b, a}, ScalarKind::Bool, anchors);
  if (exclude.present()) check::buffer(op, "exclude", exclude, {b, a}, ScalarKind::Bool, anchors);
  with_boxes(op, anchors, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    if (threshold.present()) check::buffer(op, "threshold", threshold, {b, most}, kind_of<A>, anchors);
    check::buffer(op, "weight", weight, {b, a}, kind_of<A>, anchors);
    const math::Tiles tiles{a, Device::kPixels};
    const auto run = [&](auto measure) {
      constexpr bool kReleased = decltype(measure)::value;
      using Body = math::ValuableRegion<T, A, kReleased>;
      Device::rows(context, b * tiles.per_image(), tiles.size * (most + 1) * 8,
                   Body{anchors.ptr<T>(),
                        padded_boxes<T>(boxes, counts),
                        threshold.ptr<A>(),
                        valid.ptr<bool>(),
                        exclude.ptr<bool>(),
                        weight.ptr<A>(),
                        tiles,
                        A(level),
                        {A(gamma), open, one}});
    };
    released ? run(std::true_type{}) : run(std::false_type{});
  });
}

}  // namespace pydistill
