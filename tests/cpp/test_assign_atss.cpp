#include "harness.h"
#include "math/assign_atss.h"
#include "math/valuable_localization_region.h"

using namespace pydistill;
using namespace pydistill::math;
using namespace pydistill::test;

constexpr int kImages = 2, kAnchors = 90, kBoxes = 5, kTop = 4, kSlots = 2 * kTop;

// The assignment, with a box without area, one of NaN, an ignored one and an image with none; then the region.
template <class Rows> Numbers assign_atss(const Rows& rows, int tile) {
  Numbers anchors = boxes(kAnchors, 1, 6), gt = boxes(kImages * kBoxes, 2, 7), ignored = boxes(kImages, 3, 9);
  gt[1 * 4 + 2] = gt[1 * 4], gt[2 * 4] = NAN;
  const int64_t counts[] = {kBoxes + 3, 0}, ignored_counts[] = {1, 1};
  const PaddedBoxes<double> targets{gt.data(), counts, kBoxes}, ignore{ignored.data(), ignored_counts, 1};
  const Tiles tiles{kAnchors, tile};
  const Levels levels{2, {0, 70, kAnchors}};
  Numbers floor = poison(kImages * kAnchors), overlap = poison(kImages * kBoxes * kSlots), most = floor, weight = floor;
  Numbers threshold = poison(kImages * kBoxes);
  std::vector<int> candidate(overlap.size(), -7);
  std::vector<int64_t> index(floor.size(), -7);
  const int64_t n = kImages * tiles.per_image();
  rows(n, DistanceFloor<double, double>{anchors.data(), nullptr, ignore, floor.data(), tiles, 0.5});
  rows(kImages * kBoxes, AtssCandidates<double, double>{anchors.data(), targets, floor.data(), threshold.data(),
                                                        candidate.data(), overlap.data(), levels, kTop});
  rows(n, TakeHighest<double>{candidate.data(), overlap.data(), floor.data(), counts, index.data(), most.data(), kBoxes,
                              kSlots, tiles});
  rows(n,
       ValuableRegion<double, double, false>{
           anchors.data(), targets, threshold.data(), nullptr, nullptr, weight.data(), tiles, 0, {0.25, false, false}});
  for (int64_t i : index) most.push_back(double(i));
  for (double t : threshold) most.push_back(t);
  most.insert(most.end(), weight.begin(), weight.end());
  return most;
}

int main() {
  for (int tile : {16, 64, 256}) check_order_independent([&](const auto& rows) { return assign_atss(rows, tile); });
}
