// Queries with the largest class scores, and how well they cover a target:
//   q = c^gamma u^(1 - gamma)  or  c u,  u = max_t IoU(query's box, target t), 1 in an image without targets
//   c = sigmoid(x), or x. Taken are the K largest x, each query once, or with as many of its classes as are among them.
// Of equals the first comes first; a NaN ranks as -infinity, c = 0.   T: storage type of x.  A: accumulation type.
#pragma once
#include "math/elementary.h"
#include "math/padded_boxes.h"

namespace pydistill::math {

template <class A> PD_HD A nan_lowest(A x) { return x == x ? x : A(-INFINITY); }

template <class A> PD_HD Box<A> load_centred_box(const A* p) {  // cx, cy, w, h
  const A w = p[2] * A(0.5), h = p[3] * A(0.5);
  return {p[0] - w, p[1] - h, p[0] + w, p[1] + h};
}

// One row = one query: its largest score.
template <class T, class A> struct LargestScore {
  const T* scores;  // (N * Q, C)
  A* rank;          // (N * Q)
  int classes;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const A largest = g.max(classes, [x = scores + row * classes](int c) { return nan_lowest(A(x[c])); });
    g.put(rank, row, largest);
  }
};

// One row = one image of one stage. An entry is one of the numbers that are ranked: a query, or a class of a query.
template <class T, class A> struct QueryQuality {
  const T* ranked;  // (N, entries)
  const A* boxes;   // (N, Q, 4)
  PaddedBoxes<A> targets;
  const A* sizes;                 // (B, 2) or null: below 1e-6 pixels^2 a union counts as that
  int* entry;                     // (N, K): scratch
  A* corners;                     // (N, 4, K): scratch
  A* quality;                     // (N, K)
  int64_t* index;                 // (N, K)
  int images;                     // B
  int queries, taken, per_query;  // entries
  A gamma;
  bool activated, product;  // product: c u

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t image = int(row) % images;
    const T* x = ranked + row * queries * per_query;
    int* best = entry + row * taken;
    A *x1 = corners + 4 * row * taken, *y1 = x1 + taken, *x2 = y1 + taken, *y2 = x2 + taken, *q = quality + row * taken;
    g.top_k(queries * per_query, taken, [=](int i) { return -A(x[i]); }, best);
    g.each(taken, [=, i = index + row * taken, b = boxes + 4 * row * queries, n = per_query](int k) {
      const int query = best[k] / n;
      const Box<A> box = load_centred_box(b + 4 * int64_t(query));
      i[k] = query, x1[k] = box.x1, y1[k] = box.y1, x2[k] = box.x2, y2[k] = box.y2;
    });
    const A least = smallest_union(sizes ? sizes + 2 * image : nullptr);
    g.column_fold(
        Grid{1, taken}, q, [n = targets.count(image)](int) { return Span{0, n}; },
        [=, *this](int, int t) {  // added, because a choice that is the same for all k is not vectorised
          const Box<A> given = load_centred_box(targets.data + 4 * (image * targets.most + t));
          const Box<A> target = given.proper() ? given : Box<A>{};
          return [=, none = given.proper() ? A(0) : A(-INFINITY)](int k) {
            return iou(Box<A>{x1[k], y1[k], x2[k], y2[k]}, target, least) + none;
          };
        },
        Max{});
    g.each(taken, [=, *this](int k) {
      const A s = nan_lowest(A(x[best[k]]));
      const A c = activated ? at_least(s, A(0)) : A(1) / (A(1) + exp(-s));
      const A most = q[k] == A(-INFINITY) ? A(1) : q[k];
      const A u = Box<A>{x1[k], y1[k], x2[k], y2[k]}.proper() ? most : A(0);
      const A power = exp(log_power(gamma, c) + log_power(A(1) - gamma, u));
      q[k] = product ? c * u : power;
    });
  }

 private:
  PD_HD static A smallest_union(const A* size) {
    const A least = std::numeric_limits<A>::min();
    return size ? Max{}(least, A(1e-6) / (size[0] * size[1])) : least;
  }
  PD_HD static A log_power(A p, A x) { return p == A(0) ? A(0) : p * log(x); }  // 0^0 = 1
};

}  // namespace pydistill::math
