// The gradient of rows, written, or added to what other losses of the same rows have left there.
#pragma once
#include "core/rows.h"

namespace pydistill::math {

template <class T, class A> struct Gradient {
  Rows<T> rows;  // data null where nobody wants it
  bool adds;

  PD_HD bool wanted() const { return rows.data != nullptr; }
  template <class Group, class F> PD_HD void write(Group g, typename Group::Row row, int n, F f) const {
    if (!adds) return g.store(rows, row, n, f);
    const auto before = g.template load<A>(rows.read_only(), row, n);
    g.store(rows, row, n, [&](int i) { return before(i) + f(i); });
  }
  // Of a row that has none.
  template <class Group> PD_HD void skip(Group g, typename Group::Row row, int n) const {
    if (!adds) g.store(rows, row, n, [](int) { return A(0); });
  }
  void clear(int n, int64_t first, int64_t count) const {
    if (!adds) zero(rows, n, first, count);
  }
};

}  // namespace pydistill::math
