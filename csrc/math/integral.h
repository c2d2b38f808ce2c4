// d = sum_i p_i y_i,  p = softmax(z),  y: what the bins stand for, 0, 1, ... if nothing else
// dd/dz_i = p_i (y_i - d)
// A row that the mask excludes is not read; its value and its gradient are 0.
#pragma once
#include "math/elementary.h"
#include "math/gradient.h"

namespace pydistill::math {

template <class V> struct Moments {  // of e^(z_i - max z): its sum, and its sum times y_i
  V total, first;
  PD_HD Moments operator+(const Moments& b) const { return {total + b.total, first + b.first}; }
};

template <class T, class A> struct BinRows {
  Rows<const T> logits;
  const A* bins;     // (n,), or null
  const bool* mask;  // one per row, or null
  int n;

  PD_HD A bin(int i) const { return bins ? bins[i] : A(i); }
  template <class Group> PD_HD auto powers(Group g, typename Group::Row row) const {
    const auto z = g.template load<A>(logits, row, n);
    const auto peak = g.max(n, z);
    return [=](int i) { return exp(z(i) - peak); };
  }
  template <class Group, class Power> PD_HD auto moments(Group g, Power power) const {
    return g.sum(n, [=, *this](int i) {
      const auto p = power(i);
      return Moments<std::remove_cv_t<decltype(p)>>{p, p * bin(i)};
    });
  }
  PD_HD bool skips(int64_t row) const { return mask && !mask[row]; }
  int active(int64_t first, int count, int64_t* out) const { return nonzero_or_all(dense(mask), first, count, out); }
  void prefetch(int64_t row) const { pydistill::prefetch(logits, n, row); }
};

template <class T, class A> struct Integral {
  using Scalar = A;
  BinRows<T, A> rows;
  A* out;  // one per row

  template <class Group> PD_HD void operator()(Group g, typename Group::Row row) const {
    if constexpr (std::is_same_v<typename Group::Row, int64_t>) {
      if (rows.skips(row)) return g.put(out, row, A(0));
    }
    const auto m = rows.moments(g, rows.powers(g, row));
    g.put(out, row, m.first / m.total);
  }
  int active(int64_t first, int count, int64_t* to) const { return rows.active(first, count, to); }
  void prefetch(int64_t row) const { rows.prefetch(row); }
  void clear(int64_t first, int64_t count) const { std::memset(out + first, 0, size_t(count) * sizeof(A)); }
};

template <class T, class A> struct IntegralBackward {
  using Scalar = A;
  BinRows<T, A> rows;
  const A* dout;  // one per row
  Gradient<T, A> dlogits;

  template <class Group> PD_HD void operator()(Group g, typename Group::Row row) const {
    if constexpr (std::is_same_v<typename Group::Row, int64_t>) {
      if (rows.skips(row)) return dlogits.skip(g, row, rows.n);
    }
    const auto power = g.keep(rows.n, rows.powers(g, row));
    const auto m = rows.moments(g, power);
    const auto per_total = A(1) / m.total, mean = m.first * per_total;
    const auto scale = per_total * g.get(dense(dout), row);
    dlogits.write(g, row, rows.n, [=, *this](int i) { return scale * power(i) * (rows.bin(i) - mean); });
  }
  int active(int64_t first, int count, int64_t* to) const { return rows.active(first, count, to); }
  void prefetch(int64_t row) const { rows.prefetch(row); }
  void clear(int64_t first, int64_t count) const { dlogits.clear(rows.n, first, count); }
};

}  // namespace pydistill::math
