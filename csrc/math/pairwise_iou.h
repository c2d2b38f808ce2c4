// Overlap measures of boxes.h between two sets, and their gradients. Complete IoU (Zheng et al. 2020,
// arXiv:1911.08287):
//   CIoU = DIoU - alpha v,  v = 4 / pi^2 (angle_b - angle_a)^2,  angle = atan(w / (h + eps)),
//   alpha = v / (1 - IoU + v + eps), a constant in the gradient.
#pragma once
#include "math/atan.h"
#include "math/boxes.h"
#include "math/tiles.h"

namespace pydistill::math {

enum class Measure { Iou, Iof, Giou, Diou, Ciou, DiouReleased };  // the order of MODES in pydistill/ops/pairwise_iou.py

template <Measure m> struct MeasureTag {
  static constexpr Measure value = m;
};

template <class A> struct Aspect {                        // of a pair, for CIoU
  A alpha, difference, v, iou;                            // difference = angle_b - angle_a
  static constexpr A kScale = A(0.40528473456935108577);  // 4 / pi^2

  PD_HD Aspect(const Box<A>& a, const Box<A>& b, A eps) : difference(angle(b, eps) - angle(a, eps)) {
    const A both = positive_area(intersection(a, b));
    v = kScale * difference * difference;
    iou = both / (a.area() + b.area() - both + eps);
    alpha = v / (1 - iou + v + eps);
  }
  PD_HD A penalty() const { return alpha * v; }
  PD_HD static A angle(const Box<A>& b, A eps) { return atan(b.width() / (b.height() + eps)); }
};

template <Measure m, class A> PD_HD A measure(const Box<A>& a, const Box<A>& b, A eps) {
  if constexpr (m == Measure::Iou) return iou(a, b, eps);
  if constexpr (m == Measure::Iof) return iof(a, b, eps);
  if constexpr (m == Measure::Giou) return giou(a, b, eps);
  if constexpr (m == Measure::Diou) return diou(a, b, eps);
  if constexpr (m == Measure::Ciou) return diou(a, b, eps) - Aspect<A>(a, b, eps).penalty();
  if constexpr (m == Measure::DiouReleased) return diou_released(a, b, eps);
}

// A measure's derivatives with respect to what it is made of; `own` and `other` are the two boxes.
template <class A> struct Slopes {
  A both = 0, own_area = 0, other_area = 0, hull_area = 0, hull_diagonal = 0, distance = 0, own_angle = 0,
    other_angle = 0;
  PD_HD Slopes swapped() const {
    return {both, other_area, own_area, hull_area, hull_diagonal, distance, other_angle, own_angle};
  }
};

// Quotients I / max(S, eps) and I / (S + eps): derivatives with respect to I and S.
template <class A> struct Quotient {
  A top, bottom;
  bool floored = false;
  PD_HD A dtop() const { return 1 / bottom; }
  PD_HD A dbottom() const { return floored ? A(0) : -top / (bottom * bottom); }
};
template <class A> PD_HD Quotient<A> floored_quotient(A top, A bottom, A eps) {
  return {top, at_least(bottom, eps), bottom < eps};
}

template <class A> [[gnu::always_inline]] PD_HD void add_union_quotient(Slopes<A>& s, const Quotient<A>& q) {
  s.both += q.dtop() - q.dbottom();
  s.own_area += q.dbottom();
  s.other_area += q.dbottom();
}

// Of -rho^2 / c^2
template <class A> PD_HD void add_distance_penalty(Slopes<A>& s, const Quotient<A>& q) {
  s.distance = -q.dtop();
  s.hull_diagonal = -q.dbottom();
}

// Always part of its loop: with a call in it g++ vectorises nothing. So are its callers and what it calls.
template <Measure m, class A> [[gnu::always_inline]] PD_HD Slopes<A> slopes(const Box<A>& a, const Box<A>& b, A eps) {
  const A both = positive_area(intersection(a, b)), either = a.area() + b.area() - both;
  const Box<A> hull = enclosure(a, b);
  const A distance = squared_centre_distance(a, b), diagonal = squared_diagonal(hull);
  Slopes<A> s;
  if constexpr (m == Measure::Iou || m == Measure::Giou) add_union_quotient(s, floored_quotient(both, either, eps));
  if constexpr (m == Measure::Giou) {  // + max(U, eps) / max(E, eps)
    const auto q = floored_quotient(at_least(either, eps), positive_area(hull), eps);
    const A deither = either < eps ? A(0) : q.dtop();
    s.both -= deither;
    s.own_area += deither;
    s.other_area += deither;
    s.hull_area = q.dbottom();
  }
  if constexpr (m == Measure::Iof || m == Measure::DiouReleased) {
    const auto q = floored_quotient(both, a.area(), eps);
    s.both = q.dtop();
    s.own_area = q.dbottom();
  }
  if constexpr (m == Measure::Diou || m == Measure::Ciou) {
    add_union_quotient(s, Quotient<A>{both, either + eps});
    add_distance_penalty(s, Quotient<A>{distance, diagonal + eps});
  }
  if constexpr (m == Measure::DiouReleased) add_distance_penalty(s, floored_quotient(distance, diagonal, eps));
  if constexpr (m == Measure::Ciou) {
    const Aspect<A> aspect(a, b, eps);
    s.own_angle = 2 * aspect.alpha * Aspect<A>::kScale * aspect.difference;
    s.other_angle = -s.own_angle;
  }
  return s;
}

// Which share of d max(own, other) belongs to `own`: a tie is halved.
template <class A> PD_HD A share_of_larger(A own, A other) { return own > other ? A(1) : own == other ? A(0.5) : A(0); }

// The gradient with respect to the corners of `own`.
template <class A> PD_HD Box<A> corner_gradient(const Slopes<A>& s, const Box<A>& own, const Box<A>& other, A eps) {
  const Box<A> shared = intersection(own, other), hull = enclosure(own, other);
  const auto open = [](A extent) { return extent >= 0 ? A(1) : A(0); };
  const A width = at_least(shared.width(), A(0)), height = at_least(shared.height(), A(0));
  const A dwidth = s.both * height * open(shared.width()), dheight = s.both * width * open(shared.height());
  const A hull_width = at_least(hull.width(), A(0)), hull_height = at_least(hull.height(), A(0));
  const A dhull_width = (s.hull_area * hull_height + 2 * s.hull_diagonal * hull_width) * open(hull.width());
  const A dhull_height = (s.hull_area * hull_width + 2 * s.hull_diagonal * hull_height) * open(hull.height());
  const A dx = s.distance * ((own.x1 + own.x2) - (other.x1 + other.x2)) * A(0.5);
  const A dy = s.distance * ((own.y1 + own.y2) - (other.y1 + other.y2)) * A(0.5);
  const A tall = own.height() + eps,
          angle = s.own_angle == 0 ? A(0) : s.own_angle / (tall * tall + own.width() * own.width());
  const A own_width = s.own_area * own.height() + angle * tall,
          own_height = s.own_area * own.width() - angle * own.width();
  return {
      dx - own_width - dwidth * share_of_larger(own.x1, other.x1) - dhull_width * share_of_larger(other.x1, own.x1),
      dy - own_height - dheight * share_of_larger(own.y1, other.y1) - dhull_height * share_of_larger(other.y1, own.y1),
      dx + own_width + dwidth * share_of_larger(other.x2, own.x2) + dhull_width * share_of_larger(own.x2, other.x2),
      dy + own_height + dheight * share_of_larger(other.y2, own.y2) + dhull_height * share_of_larger(own.y2, other.y2)};
}

template <Measure m, class A>
[[gnu::always_inline]] PD_HD Box<A> gradient(const Box<A>& a, const Box<A>& b, A eps, bool of_first) {
  const Slopes<A> s = slopes<m>(a, b, eps);
  return of_first ? corner_gradient(s, a, b, eps) : corner_gradient(s.swapped(), b, a, eps);
}

// One row = some boxes of the first set against all of the second.
template <Measure m, class T, class A> struct PairwiseIou {
  const T *a, *b;  // (n, 4), (columns, 4)
  A* out;          // (n, columns)
  int columns;
  Tiles tiles;
  A eps;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t first = tiles.first(row);
    g.each(Grid{tiles.count(row), columns}, [=, *this](int y) {
      const Box<A> own = load_box<A>(a + 4 * (first + y));
      return [=, second = b, eps = eps, o = out + (first + y) * columns](int x) {
        o[x] = measure<m>(own, load_box<A>(second + 4 * x), eps);
      };
    });
  }
};

