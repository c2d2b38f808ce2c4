#include "harness.h"
#include "math/query_feature_mask.h"
#include "math/query_quality.h"

using namespace pydistill;
using namespace pydistill::math;
using namespace pydistill::test;

constexpr int kStages = 2, kImages = 2, kQueries = 20, kClasses = 6, kTargets = 3, kTaken = 9;
constexpr int kRows = kStages * kImages;

// The quality of queries in either form, with scores that tie, a NaN, a box that is none, and an image without targets.
template <class Rows> Numbers query_quality(const Rows& rows, bool released) {
  Numbers x = uniform(kRows * kQueries * kClasses, 1), boxes = uniform(kRows * kQueries * 4, 2),
          targets = uniform(kImages * kTargets * 4, 3);
  for (double& v : x) v = std::round(4 * v);
  for (Numbers* b : {&boxes, &targets})
    for (double& v : *b) v = std::abs(v);
  x[5] = NAN, boxes[4 * 7] = INFINITY, targets[6] = -1;
  const int64_t counts[] = {kTargets + 2, 0};
  const double sizes[] = {48, 64, 60, 40};
  Numbers rank = poison(kRows * kQueries), corners = poison(kRows * 4 * kTaken), quality = poison(kRows * kTaken);
  std::vector<int> entry(kRows * kTaken, -7);
  std::vector<int64_t> index(kRows * kTaken, -7);
  if (!released) rows(kRows * kQueries, LargestScore<double, double>{x.data(), rank.data(), kClasses});
  rows(kRows, QueryQuality<double, double>{released ? x.data() : rank.data(),
                                           boxes.data(),
                                           {targets.data(), counts, kTargets},
                                           sizes,
                                           entry.data(),
                                           corners.data(),
                                           quality.data(),
                                           index.data(),
                                           kImages,
                                           kQueries,
                                           kTaken,
                                           released ? kClasses : 1,
                                           0.3,
                                           false,
                                           released});
  quality.insert(quality.end(), index.begin(), index.end());
  return quality;
}

// The masks of a map in either layout, with a query that is not used and one that is none.
template <class Rows> Numbers query_feature_mask(const Rows& rows, bool interleaved) {
  constexpr int kChannels = 10, kPixels = 50, kTile = 24;
  const Tiles tiles{kPixels, kTile};
  const Numbers h = uniform(kRows * kQueries * kChannels, 1), f = uniform(kImages * kChannels * kPixels, 2);
  Numbers quality = uniform(kRows * kTaken, 3), share = poison(kRows * kTaken), direction = poison(kRows * kChannels);
  quality[3] = 0;
  std::vector<int64_t> index(kRows * kTaken);
  for (size_t i = 0; i < index.size(); ++i) index[i] = int64_t(i) * 7 % (kQueries + 1);
  rows(kRows, QueryDirection<double, double>{h.data(), quality.data(), index.data(), share.data(), direction.data(),
                                             kQueries, kTaken, kChannels});
  Numbers mask = poison(kRows * kPixels), most = poison(kImages * tiles.per_image() * kStages);
  using Body = Similarity<double, double>;
  rows(kImages * tiles.per_image(),
       Body{{f.data(), kChannels * kPixels, interleaved ? 1 : kPixels, interleaved ? kChannels : 1},
            direction.data(),
            mask.data(),
            most.data(),
            kChannels,
            kStages,
            kImages,
            interleaved,
            tiles,
            0.01},
       Body::bytes(kStages, kTile));
  rows(kRows, DivideByMost<double>{most.data(), mask.data(), kStages, int(tiles.per_image()), kImages, kPixels});
  mask.insert(mask.end(), direction.begin(), direction.end());
  return mask;
}

int main() {
  for (bool option : {false, true}) {
    check_order_independent([&](const auto& rows) { return query_quality(rows, option); });
    check_order_independent([&](const auto& rows) { return query_feature_mask(rows, option); });
  }
}
