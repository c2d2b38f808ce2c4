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

template <class A> struct Angled : Box<A> {
  A angle;
};
template <class A> [[gnu::always_inline]] PD_HD A angle_of(const Box<A>& b, A eps) {
  return atan(b.width() / (b.height() + eps));
}
// What measure m looks at: a box, for CIoU with its angle.
template <Measure m, class A> [[gnu::always_inline]] PD_HD auto seen_by(const Box<A>& b, A eps) {
  if constexpr (m == Measure::Ciou)
    return Angled<A>{b, angle_of(b, eps)};
  else
    return b;
}

template <class A> struct Aspect {                        // of a pair, for CIoU
  A alpha, difference, v, iou;                            // difference = angle_b - angle_a
  static constexpr A kScale = A(0.40528473456935108577);  // 4 / pi^2

  [[gnu::always_inline]] PD_HD Aspect(const Angled<A>& a, const Angled<A>& b, A eps) : difference(b.angle - a.angle) {
    const A both = positive_area(intersection(a, b));
    v = kScale * difference * difference;
    iou = both / (a.area() + b.area() - both + eps);
    alpha = v / (1 - iou + v + eps);
  }
  PD_HD A penalty() const { return alpha * v; }
};

template <Measure m, class B, class A> [[gnu::always_inline]] PD_HD A measure(const B& a, const B& b, A eps) {
  if constexpr (m == Measure::Iou) return iou(a, b, eps);
  if constexpr (m == Measure::Iof) return iof(a, b, eps);
  if constexpr (m == Measure::Giou) return giou(a, b, eps);
  if constexpr (m == Measure::Diou) return diou(a, b, eps);
  if constexpr (m == Measure::Ciou) return diou(a, b, eps) - Aspect<A>(a, b, eps).penalty();
  if constexpr (m == Measure::DiouReleased) return diou_released(a, b, eps);
}

// A measure's derivatives with respect to what it is made of; area and angle: of one of the two boxes.
template <class A> struct Slopes {
  A both = 0, area = 0, hull_area = 0, hull_diagonal = 0, distance = 0, angle = 0;
};

// Quotients I / max(S, eps) and I / (S + eps): derivatives with respect to I and S. `share` is no bool: g++ vectorises
// no loop in which one condition selects another.
template <class A> struct Quotient {
  A top, bottom, share = 1;  // share: d max(S, eps) / dS
  PD_HD A dtop() const { return 1 / bottom; }
  PD_HD A dbottom() const { return -(share * top * dtop()) * dtop(); }
};
template <class A> PD_HD Quotient<A> floored_quotient(A top, A bottom, A eps) {
  return {top, at_least(bottom, eps), bottom < eps ? A(0) : A(1)};
}

template <class A> [[gnu::always_inline]] PD_HD void add_union_quotient(Slopes<A>& s, const Quotient<A>& q) {
  s.both += q.dtop() - q.dbottom();
  s.area += q.dbottom();
}

// Of -rho^2 / c^2
template <class A> PD_HD void add_distance_penalty(Slopes<A>& s, const Quotient<A>& q) {
  s.distance = -q.dtop();
  s.hull_diagonal = -q.dbottom();
}

