// The three focal losses and the cross entropy with a teacher's probabilities, forward and backward.
#include "harness.h"
#include "math/distribution_focal_loss.h"
#include "math/matched_class_loss.h"

using namespace pydistill;
using namespace pydistill::math;
using namespace pydistill::test;

struct Case {
  int rows, n;
  bool interleaved, weighted;  // interleaved: the elements of a row lie `rows` apart

  template <class T> Rows<T> of(T* x) const {
    return interleaved ? Rows<T>{x, rows, rows, 1, {0, 0, 1}} : Rows<T>{x, 1, rows, 1, {0, 0, n}};
  }
  template <class T> Rows<T> per_row(T* x) const { return {x, 1, rows, 1, {0, 0, 1}}; }
};

struct Inputs {
  Numbers logits, weight, dloss, factor = {3};
  explicit Inputs(const Case& c)
      : logits(uniform(c.rows * c.n, 1)), weight(uniform(c.rows, 2)), dloss(uniform(c.rows, 3)) {
    weight[0] = 0;
    logits[c.n - 1] = 700;
  }
  Rows<const double> weights(const Case& c) const { return c.per_row(c.weighted ? weight.data() : nullptr); }
};

// The rows one by one, and in tiles of at most three.
template <class Targets, class Loss>
void check_focal(const Case& c, const Inputs& in, const Targets& targets, const Loss& loss) {
  using Rows = FocalRows<double, double, Targets, Loss>;
  const Rows rows{c.of(in.logits.data()), targets, in.weights(c), c.n, loss};
  const auto results = [&](const auto& run) {
    Numbers value = poison(c.rows), kept = poison(in.logits.size()), dlogits = kept;
    run(FocalForward<Rows>{rows, value.data(), c.of(kept.data()), 2});
    run(FocalBackward<Rows>{rows, c.per_row(in.dloss.data()), in.factor.data(), c.of(dlogits.data()), 2});
    for (const Numbers& more : {kept, dlogits}) value.insert(value.end(), more.begin(), more.end());
    return value;
  };
  const auto by_row = [&](const auto& run) { return results([&](const auto& body) { run(c.rows, body); }); };
  const auto by_tile = [&](const auto& run) {
    return results([&]<class Body>(const Body& body) {
      const int size = c.n > 100 ? 1 : 3;
      run((c.rows + size - 1) / size, FocalTiles<Body>{body, c.rows, size}, 8 * scratch_bytes<double>(size * c.n));
    });
  };
  CHECK(difference(by_row(InOrder{}), by_tile(InOrder{})) < kRounding);
  check_order_independent(by_row);
  check_order_independent<false>(by_tile);
}

template <class Run> Numbers distribution(const Run& run, const Case& c, const Inputs& in) {
  Numbers value = poison(c.rows), kept = poison(in.logits.size()), dlogits = kept, target = uniform(c.rows, 4);
  for (double& y : target) y *= c.n;  // half of them below the first bin
  target[1] = NAN;
  using Rows = DflRows<double, double>;
  const Rows rows{c.of<const double>(in.logits.data()), c.per_row<const double>(target.data()), in.weights(c), c.n};
  run(c.rows, DistributionFocal<double, double>{rows, value.data(), c.of(kept.data()), 2});
  for (const bool adds : {false, true})
    run(c.rows, DistributionFocalBackward<double, double>{
                    rows, c.per_row<const double>(in.dloss.data()), in.factor.data(), {c.of(dlogits.data()), adds}, 2});
  for (const Numbers& more : {kept, dlogits}) value.insert(value.end(), more.begin(), more.end());
  return value;
}

int main() {
  for (const Case& c :
       {Case{5, 17, false, true}, Case{40, 2, true, false}, Case{3, 300, false, false}, Case{7, 33, true, true}}) {
    const Inputs in(c);
    std::vector<int64_t> labels(c.rows);
    for (int i = 0; i < c.rows; ++i) labels[i] = i * 5 - 1;  // the first and most of the last are background
    Numbers scores = uniform(c.rows, 5), dense = uniform(c.rows * c.n, 6);
    for (double& t : dense) t = t > 0;
    const LabelTargets<double> scored{c.per_row<const int64_t>(labels.data()), c.per_row<const double>(scores.data())};
    const LabelTargets<double> labelled{c.per_row<const int64_t>(labels.data()), {}};
    const DenseTargets<double, double> of_each{c.of<const double>(dense.data())};
#ifdef __SANITIZE_THREAD__  // an exponent is arithmetic on two numbers: who reads and writes what is the same with all
    const auto powers = {2.};
#else
    const auto powers = {2., 1., 1.5};
#endif
    for (const double power : powers) {
      check_focal(c, in, scored, Quality<double>{power, false});
      check_focal(c, in, labelled, SigmoidFocal<double>{power, 0.25, 0.75});
      check_focal(c, in, of_each, SigmoidFocal<double>{power, 0.25, 0.75});
    }
    Inputs probable(c);
    for (double& p : probable.logits) p = 0.5 + 0.4 * std::tanh(p);
    check_focal(c, probable, scored, Quality<double>{2, true});
    check_order_independent([&](const auto& run) { return distribution(run, c, in); });
    const Numbers teacher = uniform(2 * c.n, 7);      // of two queries
    for (int64_t& match : labels) match = match % 4;  // -1, and 2 and 3: none
    check_focal(c, in, MatchedTargets<double>{{teacher.data(), 1, 2 * c.n}, labels.data(), uint32_t(c.rows), 2},
                SoftCrossEntropy{});
  }
}
