// Four numbers of a box, unit corners or centre and sides, as what losses compare: the box in pixels for GIoU, and the
// four numbers of L1; and the gradient on the way back.
#pragma once
#include "math/boxes.h"

namespace pydistill::math {

template <class A> struct ComparedBox {
  Box<A> l1;   // centre and sides, or corners, in units of the picture
  Box<A> box;  // corners in pixels
};

struct BoxFormat {
  bool corners, l1_corners, clamp;

  // w, h: of the picture in pixels, or 1.
  template <class A> PD_HD ComparedBox<A> read(const Box<A>& b, A w, A h) const {
    Box<A> unit = corners ? b : corners_of(b);
    Box<A> box{unit.x1 * w, unit.y1 * h, unit.x2 * w, unit.y2 * h};
    if (clamp) {
      box = {within(box.x1, w), within(box.y1, h), within(box.x2, w), within(box.y2, h)};
      unit = {box.x1 / w, box.y1 / h, box.x2 / w, box.y2 / h};
    }
    if (l1_corners) return {unit, box};
    if (!corners && !clamp) return {b, box};
    return {{unit.x(), unit.y(), unit.width(), unit.height()}, box};
  }

  // The gradient of the four numbers, which are not clamped, from those of what they were read as.
  template <class A> PD_HD Box<A> gradient(const ComparedBox<A>& d, A w, A h) const {
    const Box<A> unit{d.box.x1 * w, d.box.y1 * h, d.box.x2 * w, d.box.y2 * h};
    if (corners == l1_corners) return (corners ? unit : of_centred(unit)) + d.l1;
    if (!corners) return of_centred(unit + d.l1);
    const A x = d.l1.x1 * A(0.5), y = d.l1.y1 * A(0.5);  // of the centre; x2, y2: of the sides
    return unit + Box<A>{x - d.l1.x2, y - d.l1.y2, x + d.l1.x2, y + d.l1.y2};
  }

 private:
  template <class A> PD_HD static Box<A> corners_of(const Box<A>& b) {
    return {b.x1 - b.x2 * A(0.5), b.y1 - b.y2 * A(0.5), b.x1 + b.x2 * A(0.5), b.y1 + b.y2 * A(0.5)};
  }
  template <class A> PD_HD static Box<A> of_centred(const Box<A>& d) {  // x1 = x - w / 2, x2 = x + w / 2
    return {d.x1 + d.x2, d.y1 + d.y2, (d.x2 - d.x1) * A(0.5), (d.y2 - d.y1) * A(0.5)};
  }
  template <class A> PD_HD static A within(A x, A most) { return x < A(0) ? A(0) : x > most ? most : x; }
};

}  // namespace pydistill::math
