#pragma once
#include "math/elementary.h"

namespace pydistill::math {

// |x|^p and its derivative.
struct Square {
  template <class A> PD_HD A operator()(A x) const { return x * x; }
  template <class A> PD_HD A slope(A x) const { return 2 * x; }
};
struct Absolute {  // its derivative at 0 is 0
  template <class A> PD_HD A operator()(A x) const { return std::abs(x); }
  template <class A> PD_HD A slope(A x) const { return x > A(0) ? A(1) : x < A(0) ? A(-1) : x; }
};
// One of the two, chosen at run time: where loading x is what takes time.
struct AbsoluteOrSquare {
  bool square;
  template <class A> PD_HD A operator()(A x) const { return square ? Square{}(x) : Absolute{}(x); }
  template <class A> PD_HD A slope(A x) const { return square ? Square{}.slope(x) : Absolute{}.slope(x); }
};
template <class A> struct Power {
  A p;
  PD_HD A operator()(A x) const { return exp(p * log(std::abs(x))); }
  PD_HD A slope(A x) const { return x == A(0) ? A(0) : std::copysign(p * exp((p - 1) * log(std::abs(x))), x); }
};
template <class A, class F> PD_HD void with_power(A p, F f) { p == A(2) ? f(Square{}) : f(Power<A>{p}); }

}  // namespace pydistill::math
