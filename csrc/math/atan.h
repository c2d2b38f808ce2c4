// atan of a number or of a vector register of numbers, as exp and log are in math/elementary.h: within 2 ulp, and without
// a branch, so that a compiler can vectorise the loop around it. NaN stays NaN.
#pragma once
#include "math/elementary.h"

namespace pydistill::math {

template <class A> struct AtanTerms;
template <> struct AtanTerms<float> {
  static constexpr int kTerms = 9;
  static constexpr float kPi = 0x1.921fb6p1f, kPiLow = -0x1.777a5cp-24f;
};
template <> struct AtanTerms<double> {
  static constexpr int kTerms = 21;
  static constexpr double kPi = 0x1.921fb54442d18p1, kPiLow = 0x1.1a62633145c07p-53;
};

// 1/3, -1/5, 1/7, ...: atan(r) = r - r z (1/3 - z/5 + ...),  z = r^2.
template <class A>
constexpr auto kAtanSeries = [] {
  std::array<A, AtanTerms<A>::kTerms> c{};
  for (int k = 0; k < int(c.size()); ++k) c[k] = A(k % 2 ? -1 : 1) / A(2 * k + 3);
  return c;
}();

// atan(x) = atan(a) + atan(r),  r = (x - a) / (1 + a x),  a = 0, 1 or infinity: |r| <= tan(pi / 8).
template <class V> [[gnu::always_inline]] PD_HD V atan(V x) {
#ifdef __CUDA_ARCH__
  return ::atan(x);
#else
  using A = typename Parts<V>::Element;
  using F = AtanTerms<A>;
  constexpr A kTan = A(0.41421356237309504880);
  const V size = x < A(0) ? -x : x, zero{}, one = zero + A(1);
  const auto middle = size > kTan, large = size > A(1) / kTan;
  const V top = large ? -one : middle ? size - A(1) : size, bottom = large ? size : middle ? size + A(1) : one;
  const V share = large ? one / A(2) : middle ? one / A(4) : zero;  // atan(a) / pi
  const V r = top / bottom, z = r * r;
  const V y = share * F::kPi + (r - (r * (z * polynomial(z, kAtanSeries<A>)) - share * F::kPiLow));
  return x < A(0) ? -y : y;
#endif
}

}  // namespace pydistill::math
