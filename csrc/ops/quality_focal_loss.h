// Host side of quality_focal_loss: csrc/ops/focal.h with a label and a score for each row.
#pragma once
#include "ops/focal.h"

namespace pydistill {

namespace focal {
template <class T, class A>
auto quality_rows(const char* op, const TensorView& logits, const TensorView& labels, const TensorView& scores,
                  const TensorView& weight, double beta, bool activated) {
  check::that(beta >= 0, op, "beta >= 0", beta);
  const math::LabelTargets<A> targets{per_row<int64_t>(op, "labels of one number per row", labels, logits),
                                      per_row<A>(op, "scores of one number per row", scores, logits)};
  return rows<T, A>(op, logits, targets, weight, math::Quality<A>{A(beta), activated});
}
}  // namespace focal

// labels, scores: one per row; beta >= 0; activated: the logits are probabilities. The rest: focal::Outputs.
template <class Device>
void quality_focal_loss(const Context& context, const TensorView& logits, const TensorView& labels,
                        const TensorView& scores, const TensorView& weight, const TensorView& avg_factor, double beta,
                        bool activated, double reduction, const TensorView& rows, const TensorView& partial,
                        const TensorView& total, const TensorView& kept) {
  constexpr auto op = "quality_focal_loss";
  focal::with_logits(op, logits, [&](auto t, auto a) {
    using T = typename decltype(t)::type;
    using A = typename decltype(a)::type;
    const auto in = focal::quality_rows<T, A>(op, logits, labels, scores, weight, beta, activated);
    focal::forward<Device>(context, op, logits, in, avg_factor, reduction, {rows, partial, total, kept});
  });
}

// dloss: () or one per row, of any strides. scale: of a row's gradient, but for the weight and avg_factor.
template <class Device>
void quality_focal_loss_backward(const Context& context, const TensorView& dloss, const TensorView& logits,
                                 const TensorView& labels, const TensorView& scores, const TensorView& weight,
                                 const TensorView& avg_factor, double beta, bool activated, double scale,
                                 const TensorView& dlogits) {
  constexpr auto op = "quality_focal_loss_backward";
  focal::with_logits(op, logits, [&](auto t, auto a) {
    using T = typename decltype(t)::type;
    using A = typename decltype(a)::type;
    const auto in = focal::quality_rows<T, A>(op, logits, labels, scores, weight, beta, activated);
    focal::backward<Device>(context, op, dloss, logits, in, avg_factor, scale, dlogits);
  });
}

}  // namespace pydistill
