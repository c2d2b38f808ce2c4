#include "harness.h"
#include "math/gaussian_region.h"
#include "math/response_loss.h"

using namespace pydistill;
using namespace pydistill::math;
using namespace pydistill::test;

constexpr int kImages = 2, kPixels = 21, kTile = 8, kHeads = 3, kChannels[kHeads] = {1, 2, 4}, kClasses = 3,
              kNumbers = 4;

template <class Rows> Numbers response_loss(const Rows& rows, bool logit) {
  using Channel = HeadChannel<double, double>;
  HeadChannels<double, double> table{};
  std::vector<Channel> list(kClasses + kNumbers);
  std::vector<Numbers> s, t, ds;
  table.out = list.data();
  for (int i = 0; i < kHeads; ++i) {
    const int c = kChannels[i];
    s.push_back(uniform(kImages * c * kPixels, 2 * i)), t.push_back(uniform(kImages * c * kPixels, 2 * i + 1));
    ds.push_back(Numbers(kImages * c * kPixels, 0));
    const auto map = [=]<class T>(T* p) {  // the last one with a pixel's channels side by side
      return FeatureMap<T>{p, c * kPixels, i == 2 ? 1 : kPixels, i == 2 ? c : 1};
    };
    table.head[i] = {map((const double*)s[i].data()), map((const double*)t[i].data()), map(ds[i].data())};
    table.first[i + 1] = table.first[i] + c;
  }
  rows(kHeads, table);
  Numbers region = uniform(kImages * kPixels, 7);
  for (int i = 0; i < kImages * kPixels; ++i) region[i] = i < kTile || region[i] < 0 ? 0 : region[i];
  const Numbers dlosses = {0.7, -0.3};
  const Tiles tiles{kPixels, kTile};
  const int64_t n = kImages * tiles.per_image();
  const ResponseTiles<double, double, double> in{
      list.data(), kClasses, kNumbers, region.data(), tiles, {1, 0.3, 0.7, logit}, {0.5, 1e-4, 1 - 1e-4, true}};
  Numbers partial = poison(3 * n), losses = poison(2), factor = poison(1);
  using Forward = ResponseLoss<double, double, double>;
  using Backward = ResponseBackward<double, double, double>;
  rows(n, Forward{in, partial.data(), n}, Forward::bytes(kTile));
  rows(1, ResponseTotal<double>{partial.data(), nullptr, losses.data(), factor.data(), int(n), 1.0 / kNumbers, 1e-4});
  rows(n, Backward{in, dlosses.data(), factor.data(), 1.0 / kNumbers}, Backward::bytes(kTile));
  for (const Numbers& more : {partial, factor, ds[0], ds[1], ds[2]})
    losses.insert(losses.end(), more.begin(), more.end());
  return losses;
}

template <class Rows> Numbers gaussian_region(const Rows& rows, bool released) {
  constexpr int kBoxes = 5, kMaps = 2, kHeight = 9, kWidth = 6;
  Numbers boxes = uniform(kImages * kBoxes * 5, 1), region = poison(kImages * kMaps * kHeight * kWidth);
  for (int b = 0; b < kImages * kBoxes; ++b)
    for (int k = 3; k < 5; ++k) boxes[5 * b + k] = 1 + std::abs(boxes[5 * b + k]);
  boxes[3] = NAN, boxes[5] = 1e9;
  const bool valid[kImages * kBoxes] = {true, true, true, true, true, true, false, true, true, true};
  const int64_t labels[kImages * kBoxes] = {0, 1, 0, 1, 0, 0, 0, 1, 2, -1};
  rows(kImages * kMaps, GaussianRegion<double>{boxes.data(),
                                               valid,
                                               labels,
                                               region.data(),
                                               kBoxes,
                                               5,
                                               kMaps,
                                               {kHeight, kWidth},
                                               -1,
                                               -1,
                                               0.3,
                                               0.25,
                                               0.3,
                                               1,
                                               released});
  return region;
}

int main() {
  for (bool yes : {false, true}) {
    check_order_independent([&](const auto& rows) { return response_loss(rows, yes); });
    check_order_independent([&](const auto& rows) { return gaussian_region(rows, yes); });
  }
}
