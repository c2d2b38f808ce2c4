// Host side of sigmoid_focal_loss: csrc/ops/focal.h with a label for each row, or a target for each logit.
#pragma once
#include "ops/focal.h"

namespace pydistill {

namespace focal {
// f(rows) with the targets that there are: labels, or targets.
template <class T, class A, class F>
void with_sigmoid_rows(const char* op, const TensorView& logits, const TensorView& labels, const TensorView& targets,
                       const TensorView& weight, double alpha, double gamma, F f) {
  check::that(gamma >= 0, op, "gamma >= 0", gamma);
  const math::SigmoidFocal<A> loss{A(gamma), A(alpha < 0 ? 1 : alpha), A(alpha < 0 ? 1 : 1 - alpha)};
  if (labels.present()) {
    const math::LabelTargets<A> label{per_row<int64_t>(op, "labels of one number per row", labels, logits), {}};
    return f(rows<T, A>(op, logits, label, weight, loss));
  }
  check::that(targets.present(), op, "labels or targets", targets);
  const math::DenseTargets<T, A> dense{
      like_logits<const T>(op, "targets of the logits' shape and device", targets, logits)};
  f(rows<T, A>(op, logits, dense, weight, loss));
}
}  // namespace focal

// labels: one per row, or None; targets: of the logits' shape, or None. alpha < 0: no balance. The rest: focal::Outputs.
template <class Device>
void sigmoid_focal_loss(const Context& context, const TensorView& logits, const TensorView& labels,
                        const TensorView& targets, const TensorView& weight, const TensorView& avg_factor, double alpha,
                        double gamma, double reduction, const TensorView& rows, const TensorView& partial,
                        const TensorView& total, const TensorView& kept) {
  constexpr auto op = "sigmoid_focal_loss";
  focal::with_logits(op, logits, [&](auto t, auto a) {
    using T = typename decltype(t)::type;
    using A = typename decltype(a)::type;
    focal::with_sigmoid_rows<T, A>(op, logits, labels, targets, weight, alpha, gamma, [&](const auto& in) {
      focal::forward<Device>(context, op, logits, in, avg_factor, reduction, {rows, partial, total, kept});
    });
  });
}

// dloss: () or one per row, of any strides. scale: of a row's gradient, but for the weight and avg_factor.
template <class Device>
void sigmoid_focal_loss_backward(const Context& context, const TensorView& dloss, const TensorView& logits,
                                 const TensorView& labels, const TensorView& targets, const TensorView& weight,
                                 const TensorView& avg_factor, double alpha, double gamma, double scale,
                                 const TensorView& dlogits) {
  constexpr auto op = "sigmoid_focal_loss_backward";
  focal::with_logits(op, logits, [&](auto t, auto a) {
    using T = typename decltype(t)::type;
    using A = typename decltype(a)::type;
    focal::with_sigmoid_rows<T, A>(op, logits, labels, targets, weight, alpha, gamma, [&](const auto& in) {
      focal::backward<Device>(context, op, dloss, logits, in, avg_factor, scale, dlogits);
    });
  });
}

}  // namespace pydistill
