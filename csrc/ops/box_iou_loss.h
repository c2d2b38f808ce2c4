// Host side of box_iou_loss, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "math/box_iou_loss.h"
#include "ops/row_sum.h"

namespace pydistill {

namespace box_loss {

// Small enough that many are skipped where most weights are 0.
template <class Device> constexpr int kTile = std::is_same_v<Device, Cpu> ? 128 : Device::kPixels;

template <class F> void with_form(const char* op, int64_t form, F f) {
  using math::BoxLoss;
  switch (BoxLoss(form)) {
    case BoxLoss::Giou: return f(math::BoxLossTag<BoxLoss::Giou>{});
    case BoxLoss::Diou: return f(math::BoxLossTag<BoxLoss::Diou>{});
    case BoxLoss::Ciou: return f(math::BoxLossTag<BoxLoss::Ciou>{});
    case BoxLoss::CiouReleased: return f(math::BoxLossTag<BoxLoss::CiouReleased>{});
    case BoxLoss::CiouMmdet: return f(math::BoxLossTag<BoxLoss::CiouMmdet>{});
  }
  check::that(false, op, "a form below 5", form);
}

template <class T, class A>
math::BoxRows<T, A> rows(const char* op, const TensorView& prediction, const TensorView& target,
                         const TensorView& weight, double eps, int pixels) {
  check::that(prediction.ndim == 2 && prediction.size(1) == 4, op, "prediction of shape (R, 4)", prediction);
  const int64_t n = prediction.size(0);
  check::buffer(op, "prediction", prediction, {n, 4}, kind_of<T>, prediction);
  check::buffer(op, "target", target, {n, 4}, kind_of<T>, prediction);
  if (weight.present()) check::buffer(op, "weight", weight, {n}, kind_of<A>, prediction);
  check::that(eps >= 0, op, "eps >= 0", eps);
  return {prediction.ptr<T>(), target.ptr<T>(), weight.ptr<A>(), math::Tiles{n, pixels}, A(eps)};
}

}  // namespace box_loss

// prediction, target: (R, 4); weight: (R,) or None; rows, partial, total, avg_factor: as row_sum::sum has them.
template <class Device>
void box_iou_loss(const Context& context, const TensorView& prediction, const TensorView& target,
                  const TensorView& weight, const TensorView& avg_factor, int64_t form, double eps, double factor,
                  const TensorView& rows, const TensorView& partial, const TensorView& total) {
  constexpr auto op = "box_iou_loss";
  with_boxes(op, prediction, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const auto in = box_loss::rows<T, A>(op, prediction, target, weight, eps, box_loss::kTile<Device>);
    const int64_t n = in.tiles.total;
    check::buffer(op, "rows", rows, {n}, kind_of<A>, prediction);
    const auto sum = row_sum::sum<Device, A>(op, rows, partial, total, avg_factor, factor);
    box_loss::with_form(op, form, [&](auto of) {
      using Body = math::BoxIouLoss<decltype(of)::value, T, A>;
      Device::rows(context, in.tiles.per_image(), in.tiles.size * 8, Body{in, rows.ptr<A>()});
    });
    sum(context);
  });
}

// dloss: () or (R,); scale: of every row's gradient, besides weight and avg_factor.
template <class Device>
void box_iou_loss_backward(const Context& context, const TensorView& dloss, const TensorView& prediction,
                           const TensorView& target, const TensorView& weight, const TensorView& avg_factor,
                           int64_t form, double eps, double scale, const TensorView& dprediction) {
  constexpr auto op = "box_iou_loss_backward";
  with_boxes(op, prediction, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const auto in = box_loss::rows<T, A>(op, prediction, target, weight, eps, box_loss::kTile<Device>);
    const int64_t n = in.tiles.total;
    if (dloss.ndim == 0)
      check::buffer(op, "dloss", dloss, {}, kind_of<A>, prediction);
    else
      check::buffer(op, "dloss", dloss, {n}, kind_of<A>, prediction);
    check::buffer(op, "dprediction", dprediction, {n, 4}, kind_of<T>, prediction);
    const A* factor = row_sum::factor<A>(op, avg_factor, prediction);
    box_loss::with_form(op, form, [&](auto of) {
      using Body = math::BoxIouLossBackward<decltype(of)::value, T, A>;
      const Body body{in, dloss.ptr<A>(), dloss.ndim, factor, dprediction.ptr<T>(), A(scale)};
      Device::rows(context, in.tiles.per_image(), in.tiles.size * 16, body);
    });
  });
}

}  // namespace pydistill
