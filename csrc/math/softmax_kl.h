// l = scale w sum_i p_i q_i,  q_i = log p_i - log s_i,  p = softmax(t / T), s = softmax(z / T)
// dl/dz_i = scale w / T (s_i - p_i)        dl/dt_i = scale w / T p_i (q_i - sum_j p_j q_j)
// z: student, t: teacher, one row of n logits each. A row of weight 0 is not read.
#pragma once
#include "math/gradient.h"
#include "math/row_sum.h"
#include "math/softmax.h"

namespace pydistill::math {

// q + e^-q - 1 = q^2 (1 / 2! - q / 3! + q^2 / 4! - ...): its coefficients, as many as |q| < kSmall takes.
template <class A> struct ExcessSeries;
template <> struct ExcessSeries<float> {
  static constexpr int kTerms = 7;
  static constexpr float kSmall = 0.5f;
};
template <> struct ExcessSeries<double> {
  static constexpr int kTerms = 11;
  static constexpr double kSmall = 0.25;
};
template <int k> constexpr double kExcess = -kExcess<k - 1> / (k + 2);
template <> constexpr double kExcess<0> = 0.5;

template <class A, class V, int... k> PD_HD V excess_series(V q, std::integer_sequence<int, k...>) {
  V sum = V{} + A(kExcess<sizeof...(k)>);
  ((sum = sum * q + A(kExcess<int(sizeof...(k)) - 1 - k>)), ...);
  return sum;
}

// p q + s - p >= 0 with s = p e^-q. Summed over a row it is sum p q, but where q is small the terms of that one cancel,
// and these do not. 0 log 0 = 0.
template <class V> PD_HD V divergence_term(V p, V s, V q) {
  using A = typename Parts<V>::Element;
  using Series = ExcessSeries<A>;
  const V small = p * (q * q * excess_series<A>(q, std::make_integer_sequence<int, Series::kTerms - 1>()));
  const V v = (q < Series::kSmall) & (q > -Series::kSmall) ? small : p * q + (s - p);
  return p == A(0) ? s : v;
}

template <class Student, class Teacher, class V, class A> struct DivergenceOf {
  Student student;
  Teacher teacher;
  V per_student, per_teacher, log_totals;

  PD_HD V s(int i) const { return student.power(i) * per_student; }
  PD_HD V p(int i) const { return teacher.power(i) * per_teacher; }
  PD_HD V q(int i) const { return teacher.logit(i) - student.logit(i) - log_totals; }
  template <class Group> PD_HD V sum(Group g, int n) const {
    return g.sum(n, [this](int i) { return divergence_term(p(i), s(i), q(i)); });
  }
};

template <class S, class U, class A> struct KlRows {
  Rows<const S> student;
  Rows<const U> teacher;
  Rows<const A> weight;  // of one element each; absent: all 1
  int n;
  A per_temperature;

  template <class Group> PD_HD auto divergence(Group g, typename Group::Row row) const {
    const auto s = softmax(g, student, row, n, per_temperature);
    const auto t = softmax(g, teacher, row, n, per_temperature);
    using V = decltype(s.total);
    return DivergenceOf<decltype(s), decltype(t), V, A>{s, t, A(1) / s.total, A(1) / t.total, log(t.total / s.total)};
  }
  template <class Group> PD_HD auto weighted(Group g, typename Group::Row row, A scale) const {
    using V = typename Group::template Value<A>;
    return weight.data ? scale * g.get(weight, row) : V{} + scale;
  }
  PD_HD bool skips(int64_t row) const { return weight.data && *weight.at(row) == A(0); }
  int active(int64_t first, int count, int64_t* out) const { return nonzero_or_all(weight, first, count, out); }
  void prefetch(int64_t row) const {
    pydistill::prefetch(student, n, row);
    pydistill::prefetch(teacher, n, row);
  }
};

template <class S, class U, class A> struct SoftmaxKl {
  using Scalar = A;
  KlRows<S, U, A> rows;
  A* loss;       // one per row
  Rows<S> kept;  // d loss / d student, times `slope`; data null where nobody wants it
  A scale, slope;

  template <class Group> PD_HD void operator()(Group g, typename Group::Row row) const {
    if constexpr (std::is_same_v<typename Group::Row, int64_t>) {
      if (rows.skips(row)) return g.put(loss, row, A(0));
    }
    const auto weight = rows.weighted(g, row, scale);
    const auto d = rows.divergence(g, row);
    g.put(loss, row, weight * d.sum(g, rows.n));
    if (kept.data) g.store(kept, row, rows.n, [&](int i) { return slope * (d.s(i) - d.p(i)); });
  }
  int active(int64_t first, int count, int64_t* out) const { return rows.active(first, count, out); }
  void prefetch(int64_t row) const { rows.prefetch(row); }
  void clear(int64_t first, int64_t count) const { std::memset(loss + first, 0, size_t(count) * sizeof(A)); }
};

template <class S, class U, class A> struct SoftmaxKlBackward {
  using Scalar = A;
  KlRows<S, U, A> rows;
  Rows<const A> dloss;  // one per row, or the same for all
  const A* factor;      // avg_factor, or null
  Gradient<S, A> dstudent;
  Rows<U> dteacher;  // data null where nobody wants it
  A scale;           // what SoftmaxKl has, / T

  template <class Group> PD_HD void operator()(Group g, typename Group::Row row) const {
    if constexpr (std::is_same_v<typename Group::Row, int64_t>) {
      if (rows.skips(row)) {
        if (dstudent.wanted()) dstudent.skip(g, row, rows.n);
        if (dteacher.data) g.store(dteacher, row, rows.n, [](int) { return A(0); });
        return;
      }
    }
    const auto upstream = rows.weighted(g, row, scale * per_factor(factor)) * g.get(dloss, row);
    const auto d = rows.divergence(g, row);
    if (dstudent.wanted()) dstudent.write(g, row, rows.n, [&](int i) { return upstream * (d.s(i) - d.p(i)); });
    if (!dteacher.data) return;
    const auto mean = d.sum(g, rows.n);
    g.store(dteacher, row, rows.n, [&](int i) {
      const auto p = d.p(i);
      return p == A(0) ? p : upstream * p * (d.q(i) - mean);
    });
  }
  int active(int64_t first, int count, int64_t* out) const { return rows.active(first, count, out); }
  void prefetch(int64_t row) const { rows.prefetch(row); }
  void clear(int64_t first, int64_t count) const {
    if (dstudent.wanted()) dstudent.clear(rows.n, first, count);
    if (dteacher.data) zero(dteacher, rows.n, first, count);
  }
};

}  // namespace pydistill::math
