#include "harness.h"
#include "math/match_cost.h"

using namespace pydistill;
using namespace pydistill::math;
using namespace pydistill::test;

constexpr int kImages = 2, kQueries = 21, kTargets = 6, kClasses = 7;

struct Inputs {
  Numbers logits = uniform(kImages * kQueries * kClasses, 1), boxes = uniform(kImages * kQueries * 4, 2);
  Numbers target_boxes = uniform(kImages * kTargets * 4, 3), scores = uniform(kImages * kTargets * kClasses, 4);
  Numbers extra = uniform(kImages * kTargets * kQueries, 5);
  std::vector<int64_t> labels = std::vector<int64_t>(kImages * kTargets, 2), counts = {kTargets, 3};
  Inputs() {
    for (Numbers* b : {&boxes, &target_boxes})
      for (double& v : *b) v = std::abs(v);
    boxes[2] = -1, boxes[7] = NAN, labels[0] = kClasses, labels[1] = -1, labels[2] = 5;
  }
};

template <class Rows, class Class>
void cost(const Rows& rows, const Inputs& x, const Class& class_cost, const double* extra, int tile, Numbers& out) {
  using Pairs = MatchPairs<double, double, Class>;
  const Tiles tiles{kQueries, tile};
  const Pairs pairs{x.boxes.data(),
                    {x.labels.data(), kImages, kTargets},
                    {x.target_boxes.data(), kImages, kTargets * 4},
                    {x.counts.data(), kImages, 1},
                    {},
                    class_cost,
                    kTargets,
                    kClasses,
                    {},
                    {},
                    5,
                    2,
                    1e-7};
  const int64_t bytes = Pairs::bytes(tile);
  rows(kImages * tiles.per_image(), MatchCost<Pairs>{pairs, extra, out.data(), tiles, bytes}, bytes);
}

template <class Rows> Numbers match_cost(const Rows& rows, int tile) {
  const Inputs x;
  const Focal<double, Square> focal{0.25, 1e-8, {}};
  const Tiles tiles{kQueries, tile};
  Numbers all, out = poison(kImages * kTargets * kQueries), slopes = poison(x.logits.size()),
               constant = poison(kImages * kQueries);
  const auto keep = [&] { all.insert(all.end(), out.begin(), out.end()), out = poison(out.size()); };
  cost(rows, x, FocalClass<double, double, Square>{x.logits.data(), kClasses, 2, focal}, nullptr, tile, out), keep();
  cost(rows, x, SoftmaxClass<double, double>{x.logits.data(), kClasses, 1}, x.extra.data(), tile, out), keep();
  rows(kImages * tiles.per_image(),
       SoftClassTable<double, double, Square>{
           x.logits.data(), {}, slopes.data(), constant.data(), kClasses, tiles, {ClassCost::BinaryFocal, focal}});
  rows(kImages * kTargets,
       SoftClassSums<double>{
           slopes.data(), {x.scores.data(), kImages, kTargets * kClasses}, out.data(), kTargets, kQueries, kClasses});
  cost(rows, x, SoftClass<double>{constant.data(), 2}, nullptr, tile, out), keep();
  return all;
}

int main() {
  for (int tile : {4, 16, 64}) check_order_independent([&](const auto& rows) { return match_cost(rows, tile); });
}
