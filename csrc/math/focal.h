// The focal losses of C independent classes: l = w sum_c m(p_c) B(p_c, t_c), B the cross entropy, m how far p is from t.
// Logits x:         p = sigmoid(x),  B = |x| (x >= 0 ? 1 - t : t) + log(1 + e^-|x|),  dB/dx = p - t,  dp/dx = p (1 - p)
// Probabilities x:  p = x,  B = -t log p - (1 - t) log(1 - p),  dB/dx = (p - t) / (p (1 - p)),  dp/dx = 1
// dl/dx_c = w (m dB/dx + B dm/dp dp/dx).  One row: one location. A row of weight 0 is not read.
#pragma once
#include "core/group.h"
#include "math/elementary.h"
#include "math/row_sum.h"

namespace pydistill::math {

// |d|^b and its derivative, 0 at d = 0. Written so that a compiler finds no branch in the loop over the classes.
struct FocusNone {
  template <class A> PD_HD A operator()(A) const { return A(1); }
  template <class A> PD_HD A slope(A, A) const { return A(0); }
};
struct FocusOne {
  template <class A> PD_HD A operator()(A d) const { return std::abs(d); }
  template <class A> PD_HD A slope(A d, A) const { return (d > A(0) ? A(1) : A(0)) - (d < A(0) ? A(1) : A(0)); }
};
struct FocusSquare {
  template <class A> PD_HD A operator()(A d) const { return d * d; }
  template <class A> PD_HD A slope(A d, A) const { return 2 * d; }
};
template <class A> struct FocusPower {
  A b;  // > 0
  PD_HD A operator()(A d) const { return exp(b * log(std::abs(d))); }
  PD_HD A slope(A d, A power) const { return b * power / (d == A(0) ? A(1) : d); }
};
template <class A> struct FocusAny {
  A b;  // not 2
  PD_HD A operator()(A d) const { return b == A(1) ? FocusOne{}(d) : b == A(0) ? FocusNone{}(d) : FocusPower<A>{b}(d); }
  PD_HD A slope(A d, A power) const {
    return b == A(1) ? FocusOne{}.slope(d, power) : b == A(0) ? A(0) : FocusPower<A>{b}.slope(d, power);
  }
};
// A CPU vectorises the loop of each exponent. For a GPU each loop is code to compile, for every type, group and target:
// one of the usual exponent, and one of the others, whose choice is the same for all threads.
template <class A, class F> PD_HD void with_focus(A b, F f) {
#ifdef __CUDACC__
  b == A(2) ? f(FocusSquare{}) : f(FocusAny<A>{b});
#else
  b == A(2) ? f(FocusSquare{}) : b == A(1) ? f(FocusOne{}) : b == A(0) ? f(FocusNone{}) : f(FocusPower<A>{b});
#endif
}

template <class A> struct CrossEntropy {
  A p, q, value, slope, dp;  // q = 1 - p; slope and dp: dB/dx, dp/dx
};
struct OfLogit {
  template <class A> PD_HD CrossEntropy<A> operator()(A x, A t) const {
    const bool likely = x >= A(0);
    const A size = std::abs(x), power = exp(-size), major = A(1) / (A(1) + power), minor = power * major;
    const A p = likely ? major : minor, q = likely ? minor : major, wrong = likely ? A(1) - t : t;
    constexpr A kMost = std::numeric_limits<A>::max();  // in place of infinity: 0 times it is 0
    return {p, q, (size < kMost ? size : kMost) * wrong + log1p_of_share(power), p * (A(1) - t) - q * t, p * q};
  }
};
struct OfProbability {  // with the bounds of PyTorch's binary_cross_entropy
  template <class A> PD_HD static A bounded(A v) { return v < A(-100) ? A(-100) : v; }
  template <class A> PD_HD CrossEntropy<A> operator()(A p, A t) const {
    const A q = A(1) - p, spread = p * q, d = p * (A(1) - t) - q * t;
    const A value = -(t * bounded(log(p)) + (A(1) - t) * bounded(log1p(-p)));
    return {p, q, value, d / (spread < A(1e-12) ? A(1e-12) : spread), A(1)};
  }
};

template <class A> struct FocalValue {
  A value, slope;
};
template <class Link, class Focus> struct QualityTerm {  // m = |p - t|^b
  Focus focus;
  template <class A> PD_HD FocalValue<A> operator()(A x, A t) const {
    const auto b = Link{}(x, t);
    const A d = b.p * (A(1) - t) - b.q * t, m = focus(d);
    return {m * b.value, m * b.slope + b.value * (focus.slope(d, m) * b.dp)};
  }
};
template <class Focus, class A> struct SigmoidTerm {  // m = a u^b,  u = 1 - p where t = 1, else p
  Focus focus;
  A positive, negative;  // a where t = 1 and where t = 0
  PD_HD FocalValue<A> operator()(A x, A t) const {
    const auto b = OfLogit{}(x, t);
    const A u = b.p * (A(1) - t) + b.q * t, m = focus(u), a = positive * t + negative * (A(1) - t);
    return {a * m * b.value, a * (m * b.slope + b.value * (focus.slope(u, m) * (A(1) - 2 * t) * b.dp))};
  }
};

// f(term) for the terms of either loss: the branch is taken once a row, and each side is a loop of its own.
template <class A> struct Quality {
  A beta;
  bool activated;
  template <class F> PD_HD void with_term(F f) const {
    with_focus(beta, [&](auto focus) {
      using Focus = decltype(focus);
      activated ? f(QualityTerm<OfProbability, Focus>{focus}) : f(QualityTerm<OfLogit, Focus>{focus});
    });
  }
};
template <class A> struct SigmoidFocal {
  A gamma, positive, negative;
  template <class F> PD_HD void with_term(F f) const {
    with_focus(gamma, [&](auto focus) { f(SigmoidTerm<decltype(focus), A>{focus, positive, negative}); });
  }
};

// t of a row: a score at its label, else 0. A label that is no class: all 0.
template <class A> struct LabelTargets {
  Rows<const int64_t> label;
  Rows<const A> score;  // absent: 1

  PD_HD int own(int64_t row, int n) const {  // -1: no class
    const int64_t c = *label.at(row);
    return c >= 0 && c < n ? int(c) : -1;
  }
  PD_HD A score_of(int64_t row) const { return score.data ? *score.at(row) : A(1); }
  template <class Group> PD_HD auto of(Group, int64_t row, int n) const {
    const int own_class = own(row, n);
    return [own_class, y = own_class < 0 ? A(0) : score_of(row)](int c) { return c == own_class ? y : A(0); };
  }
};
template <class T, class A> struct DenseTargets {
  Rows<const T> target;
  template <class Group> PD_HD auto of(Group g, int64_t row, int n) const { return g.template load<A>(target, row, n); }
};

template <class T, class A, class Targets, class Loss> struct FocalRows {
  using Storage = T;
  using Scalar = A;
  Rows<const T> logits;
  Targets targets;
  Rows<const A> weight;  // of one element each; absent: all 1
  int n;
  Loss loss;

  PD_HD A weight_of(int64_t row) const {
    if constexpr (requires { targets.absent(row); })
      if (targets.absent(row)) return A(0);
    return weight.data ? *weight.at(row) : A(1);
  }
  PD_HD bool skips(int64_t row) const { return weight_of(row) == A(0); }

  // Gradient of a row: upstream dl/dx.
  template <class Group> PD_HD void differentiate(Group g, int64_t row, A upstream, const Rows<T>& to) const {
    loss.with_term([&](auto term) {
      const auto x = g.template load<A>(logits, row, n);
      const auto t = targets.of(g, row, n);
      g.store(to, row, n, [=](int c) { return upstream * term(x(c), t(c)).slope; });
    });
  }
};

template <class In> struct FocalForward {
  using T = typename In::Storage;
  using A = typename In::Scalar;
  In rows;
  A* value;          // one per row
  Rows<T> gradient;  // times `slope`; data null where nobody wants it
  A slope;

  PD_HD bool uniform() const { return !rows.weight.data; }  // upstream is the same in every row
  PD_HD A upstream(int64_t row) const { return rows.weight_of(row) * slope; }
  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    if (rows.skips(row)) {
      if (gradient.data) g.store(gradient, row, rows.n, [](int) { return A(0); });
      return g.put(value, row, A(0));
    }
    rows.loss.with_term([&](auto term) {
      const auto x = g.template load<A>(rows.logits, row, rows.n);
      const auto t = rows.targets.of(g, row, rows.n);
      g.put(value, row, rows.weight_of(row) * g.sum(rows.n, [=](int c) { return term(x(c), t(c)).value; }));
    });
    if (gradient.data) rows.differentiate(g, row, upstream(row), gradient);
  }
};

template <class In> struct FocalBackward {
  using T = typename In::Storage;
  using A = typename In::Scalar;
  In rows;
  Rows<const A> dloss;  // one per row, or the same for all
  const A* factor;      // avg_factor, or null
  Rows<T> gradient;
  A scale;

  PD_HD bool uniform() const { return !rows.weight.data && !dloss.stride[0] && !dloss.stride[1] && !dloss.stride[2]; }
  PD_HD A upstream(int64_t row) const { return rows.weight_of(row) * scale * per_factor(factor) * *dloss.at(row); }
  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    if (rows.skips(row)) return g.store(gradient, row, rows.n, [](int) { return A(0); });
    rows.differentiate(g, row, upstream(row), gradient);
  }
};

}  // namespace pydistill::math
