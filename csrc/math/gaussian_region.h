// out[y, x] = max over the boxes of exp(-((x - x_b)^2 + (y - y_b)^2) / (2 s^2)) where |x - x_b|, |y - y_b| <= r, else 0
// x_b, y_b: the cell of the box's centre; s = (2 r + 1) / 6; r: a box of l x w cells moved by r along both axes, or grown or
// shrunk by r on each side, still has an IoU of `overlap` with itself. Released form: CornerNet's, Law and Deng 2018, whose
// code takes other roots of these quadratic equations, and does not divide by their leading coefficients.
#pragma once
#include "core/group.h"
#include "math/elementary.h"

namespace pydistill::math {

template <class A> PD_HD A gaussian_radius(A l, A w, A overlap, bool released) {
  const A sum = l + w, area = l * w, o = overlap;
  const A moved = std::sqrt(sum * sum - 4 * area * (1 - o) / (1 + o));
  const A shrunk = std::sqrt(4 * sum * sum - 16 * (1 - o) * area);
  const A grown = std::sqrt(4 * o * o * sum * sum + 16 * o * (1 - o) * area);
  const A r1 = released ? (sum + moved) / 2 : (sum - moved) / 2;
  const A r2 = released ? (2 * sum + shrunk) / 2 : (2 * sum - shrunk) / 8;
  const A r3 = released ? (grown - 2 * o * sum) / 2 : (grown - 2 * o * sum) / (8 * o);
  return r1 < r2 ? (r1 < r3 ? r1 : r3) : (r2 < r3 ? r2 : r3);
}

// One row = the map of an image, or of one of its classes.
template <class A> struct GaussianRegion {
  const A* boxes;         // (B, M, numbers): x, y, z, l, w, ...
  const bool* valid;      // (B, M)
  const int64_t* labels;  // (B, M), or null
  A* region;              // (B, classes, H, W)
  int count, numbers, classes;
  Grid map;
  A x_min, y_min, cell_x, cell_y, overlap, least;  // least: radius
  bool released;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t first = row / classes * count;
    A* out = region + row * map.area();
    g.each(int(map.area()), [out](int i) { out[i] = A(0); });
    for (int b = 0; b < count; ++b) {
      const A* p = boxes + (first + b) * numbers;
      if (!valid[first + b] || (labels && labels[first + b] != row % classes)) continue;
      paint(g, std::trunc((p[0] - x_min) / cell_x), std::trunc((p[1] - y_min) / cell_y), p[3] / cell_x, p[4] / cell_y,
            out);
    }
  }

 private:
  template <class Group> PD_HD void paint(Group g, A x, A y, A l, A w, A* out) const {
    if (!(l >= A(0) && w >= A(0) && std::isfinite(l) && std::isfinite(w))) return;
    const A of_box = std::trunc(gaussian_radius(l, w, overlap, released)), r = of_box > least ? of_box : least;
    if (!std::isfinite(of_box)) return;
    const A sigma = (2 * r + 1) / 6, per = A(-1) / (2 * sigma * sigma);
    const int left = bound(x - r, map.w), right = bound(x + r + 1, map.w);  // of a NaN or an infinity: nothing between
    const int top = bound(y - r, map.h), low = bound(y + r + 1, map.h);
    if (!(right > left && low > top)) return;
    g.each(Grid{low - top, right - left}, [=, w = map.w](int i) {
      const A dy = A(top + i) - y;
      return [=, to = out + int64_t(top + i) * w + left](int k) {
        const A dx = A(left + k) - x, v = exp((dx * dx + dy * dy) * per);
        to[k] = v > to[k] ? v : to[k];
      };
    });
  }
  PD_HD static int bound(A at, int most) { return !(at > A(0)) ? 0 : at < A(most) ? int(at) : most; }
};

}  // namespace pydistill::math
