// What the losses at key points share: how their points are laid out, found on the map, and added up.
#pragma once
#include "core/launch.h"
#include "math/keypoint_cells.h"
#include "ops/feature_map.h"
#include "ops/softmax_kl.h"

namespace pydistill {

namespace keypoints {

constexpr int kMostPoints = 1024;      // of a box
constexpr int64_t kBytes = 40 * 1024;  // of a GPU's scratch: a block of channels at the points of a group of boxes

struct Layout {  // channels of a row; boxes of a group
  int64_t block, per_group;
  int64_t groups(int64_t boxes) const { return (boxes + per_group - 1) / per_group; }
  int64_t slots(int64_t boxes) const { return groups(boxes) * per_group; }
};

// A CPU keeps all boxes of an image. `size`: bytes of an accumulator.
template <class Device> Layout layout(int64_t boxes, int64_t count, bool interleaved, int64_t size) {
  if (Device::kSharedBytes > kBytes * 1024) return {interleaved ? 64 : 1, boxes < 1 ? 1 : boxes};
  const int64_t k = count < 1 ? 1 : count, fits = kBytes / 2 / (k * size), wanted = interleaved ? 32 : 8;
  const int64_t block = fits < wanted ? fits : wanted, points = kBytes / (block * size) - k, most = points / k;
  return {block, most < 1 || boxes < 1 ? 1 : most < boxes ? most : boxes};
}

// The layout of one call, and the tensors that `keypoint_cells` made: cell and weight (B, slots, K, 4).
template <class Device, class A>
math::KeypointRows<A> rows(const char* op, const TensorView& student, const TensorView& cell, const TensorView& weight,
                           int64_t boxes, bool interleaved) {
  check::rank(op, "cells of shape (B, slots, K, 4)", cell, 4);
  const int64_t b = student.size(0), c = student.size(1), count = cell.size(2);
  const Layout of = layout<Device>(boxes, count, interleaved, sizeof(A));
  check::that(of.per_group * count <= std::numeric_limits<int>::max() / math::kCorners, op, "fewer points", cell);
  check::buffer(op, "cell", cell, {b, of.slots(boxes), count, math::kCorners}, ScalarKind::Int32, student);
  check::buffer(op, "weight", weight, {b, of.slots(boxes), count, math::kCorners}, kind_of<A>, student);
  return {cell.ptr<int>(),
          weight.ptr<A>(),
          int(of.groups(boxes)),
          int(of.per_group * count),
          student.size(2) * student.size(3),
          {c, int(of.block)},
          interleaved};
}

template <class A>
math::KeypointOwners<A> owners(const char* op, const TensorView& sorted, const TensorView& order,
                               const math::KeypointRows<A>& rows, const TensorView& student) {
  const int64_t per_group = math::kCorners * int64_t(rows.points);
  check::buffer(op, "sorted cells", sorted, {student.size(0), rows.groups, per_group}, ScalarKind::Int32, student);
  check::buffer(op, "order", order, {student.size(0), rows.groups, per_group}, ScalarKind::Int64, student);
  return {sorted.ptr<int>(), order.ptr<int64_t>()};
}

// f(Tag<S>, Tag<U>) for maps of one shape.
template <class F> void with_maps(const char* op, const TensorView& student, const TensorView& teacher, F f) {
  check::rank(op, "student of shape (B, C, H, W)", student, 4);
  kl::same_shape(op, "teacher of the student's shape and device", student, teacher);
  constexpr int64_t most = std::numeric_limits<int>::max();
  check::that(student.size(1) <= most && student.size(2) * student.size(3) < most, op,
              "fewer than 2^31 channels and cells", student);
  kl::with_pair(op, student, teacher, f);
}

// f(Tag<S>, Tag<U>, AbsoluteOrSquare)
template <class F>
void with_maps(const char* op, const TensorView& student, const TensorView& teacher, int64_t norm, F f) {
  check::that(norm == 1 || norm == 2, op, "norm 1 or 2", norm);
  with_maps(op, student, teacher, [&](auto s, auto u) { f(s, u, math::AbsoluteOrSquare{norm == 2}); });
}

template <class A>
math::KeypointTotal<A> total(const char* op, const TensorView& values, const TensorView& used,
                             const TensorView& normalizer, double scale, double eps, const TensorView& loss,
                             const TensorView& factor) {
  check::buffer(op, "used", used, {used.numel()}, kind_of<A>, values);
  if (normalizer.present()) check::buffer(op, "normalizer", normalizer, {}, kind_of<A>, values);
  check::buffer(op, "loss", loss, {}, kind_of<A>, values);
  check::buffer(op, "factor", factor, {}, kind_of<A>, values);
  check::that(values.numel() <= std::numeric_limits<int>::max() && used.numel() <= std::numeric_limits<int>::max(), op,
              "fewer than 2^31 boxes and blocks of channels", used);
  return {values.ptr<A>(),   used.ptr<A>(),   normalizer.ptr<A>(),
          loss.ptr<A>(),     factor.ptr<A>(), int(values.numel()),
          int(used.numel()), A(scale),        A(eps)};
}

}  // namespace keypoints

// Channels of a block, groups of the boxes of an image, boxes of a group.
template <class Device>
std::vector<int64_t> keypoint_layout(int64_t boxes, int64_t count, bool interleaved, int64_t size) {
  constexpr auto op = "keypoint_layout";
  check::that(count <= keypoints::kMostPoints, op, "at most 1024 points of a box", count);
  check::that(boxes <= std::numeric_limits<int>::max(), op, "fewer than 2^31 boxes", boxes);
  check::that(size == sizeof(float) || size == sizeof(double), op, "accumulators of 4 or 8 bytes", size);
  const auto of = keypoints::layout<Device>(boxes, count, interleaved, size);
  return {of.block, of.groups(boxes), of.per_group};
}

// points (B, M, K, 2), valid (B, M); cell, weight (B, slots, K, 4), used (B * M,).
template <class Device>
void keypoint_cells(const Context& context, const TensorView& points, const TensorView& valid, int64_t height,
                    int64_t width, bool swap, const TensorView& cell, const TensorView& weight,
                    const TensorView& used) {
  constexpr auto op = "keypoint_cells";
  check::rank(op, "points of shape (B, M, K, 2)", points, 4);
  check::rank(op, "cells of shape (B, slots, K, 4)", cell, 4);
  const int64_t b = points.size(0), m = points.size(1), k = points.size(2), slots = cell.size(1);
  constexpr int64_t most = std::numeric_limits<int>::max();
  check::that(height >= 0 && width >= 0 && height < 1 << 20 && width < 1 << 20 && height * width < most, op,
              "a map with fewer than 2^31 cells", height);
  check::that(m <= most / 2 && k <= keypoints::kMostPoints && slots >= m, op, "fewer boxes and points", points);
  with_floating(op, points, [&](auto tag) {
    using A = typename decltype(tag)::type;
    if constexpr (sizeof(A) >= 4) {
      check::buffer(op, "points", points, {b, m, k, 2}, kind_of<A>, points);
      check::buffer(op, "valid", valid, {b, m}, ScalarKind::Bool, points);
      check::buffer(op, "cell", cell, {b, slots, k, math::kCorners}, ScalarKind::Int32, points);
      check::buffer(op, "weight", weight, {b, slots, k, math::kCorners}, kind_of<A>, points);
      check::buffer(op, "used", used, {b * m}, kind_of<A>, points);
      Device::rows(
          context, b * slots, k,
          math::KeypointCells<A>{points.ptr<A>(), valid.ptr<bool>(), cell.ptr<int>(), weight.ptr<A>(), used.ptr<A>(),
                                 int(m), int(slots), int(k), Grid{int(height), int(width)}, swap});
    } else {
      check::kind(op, "points", points, ScalarKind::Float32);
    }
  });
}

}  // namespace pydistill
