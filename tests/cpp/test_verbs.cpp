// Every verb of every group against Serial's, on random sizes and values; and every barrier of the device groups taken
// out, one at a time: that must show, as a wrong answer or a standstill here, as a data race under ThreadSanitizer.
#include <string>

#include "harness.h"

using namespace pydistill;
using namespace pydistill::test;

struct Sizes {
  int n, h, w, k;
  int64_t results() const { return 3 * n + 2 * k + 2 * w + 2 * h + 2 * h * w + 9; }
  int64_t bytes() const { return scratch_bytes<double>(n) + 2 * scratch_bytes<int>(k) + scratch_bytes<char>(h); }
};

// Small integers, so that sums are exact in every order and ties are many; some infinite, and NaN where asked for.
inline Numbers small_integers(size_t n, unsigned seed, bool with_nan) {
  Numbers x = uniform(n, seed);
  for (double& v : x) v = v > 0.95 ? INFINITY : with_nan && v < -0.95 ? NAN : std::round(4 * v);
  return x;
}

PD_HD double bounded(double x) { return x - x == 0 ? x : x > 0 ? 100 : -100; }

// Every verb, each reading what another thread wrote in the one before.
struct AllVerbs {
  const double* x;  // (rows, n)
  const double* m;  // (rows, h, w)
  double* out;      // (rows, results)
  Sizes z;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int n = z.n, h = z.h, w = z.w;
    const double *v = x + row * n, *grid = m + row * h * w;
    double *to = out + row * z.results(), *mirror = g.template scratch<double>(n);
    const auto keep = [&](double value) { g.once([=] { *to = value; }), ++to; };
    g.each(n, [=](int i) { mirror[i] = v[n - 1 - i]; });
    g.each(n, [=](int i) { to[i] = mirror[n - 1 - i]; });
    to += n;
    g.fill(
        Grid{h, w}, [=, turned = to + h * w](int y) { return turned + y * w; },
        [=](int y) { return [=, r = grid + y * w](int i) { return (y + 1) * bounded(r[i]); }; });
    g.each(h * w, [=, cells = h * w](int i) { to[i] = to[2 * cells - 1 - i]; });
    to += 2 * h * w;
    keep(g.sum(n, [=](int i) { return bounded(mirror[i]); }));
    const double largest = g.max(n, [=](int i) { return mirror[n - 1 - i]; });
    keep(largest == largest ? largest : 1e3);  // NaN would compare unequal
    const double smallest = g.min(n, [=](int i) { return v[i] == v[i] ? mirror[n - 1 - i] : NAN; });
    keep(smallest == smallest ? smallest : 1e3);
    keep(g.max(n, [=](int i) { return int(bounded(v[i])); }));
    keep(g.sum(Grid{h, w}, [=](int y) { return [=, r = grid + y * w](int i) { return bounded(r[i]); }; }));
    const auto first = g.argmin(n, [=](int i) { return Candidate<double>{mirror[i], -i % 3}; });
    keep(first.value), keep(first.key), keep(first.index);
    two_best(g, v, to);
    folds(g, grid, to);
  }

 private:
  // top_k twice, and each time as soon as all members may read it.
  template <class Group> PD_HD void two_best(const Group& g, const double* v, double*& to) const {
    int *best = g.template scratch<int>(z.k), *worst = g.template scratch<int>(z.k);
    g.top_k(z.n, z.k, [=](int i) { return v[i]; }, best);
    g.top_k(z.n, z.k, [=](int i) { return -v[i]; }, worst);
    g.each(z.k, [=, k = z.k, to = to](int i) { to[i] = best[k - 1 - i], to[k + i] = worst[k - 1 - i]; });
    to += 2 * z.k;
    double last = 0;  // one fold again and again, with no other verb between, each over what the one before gave
    for (int i = 0; i < 8; ++i) last = g.sum(z.n, [=](int j) { return std::fmod(j + last, i + 2.0); });
    g.once([=, to = to] { *to = last; });
    ++to;
  }

  template <class Group> PD_HD void folds(const Group& g, const double* grid, double*& to) const {
    const int h = z.h, w = z.w;
    const auto cell = [=](int y, int k) { return [=, r = grid + k * w](int i) { return (y + 1) * bounded(r[i]); }; };
    g.column_sums(Grid{2, w}, to, [=](int y) { return Span{y, h}; }, cell);
    to += 2 * w;
    g.row_sums(Grid{h, w}, to, [=](int y) { return [=, r = grid + y * w](int i) { return bounded(r[i]); }; });
    to += h;
    char* even = g.template scratch<char>(h);
    g.row_fold(Grid{h, w}, even, [=](int y) { return [=](int i) { return char((i + y) % 5 % 2); }; }, Plus{});
    g.each(h, [=, to = to](int y) { to[y] = even[h - 1 - y] % 7; });
    to += h;
    g.each(z.n, [=, n = z.n, to = to](int i) { to[i] = i; });
    g.each(z.n, [=, n = z.n, to = to, v = to + z.n](int i) { v[i] = to[n - 1 - i]; });
    to += 2 * z.n;
  }
};

template <class Rows> Numbers all_verbs(const Rows& rows, const Sizes& z, unsigned seed) {
  constexpr int kRows = 3;
  const Numbers x = small_integers(kRows * z.n, seed, seed % 2), m = small_integers(kRows * z.h * z.w, seed + 1, true);
  Numbers out(kRows * z.results(), -7);
  rows(kRows, AllVerbs{x.data(), m.data(), out.data(), z}, z.bytes());
  for (double& v : out) v = bounded(v);
  return out;
}

Sizes random_sizes(unsigned seed) {
  constexpr int kLengths[] = {0, 1, 3, 7, 8, 9, 31, 32, 33, 64, 100, 255, 256, 257, 600};
  std::mt19937 random(seed);
  const auto length = [&](size_t most) { return kLengths[random() % most]; };
  const int n = length(std::size(kLengths));
  return {n, length(9), length(std::size(kLengths)), std::min(n, int(random() % 6))};
}

bool right_on_the_device() {
  const Sizes z{100, 3, 40, 4};
  for (unsigned seed = 0; seed < 6; ++seed) {
    const Numbers want = all_verbs(InOrder{}, z, seed);
    for (const Numbers& got :
         {all_verbs(OnBlock{}, z, seed), all_verbs(OnTile<32>{}, z, seed), all_verbs(OnTile<8>{}, z, seed)})
      if (difference(want, got) != 0) return false;
  }
  return true;
}

void check_that_every_barrier_is_needed(const std::string& program) {
  CHECK(right_on_the_device());
  CHECK(shim::barriers().size() == 4);  // those of core/group.cuh
  for (const std::string& barrier : shim::barriers()) {
    const bool caught =
        std::system(("PYDISTILL_SHIM_DROP=" + barrier + " " + program + " >/dev/null 2>&1").c_str()) != 0;
    std::printf("without the barrier at %s: %s\n", barrier.c_str(), caught ? "caught" : "nothing noticed");
    CHECK(caught);
  }
}

int main(int, char** argv) {
  if (std::getenv("PYDISTILL_SHIM_DROP")) return right_on_the_device() ? 0 : 1;
  check_that_every_barrier_is_needed(argv[0]);
  for (unsigned seed = 0; seed < 12; ++seed)
    check_order_independent([&](const auto& rows) { return all_verbs(rows, random_sizes(seed), seed); });
}
