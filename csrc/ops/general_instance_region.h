// Host side of general_instance_region, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "math/general_instance_region.h"
#include "ops/padded_boxes.h"

namespace pydistill {

// score (B, A) and box (B, A, 4): scratch.
template <class Device>
void general_instance_region(const Context& context, const TensorView& student_scores, const TensorView& teacher_scores,
                             const TensorView& student_boxes, const TensorView& teacher_boxes,
                             const std::vector<int64_t>& level_sizes, int64_t top, double iou, bool activated,
                             bool of_batch, const TensorView& valid, const TensorView& score, const TensorView& box,
                             const TensorView& inside) {
  constexpr auto op = "general_instance_region";
  const TensorView& like = student_scores;
  check::rank(op, "student_scores of shape (B, A, C)", like, 3);
  const int64_t b = like.size(0), a = like.size(1), c = like.size(2), most = std::numeric_limits<int>::max();
  check::that(a < check::kMostAnchors && c <= most && (!of_batch || b * a <= most), op,
              "fewer than 2^31 anchors and classes", like);
  const math::Levels levels = check::levels(op, level_sizes, a);
  check::that(top > 0 && top <= most, op, "top > 0", top);
  if (valid.present()) check::buffer(op, "valid", valid, {b, a}, ScalarKind::Bool, like);
  check::buffer(op, "inside", inside, {b, a}, ScalarKind::Bool, like);
  with_floating(op, like, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    check::buffer(op, "student_scores", like, {b, a, c}, kind_of<T>, like);
    check::buffer(op, "teacher_scores", teacher_scores, {b, a, c}, kind_of<T>, like);
    check::buffer(op, "student_boxes", student_boxes, {b, a, 4}, kind_of<A>, like);
    check::buffer(op, "teacher_boxes", teacher_boxes, {b, a, 4}, kind_of<A>, like);
    check::buffer(op, "score", score, {b, a}, kind_of<A>, like);
    check::buffer(op, "box", box, {b, a, 4}, kind_of<A>, like);
    Device::short_rows(context, b * a, int(c),
                       math::GeneralInstances<T, A>{like.ptr<T>(), teacher_scores.ptr<T>(), student_boxes.ptr<A>(),
                                                    teacher_boxes.ptr<A>(), valid.ptr<bool>(), score.ptr<A>(),
                                                    box.ptr<A>(), inside.ptr<bool>(), int(c), activated});
    const int64_t groups = (of_batch ? int64_t(b > 0) : b) * levels.count;
    Device::rows(context, groups, 8 * a,
                 math::TopInstances<A>{score.ptr<A>(), box.ptr<A>(), inside.ptr<bool>(), levels, of_batch ? int(b) : 1,
                                       int(top), A(iou)});
  });
}

}  // namespace pydistill
