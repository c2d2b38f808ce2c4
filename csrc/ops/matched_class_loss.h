// Host side of matched_class_loss with a teacher's logits: csrc/ops/focal.h, with the targets of the rows' matches.
#pragma once
#include "math/matched_class_loss.h"
#include "ops/focal.h"
#include "ops/matched.h"

namespace pydistill {

namespace matched {

template <class T, class A>
auto class_rows(const char* op, const TensorView& logits, const TensorView& teacher, const TensorView& match,
                const TensorView& weight) {
  check::rank(op, "logits of shape (N, Q, C)", logits, 3);
  const int64_t n = logits.size(0), q = logits.size(1), c = logits.size(2);
  check::that(n * q <= std::numeric_limits<int>::max(), op, "fewer than 2^31 queries", logits);
  check::buffer(op, "target_of_query", match, {n, q}, ScalarKind::Int64, logits);
  const auto of = per_image<A>(op, "targets", teacher, {-1, c}, n, logits);
  check::that(teacher.present() && teacher.size(1) <= std::numeric_limits<int>::max(), op, "targets", teacher);
  const math::MatchedTargets<A> targets{of, match.ptr<int64_t>(), uint32_t(q), int(teacher.size(1))};
  return focal::rows<T, A>(op, logits, targets, weight, math::SoftCrossEntropy{});
}

}  // namespace matched

// logits: (N, Q, C); teacher: (B, T, C) logits with N a multiple of B, in the accumulator's dtype; target_of_query:
// (N, Q); weight: one per row, or None. The rest: focal::Outputs.
template <class Device>
void matched_class_loss(const Context& context, const TensorView& logits, const TensorView& teacher,
                        const TensorView& target_of_query, const TensorView& weight, const TensorView& avg_factor,
                        double reduction, const TensorView& rows, const TensorView& partial, const TensorView& total,
                        const TensorView& kept) {
  constexpr auto op = "matched_class_loss";
  focal::with_logits(op, logits, [&](auto t, auto a) {
    using T = typename decltype(t)::type;
    using A = typename decltype(a)::type;
    const auto in = matched::class_rows<T, A>(op, logits, teacher, target_of_query, weight);
    focal::forward<Device>(context, op, logits, in, avg_factor, reduction, {rows, partial, total, kept});
  });
}

// dloss: () or one per row, of any strides. scale: of a row's gradient, but for the weight and avg_factor.
template <class Device>
void matched_class_loss_backward(const Context& context, const TensorView& dloss, const TensorView& logits,
                                 const TensorView& teacher, const TensorView& target_of_query, const TensorView& weight,
                                 const TensorView& avg_factor, double scale, const TensorView& dlogits) {
  constexpr auto op = "matched_class_loss_backward";
  focal::with_logits(op, logits, [&](auto t, auto a) {
    using T = typename decltype(t)::type;
    using A = typename decltype(a)::type;
    const auto in = matched::class_rows<T, A>(op, logits, teacher, target_of_query, weight);
    focal::backward<Device>(context, op, dloss, logits, in, avg_factor, scale, dlogits);
  });
}

}  // namespace pydistill
