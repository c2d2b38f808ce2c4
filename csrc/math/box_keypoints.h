// Points of boxes in the cells of a map:  u = (x + p l cos - q w sin - x_min) / cell_x,  v = (y + p l sin + q w cos - y_min) /
// cell_y, (p, q) from -1/2 to 1/2: the nine of UniDistill, or `along` x `across` spread evenly.
// In double, whatever the boxes are: a map has thousands of cells, and a corner is a sum.
#pragma once
#include "core/group.h"

namespace pydistill::math {

struct BoxPlaces {
  int along, across;  // or 0: the nine
  PD_HD int count() const { return along ? along * across : 9; }
  // Corners clockwise from the rear right one, the centre, the middles of the rear, left, front and right side.
  PD_HD double p(int k) const {
    if (along) return spread(k / across, along);
    return k == 0 || k == 1 || k == 5 ? -0.5 : k == 2 || k == 3 || k == 7 ? 0.5 : 0.0;
  }
  PD_HD double q(int k) const {
    if (along) return spread(k % across, across);
    return k == 0 || k == 3 || k == 8 ? -0.5 : k == 1 || k == 2 || k == 6 ? 0.5 : 0.0;
  }

 private:
  PD_HD static double spread(int i, int n) { return n > 1 ? double(i) / double(n - 1) - 0.5 : 0.0; }
};

// One row = one box.
template <class T, class A> struct BoxKeypoints {
  const T* boxes;  // (N, numbers): x, y, z, l, w, h, yaw, ...
  A* points;       // (N, K, 2)
  int numbers;
  BoxPlaces places;
  double x_min, y_min, cell_x, cell_y;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const T* b = boxes + row * numbers;
    const double cos = std::cos(double(b[6])), sin = std::sin(double(b[6])), l = double(b[3]), w = double(b[4]);
    g.each(places.count(), [=, *this, to = points + row * places.count() * 2](int k) {
      const double ahead = places.p(k) * l, left = places.q(k) * w;
      to[2 * k] = A((double(b[0]) + ahead * cos - left * sin - x_min) / cell_x);
      to[2 * k + 1] = A((double(b[1]) + ahead * sin + left * cos - y_min) / cell_y);
    });
  }
};

}  // namespace pydistill::math