// Of the area and the angle of `own`, the first box of the measure or the second.
// Always part of its loop: with a call in it g++ vectorises nothing. So are its callers and what it calls.
template <Measure m, class B, class A>
[[gnu::always_inline]] PD_HD Slopes<A> slopes(const B& own, const B& other, A eps, bool of_first) {
  const A both = positive_area(intersection(own, other)), either = own.area() + other.area() - both;
  const Box<A> hull = enclosure(own, other);
  const A distance = squared_centre_distance(own, other), diagonal = squared_diagonal(hull);
  Slopes<A> s;
  if constexpr (m == Measure::Iou || m == Measure::Giou) add_union_quotient(s, floored_quotient(both, either, eps));
  if constexpr (m == Measure::Giou) {  // + max(U, eps) / max(E, eps)
    const auto q = floored_quotient(at_least(either, eps), positive_area(hull), eps);
    const A deither = (either < eps ? A(0) : A(1)) * q.dtop();
    s.both -= deither;
    s.area += deither;
    s.hull_area = q.dbottom();
  }
  if constexpr (m == Measure::Iof || m == Measure::DiouReleased) {
    const auto q = floored_quotient(both, of_first ? own.area() : other.area(), eps);
    s.both = q.dtop();
    s.area = of_first ? q.dbottom() : A(0);
  }
  if constexpr (m == Measure::Diou || m == Measure::Ciou) {
    add_union_quotient(s, Quotient<A>{both, either + eps});
    add_distance_penalty(s, Quotient<A>{distance, diagonal + eps});
  }
  if constexpr (m == Measure::DiouReleased) add_distance_penalty(s, floored_quotient(distance, diagonal, eps));
  if constexpr (m == Measure::Ciou) {
    const Aspect<A> aspect(own, other, eps);
    s.angle = 2 * aspect.alpha * Aspect<A>::kScale * aspect.difference;
  }
  return s;
}

// Which share of d max(own, other) belongs to `own`: a tie is halved.
template <class A> [[gnu::always_inline]] PD_HD A share_of_larger(A own, A other) {
  return (own > other ? A(0.5) : A(0)) + (own >= other ? A(0.5) : A(0));
}

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
  const A tall = own.height() + eps, angle = s.angle == 0 ? A(0) : s.angle / (tall * tall + own.width() * own.width());
  const A own_width = s.area * own.height() + angle * tall, own_height = s.area * own.width() - angle * own.width();
  return {
      dx - own_width - dwidth * share_of_larger(own.x1, other.x1) - dhull_width * share_of_larger(other.x1, own.x1),
      dy - own_height - dheight * share_of_larger(own.y1, other.y1) - dhull_height * share_of_larger(other.y1, own.y1),
      dx + own_width + dwidth * share_of_larger(other.x2, own.x2) + dhull_width * share_of_larger(own.x2, other.x2),
      dy + own_height + dheight * share_of_larger(other.y2, own.y2) + dhull_height * share_of_larger(own.y2, other.y2)};
}

template <Measure m, class B, class A>
[[gnu::always_inline]] PD_HD Box<A> gradient(const B& own, const B& other, A eps, bool of_first) {
  return corner_gradient(slopes<m>(own, other, eps, of_first), own, other, eps);
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
    const auto second = seconds(g);
    g.each(Grid{tiles.count(row), columns}, [=, *this](int y) {
      const auto own = seen_by<m>(load_box<A>(a + 4 * (first + y)), eps);
      return [=, eps = eps, o = out + (first + y) * columns](int x) { o[x] = measure<m>(own, second(x), eps); };
    });
  }

 private:
  // x -> box x of the second set as the measure sees it. Its angle is computed once for a row.
  template <class Group> PD_HD auto seconds(Group g) const {
    if constexpr (m == Measure::Ciou) {
      const auto angle = g.keep(columns, [b = b, eps = eps](int x) { return angle_of(load_box<A>(b + 4 * x), eps); });
      return [=, b = b](int x) { return Angled<A>{load_box<A>(b + 4 * x), angle(x)}; };
    } else {
      return [b = b](int x) { return load_box<A>(b + 4 * x); };
    }
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
    const auto mine = seen_by<m>(load_box<A>(own + 4 * row), eps);
    const Box<A> total = g.sum(others, [=, *this](int j) {
      const auto theirs = seen_by<m>(load_box<A>(other + 4 * int64_t(j)), eps);
      return gradient<m>(mine, theirs, eps, first) * grad[row * own_stride + j * other_stride];
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
      out[i] = measure<m>(seen_by<m>(load_box<A>(a + 4 * i), eps), seen_by<m>(load_box<A>(b + 4 * i), eps), eps);
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
      const auto one = seen_by<m>(load_box<A>(a + at), eps), other = seen_by<m>(load_box<A>(b + at), eps);
      store_box(da + at, gradient<m>(one, other, eps, true) * grad[first + i]);
      store_box(db + at, gradient<m>(other, one, eps, false) * grad[first + i]);
    });
  }
};

}  // namespace pydistill::math
