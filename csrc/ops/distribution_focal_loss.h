// Host side of distribution_focal_loss, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "math/distribution_focal_loss.h"
#include "ops/focal.h"

namespace pydistill {

namespace focal {
template <class T, class A>
math::DflRows<T, A> distribution_rows(const char* op, const TensorView& logits, const TensorView& target,
                                      const TensorView& weight) {
  const int last = logits.ndim - 1;
  check::that(logits.size(last) >= 1, op, "at least one bin", logits.size(last));
  return {rows_of<const T>(op, logits, last), per_row<A>(op, "target of one number per row", target, logits),
          weights<A>(op, weight, logits), int(logits.size(last))};
}
}  // namespace focal

// target: one per row, in bins. The rest: focal::Outputs.
template <class Device>
void distribution_focal_loss(const Context& context, const TensorView& logits, const TensorView& target,
                             const TensorView& weight, const TensorView& avg_factor, double reduction,
                             const TensorView& rows, const TensorView& partial, const TensorView& total,
                             const TensorView& kept) {
  constexpr auto op = "distribution_focal_loss";
  focal::with_logits(op, logits, [&](auto t, auto a) {
    using T = typename decltype(t)::type;
    using A = typename decltype(a)::type;
    const auto in = focal::distribution_rows<T, A>(op, logits, target, weight);
    const int64_t n = focal::row_count(logits);
    check::buffer(op, "rows", rows, {n}, kind_of<A>, logits);
    const math::DistributionFocal<T, A> body{in, rows.ptr<A>(), focal::kept_of<T>(op, kept, logits), A(reduction)};
    const auto sum = row_sum::sum<Device, A>(op, rows, partial, total, avg_factor, reduction);
    Device::short_rows(context, n, in.n, body, 0, interleaved(in.logits));
    sum(context);
  });
}

// dloss: () or one per row, of any strides. scale: of a row's gradient, but for the weight and avg_factor.
// adds: to what dlogits holds.
template <class Device>
void distribution_focal_loss_backward(const Context& context, const TensorView& dloss, const TensorView& logits,
                                      const TensorView& target, const TensorView& weight, const TensorView& avg_factor,
                                      double scale, bool adds, const TensorView& dlogits) {
  constexpr auto op = "distribution_focal_loss_backward";
  focal::with_logits(op, logits, [&](auto t, auto a) {
    using T = typename decltype(t)::type;
    using A = typename decltype(a)::type;
    const auto in = focal::distribution_rows<T, A>(op, logits, target, weight);
    const int64_t n = focal::row_count(logits);
    const math::DistributionFocalBackward<T, A> body{
        in,
        row_sum::dloss<A>(op, dloss, n, logits),
        row_sum::factor<A>(op, avg_factor, logits),
        {focal::like_logits<T>(op, "dlogits of the logits' shape and device", dlogits, logits), adds},
        A(scale)};
    Device::short_rows(context, n, in.n, body, 0, interleaved(in.logits));
  });
}

}  // namespace pydistill
