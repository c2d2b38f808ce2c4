// l = -w ((k + 1 - y) log p_k + (y - k) log p_k+1),  k = floor(y),  p = softmax(z)        dl/dz_i = w (p_i - t_i)
// t_i = max(0, 1 - |y - i|): the two bins around y share 1 in proportion to how near they are. z: a row of n logits;
// y: within [0, n - 1], else the nearer end of that. A row of weight 0 or of a y that is not finite is not read.
#pragma once
#include "math/gradient.h"
#include "math/row_sum.h"
#include "math/softmax.h"

namespace pydistill::math {

template <class T, class A> struct DflRows {
  Rows<const T> logits;
  Rows<const A> target, weight;  // of one element each; weight absent: all 1
  int n;

  template <class Group> PD_HD auto probabilities(Group g, typename Group::Row row) const {
    return softmax(g, logits, row, n, A(1));
  }
  template <class Group> PD_HD auto hat(Group g, typename Group::Row row) const {
    using V = typename Group::template Value<A>;
    const V got = g.get(target, row), low = got > A(0) ? got : V{}, most = V{} + A(n - 1);
    return [y = low < most ? low : most](int i) {
      const V d = y - A(i), near = A(1) - (d < A(0) ? -d : d);
      return near > A(0) ? near : V{};
    };
  }
  template <class Group> PD_HD auto weighted(Group g, typename Group::Row row, A scale) const {
    using V = typename Group::template Value<A>;
    return weight.data ? scale * g.get(weight, row) : V{} + scale;
  }
  PD_HD static bool finite(A y) { return y - y == A(0); }
  PD_HD bool skips(int64_t row) const { return (weight.data && *weight.at(row) == A(0)) || !finite(*target.at(row)); }
  int active(int64_t first, int count, int64_t* out) const {
    const int weighted = nonzero_or_all(weight, first, count, out);
    int found = 0;
    for (int i = 0; i < weighted; ++i) {
      out[found] = out[i];
      found += finite(*target.at(out[i]));
    }
    return found;
  }
  void prefetch(int64_t row) const { pydistill::prefetch(logits, n, row); }
};

template <class T, class A> struct DistributionFocal {
  using Scalar = A;
  DflRows<T, A> rows;
  A* loss;       // one per row
  Rows<T> kept;  // its gradient times `slope`; data null where nobody wants it
  A slope;

  template <class Group> PD_HD void operator()(Group g, typename Group::Row row) const {
    if constexpr (std::is_same_v<typename Group::Row, int64_t>) {
      if (rows.skips(row)) {
        if (kept.data) g.store(kept, row, rows.n, [](int) { return A(0); });
        return g.put(loss, row, A(0));
      }
    }
    const auto weight = rows.weighted(g, row, A(1));
    const auto s = rows.probabilities(g, row);
    const auto t = rows.hat(g, row);
    const auto own = g.sum(rows.n, [&](int i) {
      const auto near = t(i);
      return near == A(0) ? near : near * s.logit(i);  // 0 log 0 = 0
    });
    g.put(loss, row, weight * (log(s.total) - own));
    if (!kept.data) return;
    const auto per_total = A(1) / s.total;
    g.store(kept, row, rows.n, [&](int i) { return weight * slope * (s.power(i) * per_total - t(i)); });
  }
  int active(int64_t first, int count, int64_t* out) const { return rows.active(first, count, out); }
  void prefetch(int64_t row) const { rows.prefetch(row); }
  void clear(int64_t first, int64_t count) const {
    std::memset(loss + first, 0, size_t(count) * sizeof(A));
    if (kept.data) zero(kept, rows.n, first, count);
  }
};

template <class T, class A> struct DistributionFocalBackward {
  using Scalar = A;
  DflRows<T, A> rows;
  Rows<const A> dloss;  // one per row, or the same for all
  const A* factor;      // avg_factor, or null
  Gradient<T, A> dlogits;
  A scale;

  template <class Group> PD_HD void operator()(Group g, typename Group::Row row) const {
    if constexpr (std::is_same_v<typename Group::Row, int64_t>) {
      if (rows.skips(row)) return dlogits.skip(g, row, rows.n);
    }
    const auto upstream = rows.weighted(g, row, scale * per_factor(factor)) * g.get(dloss, row);
    const auto s = rows.probabilities(g, row);
    const auto t = rows.hat(g, row);
    const auto per_total = A(1) / s.total;
    dlogits.write(g, row, rows.n, [&](int i) { return upstream * (s.power(i) * per_total - t(i)); });
  }
  int active(int64_t first, int count, int64_t* out) const { return rows.active(first, count, out); }
  void prefetch(int64_t row) const { rows.prefetch(row); }
  void clear(int64_t first, int64_t count) const { dlogits.clear(rows.n, first, count); }
};

}  // namespace pydistill::math
