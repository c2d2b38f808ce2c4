// min over one-to-one x of  sum_i c[i, x(i)],  i over the shorter side.   Crouse 2016, IEEE TAES 52(4), 1679-1696.
// For each row in turn the shortest augmenting path, Dijkstra on the reduced costs c - u - v. A step relaxes all
// columns from one row and closes the nearest. Among equally near columns SciPy's choice: it scans an array that starts
// with the columns in descending order and from which the chosen one is removed by moving the last into its place; an
// unmatched column with the largest position in it wins, else the matched one with the smallest. Columns keep this as a
// sort key:
//   ~position where unmatched (negative), position where matched.
#pragma once
#include <cstddef>
#include <type_traits>

#include "core/group.h"
#include "math/workspace.h"

namespace pydistill::math {

// What the costs of a path add up to: a double or, where pairs are forbidden, their number first, then the double.
// Both are ordered groups, all that the algorithm asks for.
struct Forbidding {
  int pairs;
  double cost;
  Forbidding() = default;
  PD_HD Forbidding(int n, double c) : pairs(n), cost(c) {}
  PD_HD explicit Forbidding(double c) : pairs(c < INFINITY ? 0 : 1 << 29), cost(c) {}
  PD_HD Forbidding operator+(Forbidding b) const { return {pairs + b.pairs, cost + b.cost}; }
  PD_HD Forbidding operator-(Forbidding b) const { return {pairs - b.pairs, cost - b.cost}; }
  PD_HD bool operator==(Forbidding b) const { return pairs == b.pairs && cost == b.cost; }
  PD_HD bool operator<(Forbidding b) const { return pairs < b.pairs || (pairs == b.pairs && cost < b.cost); }
  PD_HD bool operator<=(Forbidding b) const { return !(b < *this); }
};

template <class V> struct Far {  // a distance no path has, and the potential that puts a column farther than that
  PD_HD static V distance() { return V(INFINITY); }
  PD_HD static V potential() {
    if constexpr (std::is_same_v<V, double>)
      return -INFINITY;
    else
      return V(-(1 << 30), 0.0);
  }
};

template <class T> struct Matrix {  // T: float or double
  const T* data;
  int rows, columns;
  int64_t row_stride, column_stride;
  PD_HD Matrix transposed() const { return {data, columns, rows, column_stride, row_stride}; }
  PD_HD const T* row(int i) const { return data + i * row_stride; }
};

PD_HD bool is_finite(double x) { return x - x == 0; }

// How a solver reads its costs: row(i)(j), after read(g, i) for the first time, where false ends the search, and
// reread(g, i) from then on. `sign` is -1 to maximise.
struct InMemory {
  template <class Group> PD_HD static bool read(const Group&, int) { return true; }
  template <class Group> PD_HD static void reread(const Group&, int) {}
};
template <class T> struct DenseCosts : InMemory {
  using Value = double;
  Matrix<T> matrix;  // column_stride 1
  double sign;
  PD_HD auto row(int i) const {
    return [p = matrix.row(i), s = sign](int j) { return s * double(p[j]); };
  }
};
struct AsTheyAre {
  PD_HD double operator()(double x) const { return x; }
};
struct ForbidNonfinite {
  PD_HD Forbidding operator()(double x) const { return is_finite(x) ? Forbidding(0, x) : Forbidding(1, 0.0); }
};
struct Replacement {
  double nan, positive, negative;
  PD_HD double operator()(double x) const { return is_finite(x) ? x : x > 0 ? positive : x < 0 ? negative : nan; }
};
template <class T, class R> struct StridedCosts : InMemory {
  using Value = double;
  Matrix<T> matrix;
  double sign;
  R replacement;
  PD_HD auto row(int i) const {
    return [p = matrix.row(i), stride = matrix.column_stride, s = sign, r = replacement](int j) {
      return s * r(double(p[j * stride]));
    };
  }
};
template <class T> struct ForbiddingCosts : InMemory {
  using Value = Forbidding;
  Matrix<T> matrix;
  double sign;
  PD_HD auto row(int i) const {
    return [p = matrix.row(i), stride = matrix.column_stride, s = sign](int j) {
      return ForbidNonfinite{}(s * double(p[j * stride]));
    };
  }
};

template <class V> struct SearchState {
  V *u, *v;                     // potentials (rows), (columns)
  V* shortest;                  // (columns) length of the shortest path found so far
  int *path, *key, *column_at;  // (columns) row before the column on that path; sort key; column at a scan position
  int *row_of, *column_of;      // the matching: (columns), (rows), -1 where none
  int* closed;                  // (rows) columns in the order in which the search closed them, with
  V *closed_distance, *closed_v;

  PD_HD SearchState(Workspace w, int64_t rows, int64_t columns)
      : u(w.take<V>(rows)),
        v(w.take<V>(columns)),
        shortest(w.take<V>(columns)),
        path(w.take<int>(columns)),
        key(w.take<int>(columns)),
        column_at(w.take<int>(columns)),
        row_of(w.take<int>(columns)),
        column_of(w.take<int>(rows)),
        closed(w.take<int>(rows)),
        closed_distance(w.take<V>(rows)),
        closed_v(w.take<V>(rows)) {}
  static int64_t bytes(int64_t rows, int64_t columns) {
    using W = Workspace;
    return 2 * W::bytes<V>(columns) + 3 * W::bytes<V>(rows) + 4 * W::bytes<int>(columns) + 2 * W::bytes<int>(rows);
  }
};

template <class Costs> struct Assigner {
  using V = typename Costs::Value;
  Costs costs;
  int rows, columns;  // rows <= columns
  SearchState<V> state;

  // False: some row cannot be matched, or was refused.
  template <class Group> PD_HD bool solve(const Group& g) const {
    g.each(columns, [s = state](int j) { s.v[j] = V(0), s.row_of[j] = -1; });
    g.each(rows, [s = state](int i) { s.column_of[i] = -1; });
    for (int row = 0; row < rows; ++row)
      if (!augment(g, row)) return false;
    return true;
  }

 private:
  // From an unmatched row to the nearest unmatched column.
  template <class Group> PD_HD bool augment(const Group& g, int row) const {
    if (!costs.read(g, row)) return false;
    Candidate<V> nearest = start(g, row);
    int closed = 0;
    for (; nearest.value < Far<V>::distance() && matched(nearest); ++closed) {
      if (closed == 0) begin_search(g, row);
      g.once([=, *this] { close(nearest, closed); });
      nearest = relax(g, state.row_of[nearest.index], nearest.value);
    }
    if (!(nearest.value < Far<V>::distance())) return false;
    if (closed > 0) update_potentials(g, nearest.value, closed);
    g.once([=, *this] { flip_path(row, nearest, closed); });
    return true;
  }

  // By its key and not by row_of, which another thread may already be writing.
  PD_HD static bool matched(const Candidate<V>& column) { return column.key >= 0; }

  template <class Group> PD_HD Candidate<V> start(const Group& g, int row) const {
    return g.argmin(columns,
                    [c = costs.row(row), n = columns, v = state.v, d = state.shortest, match = state.row_of](int j) {
                      const V r = c(j) - v[j];
                      d[j] = r;
                      return Candidate<V>{r, match[j] < 0 ? j - n : n - 1 - j};
                    });
  }

  template <class Group> PD_HD void begin_search(const Group& g, int row) const {
    g.each(columns, [=, n = columns, s = state](int j) {
      s.key[j] = s.row_of[j] < 0 ? j - n : n - 1 - j;
      s.column_at[j] = n - 1 - j;
      s.path[j] = row;
    });
  }

  // A closed column stays in the arrays, too far away to be reached or chosen, so that every step reads whole rows.
  PD_HD void close(const Candidate<V>& c, int count) const {
    const int j = c.index, position = state.key[j], last = columns - 1 - count, moved = state.column_at[last];
    state.closed[count] = j, state.closed_distance[count] = c.value, state.closed_v[count] = state.v[j];
    state.shortest[j] = Far<V>::distance(), state.v[j] = Far<V>::potential();
    state.column_at[position] = moved;
    state.key[moved] = state.key[moved] < 0 ? ~position : position;
  }

  template <class Group> PD_HD Candidate<V> relax(const Group& g, int row, V distance) const {
    costs.reread(g, row);
    return g.argmin(columns, [=, c = costs.row(row), u = state.u[row], v = state.v, d = state.shortest,
                              path = state.path, key = state.key](int j) {
      const V r = ((distance + c(j)) - u) - v[j], old = d[j];
      const bool nearer = r < old;
      const V now = nearer ? r : old;
      d[j] = now;
      path[j] = nearer ? row : path[j];
      return Candidate<V>{now, key[j]};
    });
  }

  template <class Group> PD_HD void update_potentials(const Group& g, V distance, int closed) const {
    g.each(closed, [=, s = state](int k) {
      const int j = s.closed[k], i = s.row_of[j];
      const V slack = distance - s.closed_distance[k];
      s.v[j] = s.closed_v[k] - slack;
      s.u[i] = s.u[i] + slack;
    });
  }

  PD_HD void flip_path(int row, const Candidate<V>& end, int closed) const {
    state.u[row] = end.value;
    for (int j = end.index, i = -1; i != row;) {
      i = closed == 0 ? row : state.path[j];
      const int next = state.column_of[i];
      state.row_of[j] = i, state.column_of[i] = j;
      j = next;
    }
  }
};

}  // namespace pydistill::math
