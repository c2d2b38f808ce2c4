// Host side of keypoint_relation_loss, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "math/keypoint_relation_loss.h"
#include "ops/keypoint_cells.h"
#include "ops/zeros.h"

namespace pydistill {

// cell, weight, used, normalizer, loss, factor: as keypoint_feature_loss has them. gram (B * M, 2, K, K), rows (B * M,):
// scratch; pull (B * M, K, K): kept.
template <class Device>
void keypoint_relation_loss(const Context& context, const TensorView& student, const TensorView& teacher,
                            const TensorView& cell, const TensorView& weight, const TensorView& used,
                            const TensorView& normalizer, int64_t boxes, int64_t norm, bool cosine, bool interleaved,
                            double eps, const TensorView& gram, const TensorView& rows, const TensorView& loss,
                            const TensorView& factor, const TensorView& pull) {
  constexpr auto op = "keypoint_relation_loss";
  keypoints::with_maps(op, student, teacher, norm, [&]<class S, class U>(S, U, math::AbsoluteOrSquare of) {
    using T = typename S::type;
    using A = typename Accumulate<T>::type;
    using Body = math::KeypointRelationLoss<T, typename U::type, A>;
    const auto at = keypoints::rows<Device, A>(op, student, cell, weight, boxes, interleaved);
    const int64_t n = student.size(0) * boxes, count = cell.size(2), c = student.size(1);
    check::buffer(op, "gram", gram, {n, 2, count, count}, kind_of<A>, student);
    check::buffer(op, "rows", rows, {n}, kind_of<A>, student);
    check::buffer(op, "pull", pull, {n, count, count}, kind_of<A>, student);
    check::buffer(op, "used", used, {n}, kind_of<A>, student);
    const auto total = keypoints::total<A>(op, rows, used, normalizer, 1, eps, loss, factor);
    const int64_t each = (count < 1 ? 1 : count) * int64_t(sizeof(A)),
                  fits = (keypoints::kBytes - 3 * each) / (2 * each);
    const int chunk = int(c < 1 ? 1 : c < fits ? c : fits);
    Device::rows(context, n, count * c * (16 + 2 * count),
                 Body{at, feature_map<const T>(op, "student", student, interleaved),
                      feature_map<const typename U::type>(op, "teacher", teacher, interleaved), of, used.ptr<A>(),
                      gram.ptr<A>(), pull.ptr<A>(), rows.ptr<A>(), int(boxes),
                      int(keypoints::layout<Device>(boxes, count, interleaved, sizeof(A)).slots(boxes)), int(count),
                      int(c), chunk, cosine, A(eps)},
                 Body::bytes(int(count), chunk));
    Device::rows(context, 1, n, total);
  });
}

namespace keypoints {

// What the backwards of both relations share. sorted, order, dstudent: as keypoint_feature_loss_backward has them.
template <class Device, class T, class A, class Pull>
void relation_backward(const Context& context, const char* op, const TensorView& dloss, const TensorView& student,
                       const TensorView& cell, const TensorView& weight, const TensorView& sorted,
                       const TensorView& order, const TensorView& factor, int64_t boxes, bool interleaved,
                       const TensorView& dstudent, const Pull& pull) {
  using Body = math::KeypointRelationBackward<T, A, Pull>;
  const auto at = rows<Device, A>(op, student, cell, weight, boxes, interleaved);
  const auto by = owners<A>(op, sorted, order, at, student);
  const int64_t count = cell.size(2);
  check::buffer(op, "dloss", dloss, {}, kind_of<A>, student);
  check::buffer(op, "factor", factor, {}, kind_of<A>, student);
  kl::gradient(op, "dstudent of the student's shape and device", dstudent, student);
  const auto gradient = feature_map<T>(op, "dstudent", dstudent, interleaved);
  const int per_group = at.groups ? int(cell.size(1) / at.groups) : 0;
  zeros<Device>(context, op, dstudent);
  Device::rows(context, student.size(0) * at.blocks.per_image(), (8 + count) * at.groups * at.points * at.blocks.size,
               Body{at, pull, by, dloss.ptr<A>(), factor.ptr<A>(), gradient, int(boxes), per_group, int(count)},
               Body::bytes(at.points, int(count), at.blocks.size));
}

}  // namespace keypoints

template <class Device>
void keypoint_relation_loss_backward(const Context& context, const TensorView& dloss, const TensorView& student,
                                     const TensorView& cell, const TensorView& weight, const TensorView& sorted,
                                     const TensorView& order, const TensorView& pull, const TensorView& factor,
                                     int64_t boxes, bool interleaved, const TensorView& dstudent) {
  constexpr auto op = "keypoint_relation_loss_backward";
  check::rank(op, "student of shape (B, C, H, W)", student, 4);
  check::rank(op, "cells of shape (B, slots, K, 4)", cell, 4);
  with_floating(op, student, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    check::buffer(op, "pull", pull, {student.size(0) * boxes, cell.size(2), cell.size(2)}, kind_of<A>, student);
    keypoints::relation_backward<Device, T, A>(
        context, op, dloss, student, cell, weight, sorted, order, factor, boxes, interleaved, dstudent,
        math::PointPull<T, A>{feature_map<const T>(op, "student", student, interleaved), pull.ptr<A>()});
  });
}

}  // namespace pydistill
