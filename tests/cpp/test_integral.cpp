#include <memory>

#include "harness.h"
#include "math/integral.h"

using namespace pydistill;
using namespace pydistill::math;
using namespace pydistill::test;

struct Case {
  int rows, bins;
  bool interleaved, masked, valued;  // interleaved: the bins of a row lie `rows` apart

  template <class T> Rows<T> of(T* x) const {
    return interleaved ? Rows<T>{x, rows, rows, 1, {0, 0, 1}} : Rows<T>{x, 1, rows, 1, {0, 0, bins}};
  }
};

template <class Run> Numbers integral(const Run& run, const Case& c) {
  const int64_t n = c.rows, cells = n * c.bins;
  Numbers logits = uniform(cells, 1), bins = uniform(c.bins, 2), dout = uniform(n, 3);
  Numbers out = poison(n), dlogits = poison(cells);
  const auto mask = std::make_unique<bool[]>(n);
  for (int64_t i = 0; i < n; ++i) mask[i] = i % 3 != 0;
  if (c.masked) c.of(logits.data()).at(0)[0] = NAN;  // not read
  logits[cells - 1] = 700;
  const BinRows<double, double> rows{c.of<const double>(logits.data()), c.valued ? bins.data() : nullptr,
                                     c.masked ? mask.get() : nullptr, c.bins};
  run(n, Integral<double, double>{rows, out.data()});
  for (const bool adds : {false, true})
    run(n, IntegralBackward<double, double>{rows, dout.data(), {c.of(dlogits.data()), adds}});
  out.insert(out.end(), dlogits.begin(), dlogits.end());
  return out;
}

int main() {
  for (const Case& c : {Case{5, 17, false, true, false}, Case{40, 2, true, false, true},
                        Case{3, 300, false, false, true}, Case{7, 33, true, true, true}})
    check_order_independent([&](const auto& run) { return integral(run, c); });
}
