// The class term of the cost of matching a query with a target, p = sigmoid(x):
//   focal         pos(x_label) - neg(x_label);
//                 pos = alpha (1-p)^gamma -log(p + eps), neg = (1-alpha) p^gamma -log(1-p + eps)
//   softmax       -softmax(x)_label
//   soft targets  constant(q) + sum_c y_c slope(x_c): see SoftTerm
#pragma once
#include "math/boxes.h"
#include "math/per_image.h"
#include "math/power.h"
#include "math/tiles.h"
#include "math/workspace.h"

namespace pydistill::math {

enum class ClassCost { Focal, Softmax, SoftFocal, BinaryFocal, SoftBce, None };

template <class A> PD_HD A sigmoid(A x) { return A(1) / (A(1) + exp(-x)); }
template <class A> PD_HD A softplus(A x) { return at_least(x, A(0)) + log(A(1) + exp(-std::abs(x))); }

template <class A, class P> struct Focal {
  A alpha, eps;
  P power;
  PD_HD A positive(A p) const { return alpha * power(A(1) - p) * -log(p + eps); }
  PD_HD A negative(A p) const { return (A(1) - alpha) * power(p) * -log(A(1) - p + eps); }
};

// The class term of a tile of queries, f(label, out)(i), scaled by the weight.
struct NoClass {
  static constexpr bool kLabels = false;
  template <class Group> PD_HD auto tile(const Group&, Workspace&, int64_t, int) const {
    return [](int64_t, const auto* out) { return [=](int) { return decltype(*out + 0)(0); }; };
  }
  static int64_t bytes(int) { return 0; }
};

template <class T, class A, class P> struct FocalClass {
  static constexpr bool kLabels = true;
  const T* logits;  // (N * Q, C)
  int classes;
  A weight;
  Focal<A, P> focal;
  template <class Group> PD_HD auto tile(const Group&, Workspace&, int64_t first, int) const {
    return [*this, x = logits + first * classes](int64_t label, const A*) {
      return [*this, x = x + label](int i) {
        const A p = sigmoid(A(x[i * classes]));
        return weight * (focal.positive(p) - focal.negative(p));
      };
    };
  }
  static int64_t bytes(int) { return 0; }
};

template <class T, class A> struct SoftmaxClass {
  static constexpr bool kLabels = true;
  const T* logits;  // (N * Q, C)
  int classes;
  A weight;
  template <class Group> PD_HD auto tile(const Group& g, Workspace& memory, int64_t first, int count) const {
    const T* x = logits + first * classes;
    A *peak = memory.take<A>(count), *factor = memory.take<A>(count);
    const Grid all{count, classes};
    g.row_fold(
        all, peak, [=, n = classes](int i) { return [r = x + int64_t(i) * n](int c) { return A(r[c]); }; }, Max{});
    g.row_sums(all, factor, [=, n = classes](int i) {
      return [r = x + int64_t(i) * n, m = peak[i]](int c) { return exp(A(r[c]) - m); };
    });
    g.each(count, [=, w = weight](int i) { factor[i] = -w / factor[i]; });
    return [=, n = classes](int64_t label, const A*) {
      return [=, x = x + label](int i) { return factor[i] * exp(A(x[i * n]) - peak[i]); };
    };
  }
  static int64_t bytes(int count) { return 2 * Workspace::bytes<A>(count); }
};

// What SoftClassSums left in the cost.
template <class A> struct SoftClass {
  static constexpr bool kLabels = false;
  const A* constant;  // (N * Q) or null
  A weight;
  template <class Group> PD_HD auto tile(const Group&, Workspace&, int64_t first, int) const {
    return [c = constant ? constant + first : nullptr, w = weight](int64_t, const A* out) {
      return [=](int i) { return w * (out[i] + (c ? c[i] : A(0))); };
    };
  }
  static int64_t bytes(int) { return 0; }
};

// slope(x_c) and what a class adds to constant(q):
//   SoftFocal  pos - neg, 0      BinaryFocal  pos - neg, neg      SoftBce  -x, log(1 + e^x) = softplus(x)
template <class A, class P> struct SoftTerm {
  ClassCost kind;
  Focal<A, P> focal;
  PD_HD A slope(A x) const {
    if (kind == ClassCost::SoftBce) return -x;
    const A p = sigmoid(x);
    return focal.positive(p) - focal.negative(p);
  }
  PD_HD A constant(A x) const {
    if (kind == ClassCost::SoftBce) return softplus(x);
    return kind == ClassCost::BinaryFocal ? focal.negative(sigmoid(x)) : A(0);
  }
};

// One row: a tile of queries. The slopes with the classes outermost, so that sums over classes run along queries.
template <class T, class A, class P> struct SoftClassTable {
  const T* logits;       // (N, Q, C)
  PerImage<bool> mask;   // (B, C), or null: all classes
  A *slopes, *constant;  // (N, C, Q), (N, Q)
  int classes;
  Tiles tiles;
  SoftTerm<A, P> term;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t n = tiles.image(row), first = tiles.first(row), queries = tiles.total;
    const int count = tiles.count(row);
    const T* x = logits + (n * queries + first) * classes;
    const bool* kept = mask.at(n);
    g.each(Grid{classes, count}, [=, *this, s = slopes + n * classes * queries + first](int c) {
      return [=, *this, use = !kept || kept[c], s = s + c * queries](int i) {
        s[i] = use ? term.slope(A(x[int64_t(i) * classes + c])) : A(0);
      };
    });
    g.column_sums(
        Grid{1, count}, constant + n * queries + first, [=, *this](int) { return Span{0, classes}; },
        [=, *this](int, int c) {
          return [=, *this, use = !kept || kept[c]](int i) {
            return use ? term.constant(A(x[int64_t(i) * classes + c])) : A(0);
          };
        });
  }
};

// One row: a target, its sum over the classes for all queries.
template <class A> struct SoftClassSums {
  const A* slopes;     // (N, C, Q)
  PerImage<A> scores;  // (B or N, T, C)
  A* cost;             // (N, T, Q)
  int targets, queries, classes;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t n = row / targets;
    g.column_sums(
        Grid{1, queries}, cost + row * queries, [c = classes](int) { return Span{0, c}; },
        [=, s = slopes + n * classes * queries, y = scores.at(n) + row % targets * classes, q = queries](int, int c) {
          return [y = y[c], s = s + int64_t(c) * q](int i) { return y * s[i]; };
        });
  }
};

}  // namespace pydistill::math
