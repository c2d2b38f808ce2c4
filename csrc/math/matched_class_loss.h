// l = w sum_c log(1 + e^x_c) - x_c p_c,  p = sigmoid(teacher logits) of the query's match: cross entropy with soft targets.
// dl/dx_c = w (sigmoid(x_c) - p_c).  A query without a match is not read, as a row of weight 0.
#pragma once
#include "math/focal_tiles.h"
#include "math/per_image.h"

namespace pydistill::math {

// The loss of focal.h without focus or balance.
struct SoftCrossEntropy {
  struct Term {
    template <class A> PD_HD FocalValue<A> operator()(A x, A t) const {
      const auto b = OfLogit{}(x, t);
      return {b.value, b.slope};
    }
  };
  template <class F> PD_HD void with_term(F f) const { f(Term{}); }
};

template <class A> PD_HD A probability(A x) { return A(1) / (A(1) + exp(-x)); }

// Row = a query; its targets: the sigmoid of the logits of its match.
template <class A> struct MatchedTargets {
  PerImage<A> teacher;   // (B or N, T, C), logits
  const int64_t* match;  // (N * Q); outside [0, T): none
  uint32_t queries;      // Q
  int known;             // T

  PD_HD bool absent(int64_t row) const { return match[row] < 0 || match[row] >= known; }
  PD_HD const A* at(int64_t row, int n) const { return teacher.at(uint32_t(row) / queries) + match[row] * n; }
  template <class Group> PD_HD auto of(Group g, int64_t row, int n) const {
    return g.keep(n, [y = at(row, n)](int c) { return probability(y[c]); });
  }
};

template <class A, class Group>
PD_HD const A* targets_of(const Group& g, const MatchedTargets<A>& targets, int64_t first, int count, int n) {
  A* t = g.template scratch<A>(int64_t(count) * n);
  g.each(Grid{count, n}, [=](int y) {
    return [to = t + int64_t(y) * n, from = targets.at(first + y, n)](int c) { to[c] = probability(from[c]); };
  });
  return t;
}

}  // namespace pydistill::math
