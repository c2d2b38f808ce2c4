// Host side of keypoint_feature_loss, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "math/keypoint_feature_loss.h"
#include "ops/keypoint_cells.h"
#include "ops/zeros.h"

namespace pydistill {

// cell, weight (B, slots, K, 4), used (B * M,): of keypoint_cells. normalizer (): or None. partial (B * blocks,): scratch.
// loss (); factor (): kept.
template <class Device>
void keypoint_feature_loss(const Context& context, const TensorView& student, const TensorView& teacher,
                           const TensorView& cell, const TensorView& weight, const TensorView& used,
                           const TensorView& normalizer, int64_t boxes, int64_t norm, bool interleaved, double eps,
                           const TensorView& partial, const TensorView& loss, const TensorView& factor) {
  constexpr auto op = "keypoint_feature_loss";
  keypoints::with_maps(op, student, teacher, norm, [&]<class S, class U>(S, U, math::AbsoluteOrSquare of) {
    using T = typename S::type;
    using A = typename Accumulate<T>::type;
    const auto rows = keypoints::rows<Device, A>(op, student, cell, weight, boxes, interleaved);
    const int64_t n = student.size(0) * rows.blocks.per_image(), count = cell.size(2), c = student.size(1);
    check::buffer(op, "partial", partial, {n}, kind_of<A>, student);
    const double scale = count * c > 0 ? 1.0 / double(count * c) : 1.0;
    const auto total = keypoints::total<A>(op, partial, used, normalizer, scale, eps, loss, factor);
    Device::rows(context, n, 8LL * rows.groups * rows.points * rows.blocks.size,
                 math::KeypointFeatureLoss<T, typename U::type, A>{
                     {rows, feature_map<const T>(op, "student", student, interleaved),
                      feature_map<const typename U::type>(op, "teacher", teacher, interleaved)},
                     of,
                     partial.ptr<A>()});
    Device::rows(context, 1, n, total);
  });
}

// sorted (B, groups, slots / groups * K * 4): the cells of each group, ascending; order: where each of them was.
// dstudent: of the student's shape, laid out as `interleaved` says.
template <class Device>
void keypoint_feature_loss_backward(const Context& context, const TensorView& dloss, const TensorView& student,
                                    const TensorView& teacher, const TensorView& cell, const TensorView& weight,
                                    const TensorView& sorted, const TensorView& order, const TensorView& factor,
                                    int64_t boxes, int64_t norm, bool interleaved, const TensorView& dstudent) {
  constexpr auto op = "keypoint_feature_loss_backward";
  keypoints::with_maps(op, student, teacher, norm, [&]<class S, class U>(S, U, math::AbsoluteOrSquare of) {
    using T = typename S::type;
    using A = typename Accumulate<T>::type;
    using Body = math::KeypointFeatureBackward<T, typename U::type, A>;
    const auto rows = keypoints::rows<Device, A>(op, student, cell, weight, boxes, interleaved);
    const auto owners = keypoints::owners<A>(op, sorted, order, rows, student);
    check::buffer(op, "dloss", dloss, {}, kind_of<A>, student);
    check::buffer(op, "factor", factor, {}, kind_of<A>, student);
    kl::gradient(op, "dstudent of the student's shape and device", dstudent, student);
    const Body body{{rows, feature_map<const T>(op, "student", student, interleaved),
                     feature_map<const typename U::type>(op, "teacher", teacher, interleaved)},
                    of,
                    owners,
                    dloss.ptr<A>(),
                    factor.ptr<A>(),
                    feature_map<T>(op, "dstudent", dstudent, interleaved)};
    zeros<Device>(context, op, dstudent);
    Device::rows(context, student.size(0) * rows.blocks.per_image(),
                 12LL * rows.groups * rows.points * rows.blocks.size, body, Body::bytes(rows.points, rows.blocks.size));
  });
}

}  // namespace pydistill
