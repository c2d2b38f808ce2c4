#include <algorithm>
#include <numeric>

#include "harness.h"
#include "math/keypoint_channel_relation_loss.h"
#include "math/keypoint_feature_loss.h"
#include "math/keypoint_relation_loss.h"

using namespace pydistill;
using namespace pydistill::math;
using namespace pydistill::test;

constexpr int kImages = 2, kChannels = 5, kHeight = 6, kWidth = 7, kBoxes = 3, kPoints = 4, kPerGroup = 2, kBlock = 2;
constexpr int kGroups = 2, kSlots = kGroups * kPerGroup, kCells = kHeight * kWidth;

// Relations among channels, two at a time, and their gradient: what is kept, the loss of each box, and the slopes.
template <class Rows, class Map>
void channels(const Rows& rows, const KeypointRows<double>& at, const KeypointOwners<double>& owners, const Map& map,
              const Numbers& s, const Numbers& t, const Numbers& used, Numbers& out) {
  constexpr int n = kImages * kBoxes, area = kPoints * kPoints;
  Numbers gram = poison(n * 3 * area), pull = poison(n * 4 * area), slope = poison(n * 2 * kChannels), each = poison(n),
          d(s.size(), 0);
  const double dloss = 0.7, factor = 0.1;
  using Loss = KeypointChannelRelationLoss<double, double, double>;
  using Pull = ChannelPull<double, double, double>;
  using Backward = KeypointRelationBackward<double, double, Pull>;
  rows(n,
       Loss{at, map(s.data()), map(t.data()), used.data(), gram.data(), pull.data(), slope.data(), each.data(), kBoxes,
            kSlots, kPoints, kChannels, 2},
       Loss::bytes(kPoints, 2));
  rows(kImages * at.blocks.per_image(),
       Backward{at, Pull{map(s.data()), map(t.data()), pull.data(), slope.data(), kChannels}, owners, &dloss, &factor,
                map(d.data()), kBoxes, kPerGroup, kPoints},
       Backward::bytes(at.points, kPoints, kBlock));
  for (const Numbers& more : {pull, slope, each, d}) out.insert(out.end(), more.begin(), more.end());
}

// Both losses and their gradients in either layout: a box that is not valid, one with a NaN, points off the map, points
// that share cells, and the padding of the last group.
template <class Rows>
Numbers keypoint_losses(const Rows& rows, AbsoluteOrSquare norm, bool interleaved, bool cosine, bool swap) {
  const int64_t numbers = kImages * kChannels * kCells, corners = kPerGroup * kPoints * kCorners;
  const Numbers s = uniform(numbers, 1), t = uniform(numbers, 2), dloss = {0.7};
  Numbers points = uniform(kImages * kBoxes * kPoints * 2, 3);
  for (double& p : points) p = std::round(10 * (p * 5 + 3)) / 10;
  points[kPoints * 2 + 3] = NAN;
  const bool valid[kImages * kBoxes] = {true, true, true, true, false, true};
  std::vector<int> cell(kImages * kSlots * kPoints * kCorners, -1);
  Numbers weight = poison(cell.size()), used = poison(kImages * kBoxes), ds = Numbers(numbers, 0), dr = ds;
  rows(kImages * kSlots, KeypointCells<double>{points.data(),
                                               valid,
                                               cell.data(),
                                               weight.data(),
                                               used.data(),
                                               kBoxes,
                                               kSlots,
                                               kPoints,
                                               {kHeight, kWidth},
                                               swap});
  std::vector<int> sorted = cell;
  std::vector<int64_t> order(cell.size());
  for (size_t first = 0; first < cell.size(); first += corners) {
    const auto begin = order.begin() + first, end = begin + corners;
    std::iota(begin, end, 0);
    std::stable_sort(begin, end, [&](int64_t a, int64_t b) { return cell[first + a] < cell[first + b]; });
    for (int64_t i = 0; i < corners; ++i) sorted[first + i] = cell[first + begin[i]];
  }
  const auto map = [=]<class T>(T* p) {
    return FeatureMap<T>{p, kChannels * kCells, interleaved ? 1 : kCells, interleaved ? kChannels : 1};
  };
  const KeypointRows<double> at{cell.data(), weight.data(),       kGroups,    kPerGroup * kPoints,
                                kCells,      {kChannels, kBlock}, interleaved};
  const KeypointOwners<double> owners{sorted.data(), order.data()};
  const int64_t n = kImages * at.blocks.per_image();
  Numbers partial = poison(n), loss = poison(2), factor = poison(2);
  const KeypointPair<double, double, double> pair{at, map(s.data()), map(t.data())};
  using Backward = KeypointFeatureBackward<double, double, double>;
  rows(n, KeypointFeatureLoss<double, double, double>{pair, norm, partial.data()});
  rows(1, KeypointTotal<double>{partial.data(), used.data(), nullptr, &loss[0], &factor[0], int(n), kImages * kBoxes,
                                0.05, 1e-4});
  rows(n, Backward{pair, norm, owners, dloss.data(), &factor[0], map(ds.data())}, Backward::bytes(at.points, kBlock));

  Numbers gram = poison(kImages * kBoxes * 2 * kPoints * kPoints), pull = poison(kImages * kBoxes * kPoints * kPoints),
          each = poison(kImages * kBoxes);
  const double normalizer = 3;
  using Relation = KeypointRelationLoss<double, double, double>;
  using Pull = PointPull<double, double>;
  using RelationBackward = KeypointRelationBackward<double, double, Pull>;
  rows(kImages * kBoxes,
       Relation{at, map(s.data()), map(t.data()), norm, used.data(), gram.data(), pull.data(), each.data(), kBoxes,
                kSlots, kPoints, kChannels, 3, cosine, 1e-2},
       Relation::bytes(kPoints, 3));
  rows(1, KeypointTotal<double>{each.data(), used.data(), &normalizer, &loss[1], &factor[1], kImages * kBoxes,
                                kImages * kBoxes, 1, 1e-4});
  rows(n,
       RelationBackward{at, Pull{map(s.data()), pull.data()}, owners, dloss.data(), &factor[1], map(dr.data()), kBoxes,
                        kPerGroup, kPoints},
       RelationBackward::bytes(at.points, kPoints, kBlock));
  if (norm.square && cosine) channels(rows, at, owners, map, s, t, used, loss);
  for (const Numbers& more : {weight, used, partial, factor, ds, each, pull, dr})
    loss.insert(loss.end(), more.begin(), more.end());
  return loss;
}

int main() {
  for (bool interleaved : {false, true})
    for (bool cosine : {false, true})
      for (bool square : {false, true})
        check_order_independent(
            [&](const auto& rows) { return keypoint_losses(rows, {square}, interleaved, cosine, cosine && square); });
}
