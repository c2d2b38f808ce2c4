// cost(q, t) = w_class class(q, t) + w_l1 |l1(q) - l1(t)|_1 - w_giou GIoU(box(q), box(t)) + extra(q, t), of the queries
// and the targets of one image: DETR, Carion et al. 2020, arXiv:2005.12872, section 3.1. extra: what matrix products
// gave, the terms of masks. The class term, p = sigmoid(x):
//   focal         pos(x_label) - neg(x_label);
//                 pos = alpha (1-p)^gamma -log(p + eps), neg = (1-alpha) p^gamma -log(1-p + eps)
//   softmax       -softmax(x)_label
//   soft targets  constant(q) + sum_c y_c slope(x_c): see SoftTerm
// What matches nothing costs infinity: a box that is inverted or not finite, a label outside [0, C), a target beyond
// the image's count.   T: storage type.  A: accumulation type.
#pragma once
#include "math/boxes.h"
#include "math/per_image.h"
#include "math/power.h"
#include "math/tiles.h"

namespace pydistill::math {

enum class ClassCost { Focal, Softmax, SoftFocal, BinaryFocal, SoftBce, None };

// A box that matches nothing costs infinity on top of what any other would, so that loops over boxes need no branch.
template <class A> struct MatchBox {
  A l1[4];
  Box<A> box;
  A penalty;
  PD_HD static MatchBox none(A penalty = 0) { return {{0, 0, 0, 0}, {0, 0, 1, 1}, penalty}; }
  PD_HD static MatchBox checked(const Box<A>& l1, const Box<A>& box) {
    if (!box.proper()) return none(A(INFINITY));
    return {{l1.x1, l1.y1, l1.x2, l1.y2}, box, A(0)};
  }
};

// How four numbers, or null, become what L1 and GIoU compare. Sizes turn unit coordinates into pixels, for GIoU alone.
struct BoxReader {
  bool corners, l1_corners, clamp;

  template <class A, class T> PD_HD MatchBox<A> operator()(const T* p, const A* size) const {
    if (!p) return MatchBox<A>::none();
    const A a = A(p[0]), b = A(p[1]), c = A(p[2]), d = A(p[3]), w = size ? size[1] : A(1), h = size ? size[0] : A(1);
    Box<A> unit{a, b, c, d};
    if (!corners) unit = {a - c * A(0.5), b - d * A(0.5), a + c * A(0.5), b + d * A(0.5)};
    Box<A> box{unit.x1 * w, unit.y1 * h, unit.x2 * w, unit.y2 * h};
    if (clamp) {
      box = {within(box.x1, w), within(box.y1, h), within(box.x2, w), within(box.y2, h)};
      unit = {box.x1 / w, box.y1 / h, box.x2 / w, box.y2 / h};
    }
    if (l1_corners) return MatchBox<A>::checked(unit, box);
    if (!corners && !clamp) return MatchBox<A>::checked({a, b, c, d}, box);
    return MatchBox<A>::checked({unit.x(), unit.y(), unit.width(), unit.height()}, box);
  }

