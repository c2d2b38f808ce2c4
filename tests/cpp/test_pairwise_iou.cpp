#include "harness.h"
#include "math/pairwise_iou.h"

using namespace pydistill;
using namespace pydistill::math;
using namespace pydistill::test;

constexpr int kFirst = 37, kSecond = 29;
constexpr double kEps = 1e-6;

struct Sets {  // equal, empty, inverted and far boxes among them
  Numbers a = boxes(kFirst, 1, 6), b = boxes(kSecond, 2, 4);
  Sets() {
    for (int k = 0; k < 4; ++k) b[k] = a[k], b[4 + k] = k % 2 ? -3 : 5, b[8 + k] = 1e4 + k, a[4 + k] = 9 - k;
  }
};

// The overlaps of all pairs and the gradients of both sets, where `grad` comes back.
template <Measure m> Numbers pairwise(const auto& rows, int tile, const Numbers& grad) {
  const Sets sets;
  Numbers out = poison(kFirst * kSecond), da = poison(4 * kFirst), db = poison(4 * kSecond);
  const double *a = sets.a.data(), *b = sets.b.data();
  const Tiles tiles = bands(Grid{kFirst, kSecond}, tile);
  rows(tiles.per_image(), PairwiseIou<m, double, double>{a, b, out.data(), kSecond, tiles, kEps});
  rows(kFirst, PairwiseIouBackward<m, double, double>{a, b, grad.data(), da.data(), kSecond, 1, kSecond, kEps, true});
  rows(kSecond, PairwiseIouBackward<m, double, double>{b, a, grad.data(), db.data(), 1, kSecond, kFirst, kEps, false});
  for (const Numbers& more : {da, db}) out.insert(out.end(), more.begin(), more.end());
  return out;
}

// The same of the i-th box with the i-th, of as many as the smaller set has.
template <Measure m> Numbers aligned(const auto& rows, int tile, const Numbers& grad) {
  const Sets sets;
  Numbers out = poison(kSecond), da = poison(4 * kSecond), db = da;
  const double *a = sets.a.data(), *b = sets.b.data();
  const Tiles tiles{kSecond, tile};
  rows(tiles.per_image(), AlignedIou<m, double, double>{a, b, out.data(), tiles, kEps});
  rows(tiles.per_image(), AlignedIouBackward<m, double, double>{a, b, grad.data(), da.data(), db.data(), tiles, kEps});
  for (const Numbers& more : {da, db}) out.insert(out.end(), more.begin(), more.end());
  return out;
}

// Pair by pair is the diagonal of each with each, forward and backward.
template <Measure m> void check_diagonal() {
  const Numbers grad = uniform(kSecond, 4), pairs = aligned<m>(InOrder{}, 16, grad);
  Numbers diagonal(kFirst * kSecond, 0.0), want;
  for (int i = 0; i < kSecond; ++i) diagonal[i * kSecond + i] = grad[i];
  const Numbers all = pairwise<m>(InOrder{}, 64, diagonal);
  for (int i = 0; i < kSecond; ++i) want.push_back(all[i * kSecond + i]);
  const auto da = all.begin() + kFirst * kSecond, db = da + 4 * kFirst;
  want.insert(want.end(), da, da + 4 * kSecond);
  want.insert(want.end(), db, db + 4 * kSecond);
  CHECK(difference(want, pairs) < kRounding);
}

template <Measure m> void check() {
  const Numbers grad = uniform(kFirst * kSecond, 3);
  for (int tile : {16, 256}) {
    check_order_independent([&](const auto& rows) { return pairwise<m>(rows, tile, grad); });
    check_order_independent([&](const auto& rows) { return aligned<m>(rows, tile, grad); });
  }
  check_diagonal<m>();
}

int main() {
  check<Measure::Ciou>();
#ifndef __SANITIZE_THREAD__  // a measure is arithmetic on two boxes: who reads and writes what is the same in all
  check<Measure::Iou>();
  check<Measure::Iof>();
  check<Measure::Giou>();
  check<Measure::Diou>();
  check<Measure::DiouReleased>();
#endif
}
