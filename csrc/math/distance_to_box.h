// A box as distances from a point to its sides left, top, right, bottom, in units of s of the point's axes:
//   box = (x - s l, y - s t, x + s r, y + s b)        distances = min(max(.. / s, low), high), infinities for no bound
#pragma once
#include "math/boxes.h"
#include "math/tiles.h"

namespace pydistill::math {

// One row = a tile of the points of an image.
template <class T, class A> struct PointRows {
  const T *points, *scale;  // (A, 2), (A,) or null
  Tiles tiles;

  // f(x, y, s, i) for the boxes i of a tile, of their points
  template <class Group, class F> PD_HD void each(Group g, int64_t tile, F f) const {
    if (scale) return each(g, tile, [s = scale](int64_t at) { return A(s[at]); }, f);
    each(g, tile, [](int64_t) { return A(1); }, f);
  }

 private:
  template <class Group, class Unit, class F> PD_HD void each(Group g, int64_t tile, Unit unit, F f) const {
    const int64_t first = tiles.first(tile), image = tiles.image(tile) * tiles.total;
    g.each(tiles.count(tile), [=, p = points](int i) {
      const int64_t at = first + i;
      f(A(p[2 * at]), A(p[2 * at + 1]), unit(at), image + at);
    });
  }
};

template <class T, class A> struct DistanceToBox {
  PointRows<T, A> rows;
  const T* distances;  // (B, A, 4)
  A* out;              // (B, A, 4)

  template <class Group> PD_HD void operator()(Group g, int64_t tile) const {
    rows.each(g, tile, [=, d = distances, o = out](A x, A y, A s, int64_t i) {
      const Box<A> e = load_box<A>(d + 4 * i);
      store_box(o + 4 * i, Box<A>{x - s * e.x1, y - s * e.y1, x + s * e.x2, y + s * e.y2});
    });
  }
};

template <class T, class A> struct DistanceToBoxBackward {
  PointRows<T, A> rows;
  const A* dout;
  T* ddistances;

  template <class Group> PD_HD void operator()(Group g, int64_t tile) const {
    rows.each(g, tile, [=, d = dout, o = ddistances](A, A, A s, int64_t i) {
      const Box<A> e = load_box<A>(d + 4 * i);
      store_box(o + 4 * i, Box<A>{-s * e.x1, -s * e.y1, s * e.x2, s * e.y2});
    });
  }
};

template <class T, class A> struct BoxToDistance {
  PointRows<T, A> rows;
  const T* boxes;
  A* out;
  A low, high;

  PD_HD static A cut(A v, A low, A high) { return v > high ? high : at_least(v, low); }
  template <class Group> PD_HD void operator()(Group g, int64_t tile) const {
    rows.each(g, tile, [=, b = boxes, o = out, lo = low, hi = high](A x, A y, A s, int64_t i) {
      const Box<A> e = load_box<A>(b + 4 * i);
      store_box(o + 4 * i, Box<A>{cut((x - e.x1) / s, lo, hi), cut((y - e.y1) / s, lo, hi), cut((e.x2 - x) / s, lo, hi),
                                  cut((e.y2 - y) / s, lo, hi)});
    });
  }
};

}  // namespace pydistill::math
