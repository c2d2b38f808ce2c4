// softmax(z / T) of one row, by everyone who needs its probabilities more than once.
#pragma once
#include "math/elementary.h"

namespace pydistill::math {

template <class V, class Logit, class Power> struct Softmax {
  V total;      // sum of power(i), between 1 and n
  Logit logit;  // i -> (z_i - max z) / T
  Power power;  // i -> e^logit(i)
};

// NaN in every probability of a row that has a NaN or +inf, or nothing but -inf.
template <class A, class Group, class T>
PD_HD auto softmax(Group g, const Rows<const T>& x, typename Group::Row row, int n, A per_temperature) {
  const auto z = g.template load<A>(x, row, n);
  const auto peak = g.max(n, z);
  const auto logit = [=](int i) { return (z(i) - peak) * per_temperature; };
  const auto power = g.keep(n, [=](int i) { return exp(logit(i)); });
  return Softmax<decltype(g.sum(n, power)), decltype(logit), decltype(power)>{g.sum(n, power), logit, power};
}

}  // namespace pydistill::math
