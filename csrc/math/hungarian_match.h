// Queries matched with the targets of their image at the smallest total cost, where each cost is computed when the
// search of math/assignment.h first reads it: its rows are the targets, of which there are fewer than queries.
#pragma once
#include "math/linear_sum_assignment.h"
#include "math/match_pairs.h"

namespace pydistill::math {

// A group's queries in steps that divide the tiles of math/match_cost.h, and so with some before and behind them: in the
// last and shorter step of a loop a compiler may round differently.
struct Steps {
  static constexpr int kStep = 16;
  int first, count, before;  // of the image, with `before` of them ahead of the group's
  PD_HD Steps(int start, int size, int all) : before(start % kStep) {
    first = start - before;
    const int last = (start + size + kStep - 1) / kStep * kStep;
    count = (last < all ? last : all) - first;
  }
  static int64_t most(int64_t size, int64_t all) { return size + 2 * kStep < all ? size + 2 * kStep : all; }
};

// The costs of a group as a solver reads them. Rows are kept where there is memory for all, else computed again.
template <class Tile, class Meaning> struct ComputedCosts {
  using A = typename Tile::A;
  using Value = decltype(Meaning{}(0.0));
  static constexpr bool kForbids = std::is_same_v<Value, Forbidding>;
  Tile tile;
  A* rows;       // (T, tile.count), or one row
  int64_t step;  // tile.count, or 0
  int before, queries;
  bool replaces;  // entries that are not finite; else a row with such an entry is refused
  Replacement replacement;

  template <class Group> PD_HD bool read(const Group& g, int i) const {
    load(g, i);
    if (kForbids || replaces) return true;
    return g.sum(queries, [p = group_row(i)](int j) { return p[j] - p[j]; }) == 0;
  }
  template <class Group> PD_HD void reread(const Group& g, int i) const {
    if (step == 0) load(g, i);
  }
  PD_HD auto row(int i) const {
    return [p = group_row(i)](int j) { return Meaning{}(double(p[j])); };
  }

 private:
  PD_HD A* group_row(int i) const { return rows + i * step + before; }
  template <class Group> PD_HD void load(const Group& g, int i) const {
    tile.write(g, i, 1, rows + i * step, step);
    if (!kForbids && replaces)
      g.each(queries, [p = group_row(i), r = replacement](int j) { p[j] = A(r(double(p[j]))); });
  }
};

// One row: one problem, group `row % groups` of image row / groups.
template <class Pairs> struct HungarianMatch {
  using A = typename Pairs::Value;
  Pairs pairs;
  int queries, groups;                                  // queries of a group
  int width;                                            // Steps::most
  bool keeps;                                           // all rows of costs
  int64_t *target_of_query, *query_of_target, *status;  // (N, groups * Q), (N, groups, T), (N, groups)
  NonFinite policy;
  std::byte* workspace;  // null, or `bytes` a problem
  int64_t bytes;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t n = row / groups;
    const int first = int(row % groups) * queries, known = pairs.known_targets(n), targets = pairs.targets;
    const AssignmentOutput out{
        target_of_query + row * queries, query_of_target + row * targets, status + row, queries, targets, first, true};
    Workspace memory{workspace ? workspace + row * bytes : g.template scratch<std::byte>(bytes)};
    A* rows = memory.take<A>(int64_t(keeps ? targets : 1) * width);
    const Steps steps(first, queries, queries * groups);
    const auto tile = pairs.tile(g, memory, n, n * groups * queries + steps.first, steps.count);
    const Replacement instead = replacement(policy, double(std::numeric_limits<A>::max()));
    const auto search = [&](auto meaning, bool replaces) {
      using Costs = ComputedCosts<std::remove_cvref_t<decltype(tile)>, decltype(meaning)>;
      return Assigner<Costs>{{tile, rows, keeps ? steps.count : 0, steps.before, queries, replaces, instead},
                             known,
                             queries,
                             SearchState<typename Costs::Value>(memory, targets, queries)};
    };
    for (int attempt = 0; attempt < 2; ++attempt) {
      const auto s = search(AsTheyAre{}, attempt > 0);
      if (s.solve(g)) return out.write(g, s, AssignmentStatus::Ok);
      if (attempt > 0) return out.nothing(g, AssignmentStatus::Infeasible);
      if (policy == NonFinite::Forbid) break;
      if (policy == NonFinite::Raise && invalid(g, s)) return out.nothing(g, AssignmentStatus::Invalid);
    }
    out.forbid(g, search(ForbidNonfinite{}, false));
  }

 private:
  template <class Group, class Search> PD_HD static bool invalid(const Group& g, const Search& s) {
    int found = 0;
    for (int i = 0; i < s.rows; ++i) {
      s.costs.read(g, i);
      found += g.sum(s.columns, [c = s.costs.row(i)](int j) { return c(j) > -INFINITY ? 0 : 1; });
    }
    return found > 0;
  }
};

}  // namespace pydistill::math
