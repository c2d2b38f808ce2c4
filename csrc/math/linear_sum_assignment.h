// Many assignment problems: which part of its matrix each is, what entries that are not finite mean, and the results.
#pragma once
#include "math/assignment.h"

namespace pydistill::math {

enum class NonFinite { Forbid, Raise, Clamp, FinfoMax };
enum class AssignmentStatus { Ok, Infeasible, Invalid };

PD_HD Replacement replacement(NonFinite policy, double largest) {
  if (policy == NonFinite::Raise) return {INFINITY, INFINITY, -INFINITY};  // as they are: what is left forbids a pair
  return policy == NonFinite::Clamp ? Replacement{100, 100, -100} : Replacement{largest, largest, largest};
}

// The results of one problem; -1 where nobody is matched.
struct AssignmentOutput {
  int64_t *column_of_row, *row_of_column, *status;  // (rows), (columns), (1)
  int rows, columns;
  int first;        // added to the rows in row_of_column
  bool transposed;  // the solver's rows are the columns

  template <class Group, class A> PD_HD void write(const Group& g, const A& a, AssignmentStatus s) const {
    const int* column_of = transposed ? a.state.row_of : a.state.column_of;
    const int* row_of = transposed ? a.state.column_of : a.state.row_of;
    const int known_rows = transposed ? a.columns : a.rows, known_columns = transposed ? a.rows : a.columns;
    g.each(rows, [=, to = column_of_row](int i) { to[i] = i < known_rows ? column_of[i] : -1; });
    g.each(columns, [=, to = row_of_column, start = first](int j) {
      to[j] = j < known_columns && row_of[j] >= 0 ? start + row_of[j] : -1;
    });
    g.once([=, to = status] { *to = int64_t(s); });
  }

  template <class Group> PD_HD void nothing(const Group& g, AssignmentStatus s) const {
    g.each(rows, [to = column_of_row](int i) { to[i] = -1; });
    g.each(columns, [to = row_of_column](int j) { to[j] = -1; });
    g.once([=, to = status] { *to = int64_t(s); });
  }

  template <class Group, class Costs> PD_HD void solve(const Group& g, const Assigner<Costs>& a) const {
    if (!a.solve(g)) return nothing(g, AssignmentStatus::Infeasible);
    write(g, a, AssignmentStatus::Ok);
  }

  // Costs that are Forbidding: what had to be matched and was forbidden is left unmatched.
  template <class Group, class Costs> PD_HD void forbid(const Group& g, const Assigner<Costs>& a) const {
    a.solve(g);
    int forced = 0;
    for (int i = 0; i < a.rows; ++i) {
      a.costs.reread(g, i);
      forced += g.sum(1, [=, s = a.state, c = a.costs.row(i)](int) {
        const int j = s.column_of[i];
        if (c(j).pairs == 0) return 0;
        s.column_of[i] = -1, s.row_of[j] = -1;
        return 1;
      });
    }
    write(g, a, forced > 0 ? AssignmentStatus::Infeasible : AssignmentStatus::Ok);
  }
};

// One row: one problem, group `row % groups` of matrix row / groups; a group is `rows` consecutive rows of the matrix.
template <class T> struct Assignment {
  const T* cost;  // (P, groups * rows, columns)
  int64_t matrix_stride, row_stride, column_stride;
  int groups, rows, columns;
  const int64_t *row_counts, *column_counts;  // null: all; a count serves matrix p % (length)
  int64_t row_counts_length, column_counts_length;
  int64_t *column_of_row, *row_of_column;  // (P, groups * rows), (P, groups, columns)
  int64_t* status;                         // (P, groups)
  NonFinite policy;
  double sign, largest;
  std::byte* workspace;  // null, or `bytes` a problem
  int64_t bytes;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t p = row / groups;
    const int first = int(row % groups) * rows;
    const Matrix<T> m{cost + p * matrix_stride + first * row_stride, count(row_counts, row_counts_length, p, rows),
                      count(column_counts, column_counts_length, p, columns), row_stride, column_stride};
    const AssignmentOutput out{
        column_of_row + row * rows, row_of_column + row * columns, status + row, rows, columns, first,
        m.rows > m.columns};
    const Matrix<T> walk = out.transposed ? m.transposed() : m;
    const Workspace memory{workspace ? workspace + row * bytes : g.template scratch<std::byte>(bytes)};
    if (all_finite(g, walk)) return finite(g, walk, memory, out);
    if (policy == NonFinite::Forbid) return out.forbid(g, assigner(ForbiddingCosts<T>{{}, walk, sign}, memory));
    if (policy == NonFinite::Raise && invalid(g, walk)) return out.nothing(g, AssignmentStatus::Invalid);
    out.solve(g, assigner(StridedCosts<T, Replacement>{{}, walk, sign, replacement(policy, largest)}, memory));
  }

 private:
  PD_HD static int count(const int64_t* counts, int64_t length, int64_t p, int most) {
    if (!counts) return most;
    const int64_t n = counts[p % length];
    return n < 0 ? 0 : n < most ? int(n) : most;
  }

  template <class Group> PD_HD static bool all_finite(const Group& g, Matrix<T> m) {
    if (m.column_stride != 1) m = m.transposed();
    if (m.column_stride == 1)
      return g.sum(Grid{m.rows, m.columns}, [=](int i) { return [p = m.row(i)](int j) { return p[j] - p[j]; }; }) == 0;
    return g.sum(Grid{m.rows, m.columns}, [=](int i) {
      return [p = m.row(i), stride = m.column_stride](int j) { return p[j * stride] - p[j * stride]; };
    }) == 0;
  }

  template <class Group> PD_HD bool invalid(const Group& g, const Matrix<T>& m) const {
    return g.sum(Grid{m.rows, m.columns}, [=, s = sign](int i) {
      return
          [p = m.row(i), stride = m.column_stride, s](int j) { return s * double(p[j * stride]) > -INFINITY ? 0 : 1; };
    }) > 0;
  }

  template <class Group>
  PD_HD void finite(const Group& g, const Matrix<T>& walk, Workspace memory, const AssignmentOutput& out) const {
    if (walk.column_stride == 1) return out.solve(g, assigner(DenseCosts<T>{{}, walk, sign}, memory));
    out.solve(g, assigner(StridedCosts<T, AsTheyAre>{{}, walk, sign, {}}, memory));
  }

  template <class Costs> PD_HD Assigner<Costs> assigner(const Costs& costs, Workspace memory) const {
    const int shorter = rows < columns ? rows : columns, longer = rows < columns ? columns : rows;
    return {costs, costs.matrix.rows, costs.matrix.columns,
            SearchState<typename Costs::Value>(memory, shorter, longer)};
  }
};

}  // namespace pydistill::math
