// All costs of a batch of images in memory: those of math/match_pairs.h + extra(q, t), what matrix products gave, the
// terms of masks. A target beyond the image's count costs infinity.
#pragma once
#include "math/match_pairs.h"

namespace pydistill::math {

// One row: a tile of queries against all targets of its image.
template <class Pairs> struct MatchCost {
  using A = typename Pairs::Value;
  Pairs pairs;
  const A* extra;  // (N, T, Q), or null
  A* cost;         // (N, T, Q)
  Tiles tiles;
  int64_t bytes;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t n = tiles.image(row), first = tiles.first(row), queries = tiles.total;
    const int count = tiles.count(row), known = pairs.known_targets(n), targets = pairs.targets;
    Workspace memory{g.template scratch<std::byte>(bytes)};
    const int64_t origin = n * targets * queries + first;
    A* out = cost + origin;
    pairs.tile(g, memory, n, n * queries + first, count).write(g, 0, known, out, queries);
    if (extra) add_extra(g, Grid{known, count}, extra + origin, out);
    g.each(Grid{targets - known, count},
           [=](int t) { return [to = out + (known + t) * queries](int i) { to[i] = A(INFINITY); }; });
  }

 private:
  // What is infinite stays so, whatever extra is.
  template <class Group> PD_HD void add_extra(const Group& g, Grid cells, const A* from, A* out) const {
    g.each(cells, [=, stride = int64_t(tiles.total)](int t) {
      return
          [to = out + t * stride, more = from + t * stride](int i) { to[i] += to[i] == A(INFINITY) ? A(0) : more[i]; };
    });
  }
};

}  // namespace pydistill::math