 private:
  template <class A> PD_HD static A within(A x, A most) { return x < A(0) ? A(0) : x > most ? most : x; }
};

template <class A> PD_HD A sigmoid(A x) { return A(1) / (A(1) + exp(-x)); }
template <class A> PD_HD A softplus(A x) { return at_least(x, A(0)) + log(A(1) + exp(-std::abs(x))); }

template <class A, class P> struct Focal {
  A alpha, eps;
  P power;
  PD_HD A positive(A p) const { return alpha * power(A(1) - p) * -log(p + eps); }
  PD_HD A negative(A p) const { return (A(1) - alpha) * power(p) * -log(A(1) - p + eps); }
};

// The class term of a tile of queries, f(t, label, out)(i), scaled by the weight.
struct NoClass {
  static constexpr bool kLabels = false;
  template <class Group> PD_HD auto tile(const Group&, int64_t, int) const {
    return [](int, int64_t, const auto* out) { return [=](int) { return decltype(*out + 0)(0); }; };
  }
  static int64_t bytes(int) { return 0; }
};

template <class T, class A, class P> struct FocalClass {
  static constexpr bool kLabels = true;
  const T* logits;  // (N * Q, C)
  int classes;
  A weight;
  Focal<A, P> focal;
  template <class Group> PD_HD auto tile(const Group&, int64_t first, int) const {
    return [*this, x = logits + first * classes](int, int64_t label, const A*) {
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
  template <class Group> PD_HD auto tile(const Group& g, int64_t first, int count) const {
    const T* x = logits + first * classes;
    A *peak = g.template scratch<A>(count), *factor = g.template scratch<A>(count);
    const Grid all{count, classes};
    g.row_fold(
        all, peak, [=, n = classes](int i) { return [r = x + int64_t(i) * n](int c) { return A(r[c]); }; }, Max{});
    g.row_sums(all, factor, [=, n = classes](int i) {
      return [r = x + int64_t(i) * n, m = peak[i]](int c) { return exp(A(r[c]) - m); };
    });
    g.each(count, [=, w = weight](int i) { factor[i] = -w / factor[i]; });
    return [=, n = classes](int, int64_t label, const A*) {
      return [=, x = x + label](int i) { return factor[i] * exp(A(x[i * n]) - peak[i]); };
    };
  }
  static int64_t bytes(int count) { return 2 * scratch_bytes<A>(count); }
};

// What SoftClassSums left in the cost.
template <class A> struct SoftClass {
  static constexpr bool kLabels = false;
  const A* constant;  // (N * Q) or null
  A weight;
  template <class Group> PD_HD auto tile(const Group&, int64_t first, int) const {
    return [c = constant ? constant + first : nullptr, w = weight](int, int64_t, const A* out) {
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

// One row: a tile of queries against all targets of its image.
template <class T, class A, class Class> struct MatchCost {
  const T* boxes;            // (N, Q, 4), or null: no box terms
  PerImage<int64_t> labels;  // (B or N, T), or null
  PerImage<A> target_boxes;  // (B or N, T, 4), or null
  PerImage<int64_t> counts;  // (B or N), or null
  PerImage<A> sizes;         // (B, 2): h, w in pixels, or null
  const A* extra;            // (N, T, Q), or null
  A* cost;                   // (N, T, Q)
  Class class_cost;
  int targets, classes;
  Tiles tiles;
  BoxReader reader;  // of the queries
  BoxReader target_reader;
  A l1_weight, giou_weight, giou_eps;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t n = tiles.image(row), first = tiles.first(row), queries = tiles.total, start = n * queries + first;
    const int count = tiles.count(row), known = known_targets(n);
    const Queries query = read_queries(g, boxes ? boxes + start * 4 : nullptr, sizes.at(n), count);
    const auto class_term = class_cost.tile(g, start, count);
    const int64_t origin = n * targets * queries + first;
    A* out = cost + origin;
    g.each(Grid{known, count}, [=, *this](int t) {
      const A* corners = target_boxes.at(n);
      const MatchBox<A> target = target_reader(corners ? corners + int64_t(t) * 4 : nullptr, sizes.at(n));
      const int64_t label = Class::kLabels ? labels.at(n)[t] : 0;
      const bool known_label = !Class::kLabels || (label >= 0 && label < classes);
      const A penalty = known_label ? target.penalty : A(INFINITY);
      A* to = out + t * queries;
      return [=, *this, term = class_term(t, known_label ? label : 0, static_cast<const A*>(to))](int i) {
        const A boxes =
            l1_weight * query.distance(i, target.l1) - giou_weight * giou(query.box(i), target.box, giou_eps);
        to[i] = (term(i) + boxes) + (query.penalty[i] + penalty);
      };
    });
    if (extra) add_extra(g, Grid{known, count}, extra + origin, out);
    g.each(Grid{targets - known, count},
           [=](int t) { return [to = out + (known + t) * queries](int i) { to[i] = A(INFINITY); }; });
  }

  static int64_t bytes(int count) { return 9 * scratch_bytes<A>(count) + Class::bytes(count); }

 private:
  struct Queries {  // one array per number, so that neighbours are queries
    A *l1[4], *x1, *y1, *x2, *y2, *penalty;
    PD_HD A distance(int i, const A* other) const {
      return std::abs(l1[0][i] - other[0]) + std::abs(l1[1][i] - other[1]) + std::abs(l1[2][i] - other[2]) +
             std::abs(l1[3][i] - other[3]);
    }
    PD_HD Box<A> box(int i) const { return {x1[i], y1[i], x2[i], y2[i]}; }
  };

  template <class Group> PD_HD Queries read_queries(const Group& g, const T* from, const A* size, int count) const {
    const auto take = [&] { return g.template scratch<A>(count); };
    const Queries q{{take(), take(), take(), take()}, take(), take(), take(), take(), take()};
    g.each(count, [=, read = reader](int i) {
      const MatchBox<A> b = read(from ? from + int64_t(i) * 4 : nullptr, size);
      for (int k = 0; k < 4; ++k) q.l1[k][i] = b.l1[k];
      q.x1[i] = b.box.x1, q.y1[i] = b.box.y1, q.x2[i] = b.box.x2, q.y2[i] = b.box.y2;
      q.penalty[i] = b.penalty;
    });
    return q;
  }

  // Apart from the loop above, which a branch would slow down. What is infinite stays so, whatever extra is.
  template <class Group> PD_HD void add_extra(const Group& g, Grid pairs, const A* from, A* out) const {
    g.each(pairs, [=, stride = int64_t(tiles.total)](int t) {
      return
          [to = out + t * stride, more = from + t * stride](int i) { to[i] += to[i] == A(INFINITY) ? A(0) : more[i]; };
    });
  }

  PD_HD int known_targets(int64_t n) const {
    const int64_t* known = counts.at(n);
    if (Class::kLabels && classes == 0) return 0;  // no label is known
    return !known || *known > targets ? targets : *known < 0 ? 0 : int(*known);
  }
};

}  // namespace pydistill::math
