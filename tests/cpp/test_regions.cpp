#include "harness.h"
#include "math/assign_max_iou.h"
#include "math/assign_points.h"
#include "math/fine_grained_region.h"
#include "math/general_instance_region.h"
#include "math/inside_region.h"

using namespace pydistill;
using namespace pydistill::math;
using namespace pydistill::test;

constexpr int kImages = 2, kCells = 90, kBoxes = 5, kClasses = 6;
const Levels kLevels{3, {0, 60, 60, kCells}};

template <class To> void append(Numbers& out, const To* from, size_t n) {
  for (size_t i = 0; i < n; ++i) out.push_back(double(from[i]));
}

template <class T> struct Flags {  // exactly as long as it must be
  std::unique_ptr<T[]> data{new T[kImages * kCells]};
};

// Both assigners and both regions of boxes, with a box without area, one of NaN and an image with none.
template <class Rows> Numbers of_boxes(const Rows& rows, int tile) {
  Numbers anchors = boxes(kCells, 1, 6), gt = boxes(kImages * kBoxes, 2, 7), points(2 * kCells);
  for (int i = 0; i < 2 * kCells; ++i) points[i] = anchors[i / 2 * 4 + i % 2];
  gt[1 * 4 + 2] = gt[1 * 4], gt[2 * 4] = NAN;
  const int64_t counts[] = {kBoxes + 3, 0};
  const PaddedBoxes<double> targets{gt.data(), counts, kBoxes};
  const Tiles tiles{kCells, tile};
  const int64_t n = kImages * tiles.per_image();
  Numbers floor = poison(kImages * kCells), limit = poison(kImages * kBoxes), best = limit, own = floor, middle = floor;
  std::vector<int64_t> index(floor.size(), -7), of_point = index;
  Flags<uint8_t> inside, fine;
  rows(n, DistanceFloor<double, double>{anchors.data(), nullptr, {}, floor.data(), tiles, 0});
  rows(kImages * kBoxes, BestOverlap<double, double, ShareOfBest<double>>{
                             anchors.data(), targets, floor.data(), kCells, {best.data(), 0.5}});
  rows(n, AnyBox<OverlapsMore<double, double>>{
              {anchors.data(), targets, best.data(), floor.data()}, fine.data.get(), tiles});
  rows(kImages * kBoxes, BestOverlap<double, double, MaxIouThreshold<double>>{
                             anchors.data(), targets, floor.data(), kCells, {best.data(), limit.data(), 0.5, 0, true}});
  using Assignment = MaxIouAssignment<double, double>;
  rows(n, Assignment{anchors.data(), targets, floor.data(), best.data(), index.data(), own.data(), tiles, 0.5, 0.4},
       Assignment::bytes(tile));
  rows(n, AnyBox<InsideBox<double, double>>{{points.data(), targets, nullptr}, inside.data.get(), tiles});
  using Points = PointAssignment<double, double>;
  rows(n,
       Points{points.data(),
              targets,
              nullptr,
              of_point.data(),
              middle.data(),
              tiles,
              {kLevels, {3, 5, 9}, {-1, 4, 4}, {6, 5, INFINITY}}},
       Points::bytes(tile));
  Numbers out;
  append(out, inside.data.get(), floor.size()), append(out, fine.data.get(), floor.size());
  append(out, index.data(), index.size()), append(out, of_point.data(), index.size());
  for (const Numbers& more : {own, limit, middle}) out.insert(out.end(), more.begin(), more.end());
  return out;
}

template <class Rows> Numbers of_scores(const Rows& rows, bool batch) {
  const int cells = kImages * kCells;
  Numbers s = uniform(cells * kClasses, 1), t = uniform(cells * kClasses, 2), own = boxes(cells, 3, 5);
  const Numbers other = boxes(cells, 4, 5);
  s[7] = NAN, own[4 * 9] = INFINITY;
  Numbers score = poison(cells), box = poison(4 * cells), out;
  Flags<bool> inside;
  rows(cells, GeneralInstances<double, double>{s.data(), t.data(), own.data(), other.data(), nullptr, score.data(),
                                               box.data(), inside.data.get(), kClasses, false});
  rows((batch ? 1 : kImages) * kLevels.count,
       TopInstances<double>{score.data(), box.data(), inside.data.get(), kLevels, batch ? kImages : 1, 7, 0.3});
  append(out, inside.data.get(), size_t(cells));
  return out;
}

int main() {
  for (int tile : {16, 256}) check_order_independent([&](const auto& rows) { return of_boxes(rows, tile); });
  for (bool batch : {false, true}) check_order_independent([&](const auto& rows) { return of_scores(rows, batch); });
}
