#include "harness.h"
#include "math/box_iou_loss.h"
#include "math/distance_to_box.h"

using namespace pydistill;
using namespace pydistill::math;
using namespace pydistill::test;

constexpr int kBoxes = 37;

template <BoxLoss k> Numbers box_loss(const auto& run, int tile) {
  Numbers a = boxes(kBoxes, 1, 6), b = boxes(kBoxes, 2, 4), weight = uniform(kBoxes, 3), factor = {3};
  Numbers loss = poison(kBoxes), down = poison(4 * kBoxes);
  weight[5] = 0, a[4 * 5] = NAN;  // not read
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

int main() {
  for (int tile : {16, 256}) {
    check_order_independent([&](const auto& run) { return box_loss<BoxLoss::Giou>(run, tile); });
    check_order_independent([&](const auto& run) { return box_loss<BoxLoss::Diou>(run, tile); });
    check_order_independent([&](const auto& run) { return box_loss<BoxLoss::Ciou>(run, tile); });
    check_order_independent([&](const auto& run) { return box_loss<BoxLoss::CiouReleased>(run, tile); });
    check_order_independent([&](const auto& run) { return box_loss<BoxLoss::CiouMmdet>(run, tile); });
    check_order_independent([&](const auto& run) { return distances(run, tile); });
  }
}
