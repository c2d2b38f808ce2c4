// Host side of keypoint_relation_loss among channels, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "math/keypoint_channel_relation_loss.h"
#include "ops/keypoint_relation_loss.h"

namespace pydistill {

// cell, weight, used, normalizer, loss, factor: as keypoint_feature_loss has them. gram (B * M, 3, K, K), float64, and
// rows (B * M,): scratch; pull (B * M, 4, K, K), slope (B * M, 2, C): kept.
template <class Device>
void keypoint_channel_relation_loss(const Context& context, const TensorView& student, const TensorView& teacher,
                                    const TensorView& cell, const TensorView& weight, const TensorView& used,
                                    const TensorView& normalizer, int64_t boxes, bool interleaved, double eps,
                                    const TensorView& gram, const TensorView& rows, const TensorView& loss,
                                    const TensorView& factor, const TensorView& pull, const TensorView& slope) {
  constexpr auto op = "keypoint_channel_relation_loss";
  keypoints::with_maps(op, student, teacher, [&]<class S, class U>(S, U) {
    using T = typename S::type;
    using V = typename U::type;
    using A = typename Accumulate<T>::type;
    using Body = math::KeypointChannelRelationLoss<T, V, A>;
    const auto at = keypoints::rows<Device, A>(op, student, cell, weight, boxes, interleaved);
    const int64_t n = student.size(0) * boxes, count = cell.size(2), c = student.size(1);
    check::buffer(op, "gram", gram, {n, 3, count, count}, ScalarKind::Float64, student);
    check::buffer(op, "rows", rows, {n}, kind_of<A>, student);
    check::buffer(op, "pull", pull, {n, 4, count, count}, kind_of<A>, student);
    check::buffer(op, "slope", slope, {n, 2, c}, kind_of<A>, student);
    check::buffer(op, "used", used, {n}, kind_of<A>, student);
    check::that(c < 1 << 30, op, "fewer than 2^30 channels", student);
    const auto total = keypoints::total<A>(op, rows, used, normalizer, 1, eps, loss, factor);
    const int64_t fits = keypoints::kBytes / (count * int64_t(2 * sizeof(A) + sizeof(double)) + 3 * sizeof(double));
    const int chunk = int(c < 1 ? 1 : c < fits ? c : fits);
    Device::rows(context, n, count * c * (32 + 8 * count),
                 Body{at, feature_map<const T>(op, "student", student, interleaved),
                      feature_map<const V>(op, "teacher", teacher, interleaved), used.ptr<A>(), gram.ptr<double>(),
                      pull.ptr<A>(), slope.ptr<A>(), rows.ptr<A>(), int(boxes),
                      int(keypoints::layout<Device>(boxes, count, interleaved, sizeof(A)).slots(boxes)), int(count),
                      int(c), chunk},
                 Body::bytes(int(count), chunk));
    Device::rows(context, 1, n, total);
  });
}

template <class Device>
void keypoint_channel_relation_loss_backward(const Context& context, const TensorView& dloss, const TensorView& student,
                                             const TensorView& teacher, const TensorView& cell,
                                             const TensorView& weight, const TensorView& sorted,
                                             const TensorView& order, const TensorView& pull, const TensorView& slope,
                                             const TensorView& factor, int64_t boxes, bool interleaved,
                                             const TensorView& dstudent) {
  constexpr auto op = "keypoint_channel_relation_loss_backward";
  check::rank(op, "cells of shape (B, slots, K, 4)", cell, 4);
  keypoints::with_maps(op, student, teacher, [&]<class S, class U>(S, U) {
    using T = typename S::type;
    using V = typename U::type;
    using A = typename Accumulate<T>::type;
    const int64_t n = student.size(0) * boxes, count = cell.size(2), c = student.size(1);
    check::buffer(op, "pull", pull, {n, 4, count, count}, kind_of<A>, student);
    check::buffer(op, "slope", slope, {n, 2, c}, kind_of<A>, student);
    keypoints::relation_backward<Device, T, A>(
        context, op, dloss, student, cell, weight, sorted, order, factor, boxes, interleaved, dstudent,
        math::ChannelPull<T, V, A>{feature_map<const T>(op, "student", student, interleaved),
                                   feature_map<const V>(op, "teacher", teacher, interleaved), pull.ptr<A>(),
                                   slope.ptr<A>(), int(c)});
  });
}

}  // namespace pydistill
