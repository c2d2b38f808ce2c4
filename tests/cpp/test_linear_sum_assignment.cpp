#include "harness.h"
#include "math/linear_sum_assignment.h"

using namespace pydistill;
using namespace pydistill::math;
using namespace pydistill::test;

struct Case {
  int rows, columns;
  NonFinite policy;
  double levels;  // costs are multiples of 1 / levels, so that there are ties
};

template <class Rows> Numbers assignment(const Rows& rows, const Case& c) {
  constexpr int kProblems = 3;
  Numbers cost = uniform(kProblems * c.rows * c.columns, 5);
  for (size_t i = 0; i < cost.size(); ++i) cost[i] = i % 11 == 3 ? INFINITY : std::round(cost[i] * c.levels) / c.levels;
  if (c.policy == NonFinite::Clamp) cost[0] = NAN;
  const int64_t counts[] = {c.rows, c.rows - 1, -3};  // the last is clamped to 0
  std::vector<int64_t> column(kProblems * c.rows, -7), row(kProblems * c.columns, -7), status(kProblems, -7);
  const int64_t bytes =
      std::max(SearchState<double>::bytes(std::min(c.rows, c.columns), std::max(c.rows, c.columns)),
               SearchState<Forbidding>::bytes(std::min(c.rows, c.columns), std::max(c.rows, c.columns)));
  rows(kProblems,
       Assignment<double>{cost.data(), c.rows * c.columns, c.columns, 1, 1, c.rows, c.columns, counts, nullptr,
                          kProblems, 1, column.data(), row.data(), status.data(), c.policy, 1.0, 1e308, nullptr, bytes},
       bytes);
  Numbers all(column.begin(), column.end());
  all.insert(all.end(), row.begin(), row.end());
  all.insert(all.end(), status.begin(), status.end());
  return all;
}

int main() {
  for (const Case& c :
       {Case{1, 1, NonFinite::Raise, 4}, Case{6, 9, NonFinite::Forbid, 2}, Case{9, 6, NonFinite::Forbid, 100},
        Case{13, 40, NonFinite::Raise, 3}, Case{20, 20, NonFinite::Clamp, 3}})
    check_order_independent([&](const auto& rows) { return assignment(rows, c); });
}
