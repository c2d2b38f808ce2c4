// The points of one box: their values, products of these over channels, and the slopes that are products with them.
#pragma once
#include "math/keypoint_cells.h"

namespace pydistill::math {

template <class A> struct KeypointBox {
  KeypointRows<A> rows;
  int64_t first;  // of its points, of all
  int count;      // K

  // out[c, k] of `width` channels from x.
  template <class Group, class T>
  PD_HD void sample(Group g, const T* x, const FeatureMap<const T>& map, int width, A* out) const {
    const auto put = [=, rows = rows, first = first, n = count, channel = map.channel, pixel = map.pixel](
                         int k, int c) { out[c * n + k] = rows.point(first + k).of(x + c * channel, pixel); };
    rows.each(g, 0, count, width, put);
  }
  // out[k, l] (+)= sum_c weight(c) p[c, k] q[c, l]
  template <class W, class Group, class F>
  PD_HD void add_products(Group g, const A* p, const A* q, int width, bool start, W* out, F weight) const {
    g.each(Grid{count, count}, [=, n = count](int k) {
      return [=, to = out + k * n](int l) {
        W total = start ? W(0) : to[l];
        for (int c = 0; c < width; ++c) total += weight(c) * W(p[c * n + k]) * W(q[c * n + l]);
        to[l] = total;
      };
    });
  }
  // slope (+)= sum_l m(c)(k, l) p[c, l], kept as rows.at says, of the points from `start` of a group.
  template <class Group, class M>
  PD_HD void add_slopes(Group g, const A* p, int width, int start, bool adds, A* slope, M m) const {
    rows.each(g, start, count, width, [=, rows = rows, n = count](int k, int c) {
      A total(0);
      for (int l = 0; l < n; ++l) total += m(c, (k - start) * n + l) * p[c * n + l];
      A& to = slope[rows.at(k, c, width)];
      to = adds ? to + total : total;
    });
  }
};

}  // namespace pydistill::math
