#include "harness.h"
#include "math/box_iou_loss.h"
#include "math/distance_to_box.h"
#include "math/matched_box_loss.h"

using namespace pydistill;
using namespace pydistill::math;
using namespace pydistill::test;

constexpr int kBoxes = 37;

template <BoxLoss k> Numbers box_loss(const auto& run, int tile) {
  Numbers a = boxes(kBoxes, 1, 6), b = boxes(kBoxes, 2, 4), weight = uniform(kBoxes, 3), factor = {3};
  Numbers loss = poison(kBoxes), down = poison(4 * kBoxes);
  weight[5] = 0, a[4 * 5] = NAN;  // not used
  for (int i = 0; i < 4; ++i) b[i] = a[i], b[8 + i] = 9 - i;
  const Tiles tiles{kBoxes, tile};
  const BoxRows<double, double> rows{a.data(), b.data(), weight.data(), tiles, 1e-6};
  run(tiles.per_image(), BoxIouLoss<k, double, double>{rows, loss.data()});
  run(tiles.per_image(),
      BoxIouLossBackward<k, double, double>{rows, weight.data(), 1, factor.data(), down.data(), 2.0});
  loss.insert(loss.end(), down.begin(), down.end());
  return loss;
}

Numbers distances(const auto& run, int tile) {
  const int images = 3;
  const Numbers points = uniform(2 * kBoxes, 1), scale = uniform(kBoxes, 2), e = uniform(4 * images * kBoxes, 3);
  Numbers out = poison(e.size()), down = poison(e.size()), back = poison(e.size());
  const Tiles tiles{kBoxes, tile};
  const PointRows<double, double> rows{points.data(), scale.data(), tiles};
  const int64_t n = images * tiles.per_image();
  run(n, DistanceToBox<double, double>{rows, e.data(), out.data()});
  run(n, DistanceToBoxBackward<double, double>{rows, e.data(), down.data()});
  run(n, BoxToDistance<double, double>{rows, out.data(), back.data(), -0.5, 0.5});
  for (const Numbers& more : {down, back}) out.insert(out.end(), more.begin(), more.end());
  return out;
}

// Three layers of two images with 5 targets each; queries without a target, of weight 0, and NaN where neither is read.
Numbers matched_boxes(const auto& run, const BoxFormat& format, double eps, int tile) {
  const int images = 6, queries = 11, targets = 5, n = images * queries;
  Numbers a = uniform(4 * n, 1), b = uniform(8 * targets, 2), weight = uniform(n, 3), sizes = {4, 5, 3, 2};
  Numbers dl1 = uniform(n, 4), dgiou = uniform(3, 5), l1 = poison(n), giou = poison(n), down = poison(4 * n);
  for (Numbers* x : {&a, &b})
    for (size_t i = 0; i < x->size(); ++i) (*x)[i] = (i % 4 < 2 ? 0.4 : 0.8) + 0.3 * (*x)[i];
  std::vector<int64_t> match(n);
  for (int i = 0; i < n; ++i) match[i] = i % 3 == 2 ? -1 : (i * 7) % 6;  // 5 is none, too
  weight[3] = 0, a[4 * 3] = a[4 * 2] = NAN;
  for (int k = 0; k < 4; ++k) a[4 + k] = b[8 + k];  // query 1 is its target
  const MatchedBoxes<double, double> in{a.data(),
                                        {b.data(), 2, 4 * targets},
                                        match.data(),
                                        weight.data(),
                                        {sizes.data(), 2, 2},
                                        targets,
                                        Tiles{queries, tile},
                                        {format.corners, format.l1_corners, false},
                                        format,
                                        eps};
  const int64_t rows = images * in.tiles.per_image();
  run(rows, MatchedBoxLoss<double, double>{in, l1.data(), giou.data()});
  run(rows, MatchedBoxLossBackward<double, double>{
                in, dense<double>(dl1.data()), {dgiou.data(), 0, 2 * queries, 3, {0, 1, 0}}, down.data()});
  for (const Numbers& more : {giou, down}) l1.insert(l1.end(), more.begin(), more.end());
  return l1;
}

int main() {
  for (const BoxFormat& format :
       {BoxFormat{false, false, true}, {true, true, false}, {false, true, false}, {true, false, false}})
    for (int tile : {4, 256})
      check_order_independent([&](const auto& run) { return matched_boxes(run, format, tile == 4 ? 0 : 0.1, tile); });
  for (int tile : {16, 256}) {
    check_order_independent([&](const auto& run) { return box_loss<BoxLoss::CiouMmdet>(run, tile); });
    check_order_independent([&](const auto& run) { return distances(run, tile); });
#ifndef __SANITIZE_THREAD__  // a measure is arithmetic on two boxes: who reads and writes what is the same in all
    check_order_independent([&](const auto& run) { return box_loss<BoxLoss::Giou>(run, tile); });
    check_order_independent([&](const auto& run) { return box_loss<BoxLoss::Diou>(run, tile); });
    check_order_independent([&](const auto& run) { return box_loss<BoxLoss::Ciou>(run, tile); });
    check_order_independent([&](const auto& run) { return box_loss<BoxLoss::CiouReleased>(run, tile); });
#endif
  }
}
