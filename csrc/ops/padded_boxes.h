// Checks of what the assigners and regions share: anchors in levels, boxes padded to the same number per image.
#pragma once
#include <vector>

#include "core/check.h"
#include "core/launch.h"
#include "math/anchor_floor.h"

namespace pydistill {

namespace check {

constexpr int64_t kMostAnchors = std::numeric_limits<int>::max() / 4;

inline void anchors(const char* op, const TensorView& t) {
  that(t.ndim == 2 && t.size(1) == 4 && t.size(0) < kMostAnchors, op, "anchors of shape (A, 4)", t);
  buffer(op, "anchors", t, {t.size(0), 4}, t.kind(), t);
}

inline void points(const char* op, const TensorView& t) {
  that(t.ndim == 2 && t.size(1) == 2 && t.size(0) < kMostAnchors, op, "points of shape (A, 2)", t);
  buffer(op, "points", t, {t.size(0), 2}, t.kind(), t);
}

inline math::Levels levels(const char* op, const std::vector<int64_t>& sizes, int64_t total) {
  that(sizes.size() <= size_t(math::Levels::kMost), op, "at most 16 levels", int64_t(sizes.size()));
  math::Levels levels{int(sizes.size()), {}};
  int64_t sum = 0;
  for (size_t l = 0; l < sizes.size(); ++l) {
    that(sizes[l] >= 0 && sizes[l] <= total - sum, op, "level_sizes that add up to the number of anchors", sizes[l]);
    levels.first[l + 1] = int(sum += sizes[l]);
  }
  that(sum == total, op, "level_sizes that add up to the number of anchors", sum);
  return levels;
}

inline void padded_boxes(const char* op, const char* name, const TensorView& boxes, const TensorView& counts,
                         const TensorView& like) {
  const std::string shape = std::string(name) + " of shape (B, G, 4)";
  that(boxes.ndim == 3 && boxes.size(2) == 4 && boxes.size(1) < kMostAnchors, op, shape.c_str(), boxes);
  buffer(op, name, boxes, {boxes.size(0), boxes.size(1), 4}, like.kind(), like);
  const std::string of = std::string(name) + "' counts";
  buffer(op, of.c_str(), counts, {boxes.size(0)}, ScalarKind::Int64, like);
}

inline void ignored(const char* op, const TensorView& ignore, const TensorView& counts, const TensorView& boxes) {
  if (!ignore.present()) return;
  padded_boxes(op, "ignore_boxes", ignore, counts, boxes);
  that(ignore.size(0) == boxes.size(0), op, "ignore_boxes of as many images as boxes", ignore);
}

}  // namespace check

template <class T> math::PaddedBoxes<T> padded_boxes(const TensorView& boxes, const TensorView& counts) {
  return {boxes.ptr<T>(), counts.ptr<int64_t>(), int(boxes.size(1))};
}

// None where there are none or the threshold is off.
template <class T>
math::PaddedBoxes<T> ignored_boxes(const TensorView& boxes, const TensorView& counts, double threshold) {
  return boxes.present() && threshold > 0 ? padded_boxes<T>(boxes, counts) : math::PaddedBoxes<T>{};
}

template <class Device, class T, class A>
void anchor_floor(const Context& context, const TensorView& anchors, const TensorView& valid,
                  const math::PaddedBoxes<T>& ignore, double threshold, const TensorView& floor, math::Tiles tiles,
                  int64_t images) {
  Device::rows(
      context, images * tiles.per_image(), tiles.size * (2 + ignore.most),
      math::DistanceFloor<T, A>{anchors.ptr<T>(), valid.ptr<bool>(), ignore, floor.ptr<A>(), tiles, A(threshold)});
}

}  // namespace pydistill