// One row = one box of either set: the sum over all boxes of the other.
template <Measure m, class T, class A> struct PairwiseIouBackward {
  const T *own, *other;  // (n, 4), (others, 4)
  const A* grad;         // of pair (own i, other j) at i * own_stride + j * other_stride
  T* down;               // (n, 4)
  int64_t own_stride, other_stride;
  int others;
  A eps;
  bool first;  // `own` is the first set

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const Box<A> mine = load_box<A>(own + 4 * row);
    const Box<A> total = g.sum(others, [=, *this](int j) {
      const Box<A> theirs = load_box<A>(other + 4 * int64_t(j));
      const Box<A> d = first ? gradient<m>(mine, theirs, eps, true) : gradient<m>(theirs, mine, eps, false);
      return d * grad[row * own_stride + j * other_stride];
    });
    g.once([=, d = down + 4 * row] { store_box(d, total); });
  }
};

// Pair by pair. One row = a tile of pairs.
template <Measure m, class T, class A> struct AlignedIou {
  const T *a, *b;  // (n, 4)
  A* out;          // (n,)
  Tiles tiles;
  A eps;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t first = tiles.first(row);
    g.each(tiles.count(row), [a = a + 4 * first, b = b + 4 * first, out = out + first, eps = eps](int i) {
      out[i] = measure<m>(load_box<A>(a + 4 * i), load_box<A>(b + 4 * i), eps);
    });
  }
};

template <Measure m, class T, class A> struct AlignedIouBackward {
  const T *a, *b;
  const A* grad;
  T *da, *db;
  Tiles tiles;
  A eps;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t first = tiles.first(row);
    g.each(tiles.count(row), [=, *this](int i) {
      const int64_t at = 4 * (first + i);
      const Box<A> own = load_box<A>(a + at), other = load_box<A>(b + at);
      store_box(da + at, gradient<m>(own, other, eps, true) * grad[first + i]);
      store_box(db + at, gradient<m>(own, other, eps, false) * grad[first + i]);
    });
  }
};

}  // namespace pydistill::math
