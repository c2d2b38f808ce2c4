// Many assignment problems: which part of its matrix each is, what entries that are not finite mean, and the results.
#pragma once
#include "math/assignment.h"

namespace pydistill::math {

enum class NonFinite { Forbid, Raise, Clamp, FinfoMax };
enum class AssignmentStatus { Ok, Infeasible, Invalid };

// One row: one problem, group `row % groups` of matrix row / groups; a group is `rows` consecutive rows of the matrix.
template <class T> struct Assignment {
  const T* cost;  // (P, groups * rows, columns)
  int64_t matrix_stride, row_stride, column_stride;
  int groups, rows, columns;
  const int64_t *row_counts, *column_counts;  // null: all; a count serves matrix p % (length)
  int64_t row_counts_length, column_counts_length;
  int64_t *column_of_row, *row_of_column;  // (P, groups * rows), (P, groups, columns); -1 where none
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
    const Output out{column_of_row + row * rows, row_of_column + row * columns, status + row, first,
                     m.rows > m.columns};
    const Matrix<T> walk = out.transposed ? m.transposed() : m;
    if (all_finite(g, walk)) return finite(g, row, walk, out);
    if (policy == NonFinite::Forbid) return forbid(g, row, walk, out);
    if (policy == NonFinite::Raise && invalid(g, walk)) return nothing(g, out, AssignmentStatus::Invalid);
    run(g, row, StridedCosts<T, Replacement>{walk, sign, replacement()}, out);
  }

 private:
  struct Output {
    int64_t *column_of_row, *row_of_column, *status;
    int first;  // row of the matrix that the group starts with
    bool transposed;
  };

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
  PD_HD void finite(const Group& g, int64_t row, const Matrix<T>& walk, const Output& out) const {
    if (walk.column_stride == 1) return run(g, row, DenseCosts<T>{walk, sign}, out);
    run(g, row, StridedCosts<T, AsTheyAre>{walk, sign, {}}, out);
  }

  PD_HD Replacement replacement() const {
    if (policy == NonFinite::Raise) return {INFINITY, INFINITY, -INFINITY};  // as they are: what is left forbids a pair
    return policy == NonFinite::Clamp ? Replacement{100, 100, -100} : Replacement{largest, largest, largest};
  }

  template <class Costs, class Group>
  PD_HD Assigner<Costs> assigner(const Group& g, int64_t row, const Costs& costs) const {
    const int shorter = rows < columns ? rows : columns, longer = rows < columns ? columns : rows;
    const Workspace<Group> memory{g, workspace ? workspace + row * bytes : nullptr};
    return {costs, costs.matrix.rows, costs.matrix.columns,
            SearchState<typename Costs::Value>(memory, shorter, longer)};
  }

  template <class Costs, class Group>
  PD_HD void run(const Group& g, int64_t row, const Costs& costs, const Output& out) const {
    const auto a = assigner(g, row, costs);
    if (!a.solve(g)) return nothing(g, out, AssignmentStatus::Infeasible);
    write(g, out, a, AssignmentStatus::Ok);
  }

  template <class Group>
  PD_HD void forbid(const Group& g, int64_t row, const Matrix<T>& walk, const Output& out) const {
    const ForbiddingCosts<T> costs{walk, sign};
    const auto a = assigner(g, row, costs);
    a.solve(g);
    const int forced = g.sum(a.rows, [=, s = a.state](int i) {
      const int j = s.column_of[i];
      if (!costs.forbidden(i, j)) return 0;
      s.column_of[i] = -1, s.row_of[j] = -1;
      return 1;
    });
    write(g, out, a, forced > 0 ? AssignmentStatus::Infeasible : AssignmentStatus::Ok);
  }

  template <class Group, class A>
  PD_HD void write(const Group& g, const Output& out, const A& a, AssignmentStatus s) const {
    const int* column_of = out.transposed ? a.state.row_of : a.state.column_of;
    const int* row_of = out.transposed ? a.state.column_of : a.state.row_of;
    const int known_rows = out.transposed ? a.columns : a.rows, known_columns = out.transposed ? a.rows : a.columns;
    g.each(rows, [=](int i) { out.column_of_row[i] = i < known_rows ? column_of[i] : -1; });
    g.each(columns,
           [=](int j) { out.row_of_column[j] = j < known_columns && row_of[j] >= 0 ? out.first + row_of[j] : -1; });
    g.once([=] { *out.status = int64_t(s); });
  }

  template <class Group> PD_HD void nothing(const Group& g, const Output& out, AssignmentStatus s) const {
    g.each(rows, [=](int i) { out.column_of_row[i] = -1; });
    g.each(columns, [=](int j) { out.row_of_column[j] = -1; });
    g.once([=] { *out.status = int64_t(s); });
  }
};

}  // namespace pydistill::math
