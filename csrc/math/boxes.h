// Axis-aligned boxes and how two of them overlap. I: intersection, S: signed area, U = S_a + S_b - I, E: area of the
// enclosing box, c^2: its squared diagonal, rho^2: squared distance of the centres. Extents of I and E are cut at 0.
//   IoU = I / max(U, eps)    IoF = I / max(S_a, eps)    GIoU = IoU - (E - U) / E, U and E not below eps
//   DIoU = I / (U + eps) - rho^2 / (c^2 + eps)
// Where eps enters is the convention of the released codes: a floor in areas that are compared, added in losses.
#pragma once
#include "core/group.h"

namespace pydistill::math {

template <class A> struct Box {
  A x1, y1, x2, y2;
  PD_HD Box operator+(const Box& b) const { return {x1 + b.x1, y1 + b.y1, x2 + b.x2, y2 + b.y2}; }
  PD_HD Box operator*(A s) const { return {x1 * s, y1 * s, x2 * s, y2 * s}; }
  PD_HD A width() const { return x2 - x1; }
  PD_HD A height() const { return y2 - y1; }
  PD_HD A area() const { return width() * height(); }
  PD_HD A x() const { return (x1 + x2) * A(0.5); }
  PD_HD A y() const { return (y1 + y2) * A(0.5); }
  // Neither inverted nor with an infinite or undefined corner or side. A box without area is proper.
  PD_HD bool proper() const {
    constexpr A most = std::numeric_limits<A>::max();
    return x1 >= -most && y1 >= -most && x2 <= most && y2 <= most && width() >= 0 && height() >= 0 && width() <= most &&
           height() <= most;
  }
};

template <class A, class T> PD_HD Box<A> load_box(const T* p) { return {A(p[0]), A(p[1]), A(p[2]), A(p[3])}; }

template <class T, class A> PD_HD void store_box(T* p, const Box<A>& b) {
  p[0] = T(b.x1), p[1] = T(b.y1), p[2] = T(b.x2), p[3] = T(b.y2);
}

template <class A> PD_HD A at_least(A x, A floor) { return x < floor ? floor : x; }  // NaN stays NaN

template <class A> PD_HD Box<A> intersection(const Box<A>& a, const Box<A>& b) {
  return {Max{}(a.x1, b.x1), Max{}(a.y1, b.y1), Min{}(a.x2, b.x2), Min{}(a.y2, b.y2)};
}
template <class A> PD_HD Box<A> enclosure(const Box<A>& a, const Box<A>& b) {
  return {Min{}(a.x1, b.x1), Min{}(a.y1, b.y1), Max{}(a.x2, b.x2), Max{}(a.y2, b.y2)};
}
template <class A> PD_HD A positive_area(const Box<A>& b) {
  return at_least(b.width(), A(0)) * at_least(b.height(), A(0));
}

template <class A> PD_HD A squared_diagonal(const Box<A>& b) {
  const A w = at_least(b.width(), A(0)), h = at_least(b.height(), A(0));
  return w * w + h * h;
}
template <class A> PD_HD A squared_centre_distance(const Box<A>& a, const Box<A>& b) {
  const A dx = (b.x1 + b.x2) - (a.x1 + a.x2), dy = (b.y1 + b.y2) - (a.y1 + a.y2);
  return (dx * dx + dy * dy) * A(0.25);
}

template <class A> PD_HD A iou(const Box<A>& a, const Box<A>& b, A eps) {
  const A both = positive_area(intersection(a, b));
  return both / at_least(a.area() + b.area() - both, eps);
}
template <class A> PD_HD A iof(const Box<A>& a, const Box<A>& b, A eps) {
  return positive_area(intersection(a, b)) / at_least(a.area(), eps);
}
template <class A> PD_HD A giou(const Box<A>& a, const Box<A>& b, A eps) {
  const A both = positive_area(intersection(a, b)), either = at_least(a.area() + b.area() - both, eps);
  const A hull = at_least(positive_area(enclosure(a, b)), eps);
  return both / either - (hull - either) / hull;
}

template <class A> PD_HD A diou(const Box<A>& a, const Box<A>& b, A eps) {
  const A both = positive_area(intersection(a, b)), diagonal = squared_diagonal(enclosure(a, b));
  return both / (a.area() + b.area() - both + eps) - squared_centre_distance(a, b) / (diagonal + eps);
}
// "diou" of the code released with Localization Distillation: its first term is IoF.
template <class A> PD_HD A diou_released(const Box<A>& a, const Box<A>& b, A eps) {
  return iof(a, b, eps) - squared_centre_distance(a, b) / at_least(squared_diagonal(enclosure(a, b)), eps);
}

}  // namespace pydistill::math
