// exp, log and log1p of math/elementary.h and atan of math/atan.h against the next wider type: at most 2 ulp, and their values at the edges.
// Every 1009th float32 (a prime: all exponents, all kinds of mantissas), neighbours of every edge, and random float64.
// This file is compiled as CUDA where the other tests are; only the host's formulas are tested here.
#undef __CUDACC__
#undef __CUDA_ARCH__
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "core/lanes.h"
#include "math/atan.h"

#define CHECK(ok) ((ok) ? void() : (std::printf("%s:%d: %s\n", __FILE__, __LINE__, #ok), std::exit(1)))

using namespace pydistill;
constexpr double kUlp = 2;

template <class A, class Wide> double ulps(A got, Wide want) {  // in units of the last place of `want`
  if (std::isnan(want)) return std::isnan(got) ? 0 : INFINITY;
  if (std::isinf(A(want)) || std::isinf(got)) return got == A(want) ? 0 : INFINITY;
  const A size = std::max(std::abs(A(want)), std::numeric_limits<A>::min());
  return double(std::abs(Wide(got) - want) / (Wide(std::nextafter(size, A(INFINITY))) - Wide(size)));
}

template <class A, class Wide> void check(A x, A exp_x, A log_x) {
  const Wide want = std::exp(Wide(x));
  const A least = std::numeric_limits<A>::min();
  const bool flushed = want < Wide(least) && (exp_x == 0 || exp_x == least);
  const double e = flushed ? 0 : ulps<A, Wide>(exp_x, want), l = ulps<A, Wide>(log_x, std::log(Wide(x)));
  CHECK(exp_x == 0 || !(exp_x < least));  // no denormals, which are within 2 ulp, too
  if (!(e <= kUlp && l <= kUlp)) std::printf("x = %a: exp is off by %g ulp, log by %g\n", double(x), e, l);
  CHECK(e <= kUlp && l <= kUlp);
}
template <class A, class Wide> void check_log1p(A x, A log1p_x) {
  const double off =
      std::abs(x) < std::numeric_limits<A>::min() && log1p_x == 0 ? 0 : ulps<A, Wide>(log1p_x, std::log1p(Wide(x)));
  if (!(off <= kUlp)) std::printf("x = %a: log1p is off by %g ulp\n", double(x), off);
  CHECK(off <= kUlp);
}
template <class A, class Wide> void check_atan(A x, A atan_x) {
  const double off = ulps<A, Wide>(atan_x, std::atan(Wide(x)));
  if (!(off <= kUlp)) std::printf("x = %a: atan is off by %g ulp\n", double(x), off);
  CHECK(off <= kUlp);
}
template <class A, class Wide> void check(A x) {
  check<A, Wide>(x, math::exp(x), math::log(x));
  check_atan<A, Wide>(x, math::atan(x));
  if (!(x > 1)) check_log1p<A, Wide>(x, math::log1p(x));
  if (x != x || (x >= 0 && x <= 1)) check_log1p<A, Wide>(x, math::log1p_of_share(x));
}

template <class A, class Wide, class Int> void check_edges() {
  const A largest = std::numeric_limits<A>::max(), least = std::numeric_limits<A>::min();
  for (const A edge : {A(0), A(1), A(-1), A(2), A(0.5), std::sqrt(A(0.5)), std::sqrt(A(2)), std::log(largest),
                       std::log(least), least, std::numeric_limits<A>::denorm_min(), largest, A(2.718281828459045),
                       A(0.34657359027997264), A(0.41421356237309505), A(2.414213562373095)})
    for (int step = -1000; step <= 1000; ++step) {
      check<A, Wide>(std::bit_cast<A>(Int(std::bit_cast<Int>(edge) + Int(step))));
      check<A, Wide>(-std::bit_cast<A>(Int(std::bit_cast<Int>(edge) + Int(step))));
    }
  CHECK(math::exp(A(INFINITY)) == A(INFINITY) && math::exp(A(-INFINITY)) == 0 && math::exp(A(0)) == 1);
  CHECK(math::exp(largest) == A(INFINITY) && math::exp(-largest) == 0);
  CHECK(math::log(A(INFINITY)) == A(INFINITY) && math::log(A(0)) == -A(INFINITY) && math::log(A(1)) == 0);
  CHECK(math::atan(A(INFINITY)) == A(1.57079632679489661923) && math::atan(-A(INFINITY)) < A(-1.57));
  CHECK(std::isnan(math::log(A(-1))) && std::isnan(math::log(A(-INFINITY))));
  for (Int payload : {Int(1), Int(0x1ff), Int(-1)}) {  // what carries an exponent must not turn a NaN into a number
    const Int bits = std::bit_cast<Int>(A(NAN));
    for (const A nan : {std::bit_cast<A>(bits | (payload & (std::bit_cast<Int>(A(INFINITY)) - 1))), -A(NAN)})
      CHECK(std::isnan(math::exp(nan)) && std::isnan(math::log(nan)) && std::isnan(math::atan(nan)));
  }
}

// The same of a register of numbers. Whether the last bit is that of a number alone is the compiler's choice.
template <class A, class Wide, int k> void check_lanes() {
  using V = typename VectorOf<A, k>::type;
  std::mt19937_64 random(3);
  std::uniform_real_distribution<A> wide(-120, 120);
  for (int round = 0; round < 10000; ++round) {
    V x;
    for (int lane = 0; lane < k; ++lane) x[lane] = wide(random);
    if (round == 0) x[0] = A(NAN), x[1] = A(INFINITY);
    if (round == 1) x[0] = A(0), x[1] = -A(INFINITY);
    const V e = math::exp(x), l = math::log(x), angle = math::atan(x);
    const V share = x > 0 ? x * A(1. / 120) : V{};
    const V l1 = math::log1p(share), shared = math::log1p_of_share(share);
    for (int lane = 0; lane < k; ++lane) {
      check<A, Wide>(x[lane], e[lane], l[lane]);
      check_atan<A, Wide>(x[lane], angle[lane]);
      if (share[lane] <= 1)
        check_log1p<A, Wide>(share[lane], l1[lane]), check_log1p<A, Wide>(share[lane], shared[lane]);
    }
  }
}

int main() {
  for (uint64_t bits = 0; bits < 1ull << 32; bits += 1009) check<float, double>(std::bit_cast<float>(uint32_t(bits)));
  check_edges<float, double, uint32_t>();
  check_edges<double, long double, uint64_t>();
  std::mt19937_64 random(1);
  for (int i = 0; i < 300000; ++i) {
    check<double, long double>(std::bit_cast<double>(random()));
    check<double, long double>(std::uniform_real_distribution<>(-750, 750)(random));
    check<double, long double>(std::uniform_real_distribution<>(0.5, 2)(random));
  }
  check_lanes<float, double, 4>();
  check_lanes<double, long double, 2>();
}
