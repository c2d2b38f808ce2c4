#include "harness.h"
#include "math/softmax_kl.h"

using namespace pydistill;
using namespace pydistill::math;
using namespace pydistill::test;

struct Case {
  int rows, bins;
  bool interleaved, weighted;  // interleaved: the bins of a row lie `rows` apart

  template <class T> Rows<T> of(T* x) const {
    return interleaved ? Rows<T>{x, rows, rows, 1, {0, 0, 1}} : Rows<T>{x, 1, rows, 1, {0, 0, bins}};
  }
};

template <class Run> Numbers softmax_kl(const Run& run, const Case& c) {
  const int64_t n = c.rows, cells = n * c.bins;
  Numbers student = uniform(cells, 1), teacher = uniform(cells, 2), weight = uniform(n, 3), dloss = uniform(n, 4);
  Numbers loss = poison(n), total = poison(1), dstudent = poison(cells), dteacher = poison(cells), factor = {3};
  weight[0] = 0;
  student[n - 1] = 700;
  const Rows<const double> each{dloss.data(), 1, n, 1, {0, 0, 1}};
  const Rows<const double> weights{c.weighted ? weight.data() : nullptr, 1, n, 1, {0, 0, 1}};
  const KlRows<double, double, double> rows{c.of<const double>(student.data()), c.of<const double>(teacher.data()),
                                            weights, c.bins, 0.5};
  Numbers kept = poison(c.weighted ? 0 : cells);
  run(n, SoftmaxKl<double, double, double>{rows, loss.data(), c.of(c.weighted ? nullptr : kept.data()), 4, 2});
  run(1, SumTiles<double>{loss.data(), total.data(), n, c.rows, 1, factor.data()});
  for (const bool adds : {false, true})
    run(n, SoftmaxKlBackward<double, double, double>{
               rows, each, factor.data(), {c.of(dstudent.data()), adds}, c.of(dteacher.data()), 2});
  for (const Numbers& more : {total, kept, dstudent, dteacher}) loss.insert(loss.end(), more.begin(), more.end());
  return loss;
}

int main() {
  for (const Case& c :
       {Case{5, 17, false, true}, Case{40, 2, true, false}, Case{3, 300, false, false}, Case{7, 33, true, true}})
    check_order_independent([&](const auto& run) { return softmax_kl(run, c); });
}
