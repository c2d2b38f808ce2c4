#include "harness.h"
#include "math/soft_iou_loss.h"

using namespace pydistill;
using namespace pydistill::math;
using namespace pydistill::test;

constexpr int kImages = 2, kPixels = 24;

struct Case {
  int64_t area;
  SoftIouForm form;
};

// The loss and its gradient, stage by stage as csrc/ops/soft_iou_loss.h launches them.
template <class Rows> Numbers soft_iou_loss(const Rows& rows, const Case& c) {
  const Tiles tiles{c.area, kPixels};
  const int64_t cells = kImages * c.form.channels * c.area, count = kImages * tiles.per_image();
  const int sums_size = 3 * c.form.measured;
  Numbers z = uniform(cells, 1), dz = poison(cells), partial = poison(count * sums_size);
  Numbers sums = poison(kImages * sums_size), slopes = poison(kImages * 2 * c.form.measured), loss = poison(1);
  const Numbers dloss = {0.7};
  std::vector<int64_t> labels(kImages * c.area);
  for (size_t i = 0; i < labels.size(); ++i) labels[i] = i % 11 == 5 ? 255 : int64_t(i * i) % (c.form.channels + 2) - 1;
  const LabelledLogits<double> in{z.data(), c.form.channels * c.area, c.area, labels.data(), 255, c.form, tiles};
  const int64_t bytes = tile_softmax_bytes<double>(kPixels);
  rows(count, SoftIouSums<double, double>{in, partial.data()}, bytes);
  rows(kImages, SoftIouImage<double>{partial.data(), sums.data(), int(tiles.per_image()), c.form.measured});
  rows(1, SoftIouMean<double>{sums.data(), loss.data(), slopes.data(), kImages, c.form});
  using Backward = SoftIouBackward<double, double>;
  rows(count, Backward{in, slopes.data(), dloss.data(), dz.data()}, Backward::bytes(kPixels, c.form.channels));
  for (const Numbers& more : {sums, slopes, dz}) loss.insert(loss.end(), more.begin(), more.end());
  return loss;
}

int main() {
  for (const Case& c : {Case{70, {5, 0, 1, 4, false, false, true}}, Case{24, {4, 1, 1, 3, false, false, false}},
                        Case{31, {1, 0, 0, 1, true, false, true}}, Case{50, {3, 0, 1, 1, false, true, true}}})
    check_order_independent([&](const auto& rows) { return soft_iou_loss(rows, c); });
}
