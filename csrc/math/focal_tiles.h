// The rows of a focal loss (math/focal.h) on a CPU, as many at a time as fill its nearest cache: one loop over all their
// elements, which is long at every C and in which a label is a number like the others; then one over the rows.
#pragma once
#include "math/focal.h"

namespace pydistill::math {

// Whether the elements of `count` rows of n lie one behind the other.
template <class T> PD_HD bool lies_flat(const Rows<T>& x, int64_t first, int count, int n) {
  return x.step == 1 && x.stride[2] == n && x.run(first) >= count;
}

// The elements of `count` rows, one behind the other: where they lie, or a copy.
template <class A, class Group, class T>
PD_HD const A* gathered(const Group& g, const Rows<const T>& x, int64_t first, int count, int n) {
  const bool flat = lies_flat(x, first, count, n);
  if constexpr (std::is_same_v<A, T>)
    if (flat) return x.at(first);
  A* copy = g.template scratch<A>(int64_t(count) * n);
  if (flat) {
    g.each(count * n, [copy, p = x.at(first)](int i) { copy[i] = A(p[i]); });
  } else {
    g.each(Grid{count, n}, [=](int y) {
      return [to = copy + int64_t(y) * n, p = x.at(first + y), step = x.step](int i) { to[i] = A(p[i * step]); };
    });
  }
  return copy;
}

template <class A, class Group, class T>
PD_HD const A* targets_of(const Group& g, const DenseTargets<T, A>& targets, int64_t first, int count, int n) {
  return gathered<A>(g, targets.target, first, count, n);
}
template <class A, class Group>
PD_HD const A* targets_of(const Group& g, const LabelTargets<A>& targets, int64_t first, int count, int n) {
  A* t = g.template scratch<A>(int64_t(count) * n);
  g.each(count * n, [=](int i) { t[i] = A(0); });
  g.each(count, [=](int y) {
    const int own = targets.own(first + y, n);
    if (own >= 0) t[int64_t(y) * n + own] = targets.score_of(first + y);
  });
  return t;
}

// Of n elements. Always both: of one alone g++ computes parts under conditions, and then vectorises nothing.
template <class Group, class A, class Term>
PD_LOOP void focal_elements(Group g, int n, const A* x, const A* t, A* value, A* slope, Term term) {
  g.each(n, [=](int i) {
    const auto at = term(x[i], t[i]);
    value[i] = at.value, slope[i] = at.slope;
  });
}

// out[y] = sum of `n` values. A short row has no use for the lanes of a vector register.
template <class Group, class A> PD_HD void sum_rows(Group g, int count, int n, const A* value, A* out) {
  constexpr int kShort = 16;
  if (n >= kShort)
    return g.row_sums(Grid{count, n}, out,
                      [=](int y) { return [row = value + int64_t(y) * n](int c) { return row[c]; }; });
  g.each(count, [=](int y) {
    const A* row = value + int64_t(y) * n;
    A total = 0;
    for (int c = 0; c < n; ++c) total += row[c];
    out[y] = total;
  });
}

template <class Body> struct FocalTiles {  // Body: FocalForward or FocalBackward
  using T = typename Body::T;
  using A = typename Body::A;
  static constexpr bool kForward = requires(const Body& b) { b.value; };
  Body body;
  int64_t total;  // rows
  int size;       // of a tile

  template <class Group> PD_HD void operator()(Group g, int64_t tile) const {
    const int64_t last = (tile + 1) * size < total ? (tile + 1) * size : total;
    for (int64_t first = tile * size; first < last;) {
      const bool skipped = body.rows.skips(first);
      int64_t end = first + 1;
      while (end < last && body.rows.skips(end) == skipped) ++end;
      skipped ? clear(g, first, int(end - first)) : compute(g, first, int(end - first));
      first = end;
    }
  }

 private:
  template <class Group> PD_HD void clear(Group g, int64_t first, int count) const {
    if constexpr (kForward) g.each(count, [to = body.value + first](int y) { to[y] = A(0); });
    if (body.gradient.data) store(g, first, count, [](int) { return A(0); });
  }

  template <class Group> PD_HD void compute(Group g, int64_t first, int count) const {
    const auto& in = body.rows;
    const int n = in.n, all = count * n;
    const A *x = gathered<A>(g, in.logits, first, count, n), *t = targets_of<A>(g, in.targets, first, count, n);
    A *value = g.template scratch<A>(all), *slope = g.template scratch<A>(all);
    in.loss.with_term([&](auto term) { focal_elements(g, all, x, t, value, slope, term); });
    if constexpr (kForward) {
      A* to = body.value + first;
      sum_rows(g, count, n, value, to);
      if (in.weight.data) g.each(count, [=](int y) { to[y] *= in.weight_of(first + y); });
    }
    if (!body.gradient.data) return;
    if (body.uniform()) {
      const A upstream = body.upstream(first);
      return store(g, first, count, [=](int i) { return upstream * slope[i]; });
    }
    g.each(Grid{count, n}, [=, this](int y) {
      return [row = slope + int64_t(y) * n, upstream = body.upstream(first + y)](int c) { row[c] *= upstream; };
    });
    store(g, first, count, [=](int i) { return slope[i]; });
  }

  // Element i of `count` rows, one behind the other: f(i).
  template <class Group, class F> PD_HD void store(Group g, int64_t first, int count, F f) const {
    const Rows<T>& to = body.gradient;
    const int n = body.rows.n;
    if (lies_flat(to, first, count, n)) return g.each(count * n, [=, p = to.at(first)](int i) { p[i] = T(f(i)); });
    g.each(Grid{count, n}, [=](int y) {
      return [=, from = y * n, p = to.at(first + y), step = to.step](int c) { p[c * step] = T(f(from + c)); };
    });
  }
};

}  // namespace pydistill::math
