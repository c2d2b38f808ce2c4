#include "harness.h"
#include "math/hungarian_match.h"

using namespace pydistill;
using namespace pydistill::math;
using namespace pydistill::test;

constexpr int kImages = 2, kQueries = 19, kGroups = 2, kTargets = 6, kClasses = 7, kAll = kGroups * kQueries;

struct Case {
  NonFinite policy;
  bool keeps, spoiled;
};

template <class Rows, class Class> Numbers match(const Rows& rows, const Case& c, auto class_cost_of) {
  Numbers logits = uniform(kImages * kAll * kClasses, 1), boxes = uniform(kImages * kAll * 4, 2);
  Numbers target_boxes = uniform(kImages * kTargets * 4, 3);
  for (Numbers* b : {&boxes, &target_boxes})
    for (double& v : *b) v = std::round(std::abs(v) * 4) / 4;  // so that there are ties
  std::vector<int64_t> labels(kImages * kTargets, 2), counts = {kTargets, 3};
  labels[3] = 5;
  if (c.spoiled) boxes[7] = NAN, labels[4] = kClasses;
  const Class class_cost = class_cost_of(logits.data());
  using Pairs = MatchPairs<double, double, Class>;
  const Pairs pairs{boxes.data(),
                    {labels.data(), kImages, kTargets},
                    {target_boxes.data(), kImages, kTargets * 4},
                    {counts.data(), kImages, 1},
                    {},
                    class_cost,
                    kTargets,
                    kClasses,
                    {},
                    {},
                    5,
                    2,
                    1e-7};
  const int width = int(Steps::most(kQueries, kAll));
  const int64_t bytes = SearchState<Forbidding>::bytes(kTargets, kQueries) + Pairs::bytes(width) +
                        Workspace::bytes<double>((c.keeps ? kTargets : 1) * width);
  std::vector<int64_t> query(kImages * kGroups * kTargets, -7), target(kImages * kAll, -7), status(4, -7);
  rows(kImages * kGroups,
       HungarianMatch<Pairs>{pairs, kQueries, kGroups, width, c.keeps, target.data(), query.data(), status.data(),
                             c.policy, nullptr, bytes},
       bytes);
  Numbers all(query.begin(), query.end());
  all.insert(all.end(), target.begin(), target.end());
  all.insert(all.end(), status.begin(), status.end());
  return all;
}

int main() {
  using Softmax = SoftmaxClass<double, double>;
  using Sigmoid = FocalClass<double, double, Square>;
  for (const Case& c : {Case{NonFinite::Forbid, true, false}, Case{NonFinite::Forbid, false, true},
                        Case{NonFinite::Raise, false, true}, Case{NonFinite::Clamp, true, true}}) {
    check_order_independent([&](const auto& rows) {
      return match<decltype(rows), Softmax>(rows, c, [](const double* x) { return Softmax{x, kClasses, 1}; });
    });
    check_order_independent([&](const auto& rows) {
      return match<decltype(rows), Sigmoid>(rows, c,
                                            [](const double* x) { return Sigmoid{x, kClasses, 2, {0.25, 1e-8, {}}}; });
    });
  }
}
