#include "harness.h"
#include "math/masked_feature_loss.h"

using namespace pydistill;
using namespace pydistill::math;
using namespace pydistill::test;

constexpr int kImages = 2, kChannels = 5, kPixels = 70, kTile = 24;

// The loss and its gradient in either layout, with a tile that the mask leaves out.
template <class Norm, class Rows> Numbers masked_feature_loss(const Rows& rows, bool interleaved) {
  const int64_t cells = kImages * kChannels * kPixels;
  const Numbers s = uniform(cells, 1), t = uniform(cells, 2), dloss = {0.7};
  Numbers mask = uniform(kImages * kPixels, 3), ds = poison(cells), loss = poison(1), factor = poison(1);
  for (int i = 0; i < kPixels; ++i) mask[i] = i < kTile || i % 3 == 0 ? 0 : mask[i];
  const Tiles tiles{kPixels, kTile};
  const int64_t n = kImages * tiles.per_image();
  Numbers partial = poison(n), mass = poison(n);
  const auto map = [=]<class T>(T* p) {
    return FeatureMap<T>{p, kChannels * kPixels, interleaved ? 1 : kPixels, interleaved ? kChannels : 1};
  };
  const MaskedPair<double, double, double, Norm> in{map(s.data()), map(t.data()), mask.data(), kChannels,
                                                    interleaved,   true,          tiles,       {}};
  using Forward = MaskedFeatureLoss<double, double, double, Norm>;
  rows(n, Forward{in, partial.data(), mass.data()}, Forward::bytes(kTile));
  rows(1, MaskedFeatureTotal<double>{partial.data(), mass.data(), nullptr, loss.data(), factor.data(), int(n), 0.3});
  rows(n, MaskedFeatureBackward<double, double, double, Norm>{in, dloss.data(), factor.data(), map(ds.data())});
  for (const Numbers& more : {factor, partial, mass, ds}) loss.insert(loss.end(), more.begin(), more.end());
  return loss;
}

int main() {
  for (bool interleaved : {false, true}) {
    check_order_independent([&](const auto& rows) { return masked_feature_loss<Square>(rows, interleaved); });
    check_order_independent([&](const auto& rows) { return masked_feature_loss<Absolute>(rows, interleaved); });
  }
}
