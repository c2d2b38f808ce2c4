// linear_sum_assignment: host side.
#pragma once
#include <algorithm>

#include "core/check.h"
#include "core/launch.h"
#include "math/linear_sum_assignment.h"

namespace pydistill {

namespace assignment {

template <class F> void with_cost(const char* op, const TensorView& t, F f) {
  if (t.kind() == ScalarKind::Float64) return f(Tag<double>{});
  check::kind(op, "cost", t, ScalarKind::Float32);
  f(Tag<float>{});
}

inline int64_t problem_bytes(int64_t rows, int64_t columns, bool forbid) {
  const int64_t shorter = std::min(rows, columns), longer = std::max(rows, columns);
  return forbid ? math::SearchState<math::Forbidding>::bytes(shorter, longer)
                : math::SearchState<double>::bytes(shorter, longer);
}

inline math::NonFinite policy_of(const char* op, int64_t k) {
  check::that(k >= 0 && k <= int64_t(math::NonFinite::FinfoMax), op, "a policy below 4", k);
  return static_cast<math::NonFinite>(k);
}

inline void counts(const char* op, const char* name, const TensorView& t, const TensorView& cost) {
  if (!t.present()) return;
  check::rank(op, (std::string(name) + " of shape (P,)").c_str(), t, 1);
  check::buffer(op, name, t, {t.size(0)}, ScalarKind::Int64, cost);
  if (t.size(0) == 0 ? cost.size(0) > 0 : cost.size(0) % t.size(0) != 0)
    check::that(false, op, (std::string(name) + " of one entry a problem").c_str(), t);
}

}  // namespace assignment

// Bytes of workspace for one problem that the caller must bring; 0 where the device's own scratch is enough.
template <class Device> int64_t linear_sum_assignment_workspace(int64_t rows, int64_t columns, bool forbid) {
  const int64_t bytes = assignment::problem_bytes(rows, columns, forbid);
  return bytes > Device::kSharedBytes ? bytes : 0;
}

// cost (P, groups * R, C), any strides; largest: what FinfoMax makes of entries that are not finite;
// rows, columns (P,) or a length that divides P, or None;
// column_of_row (P, groups * R), row_of_column (P * groups, C), status (P * groups).
template <class Device>
void linear_sum_assignment(const Context& context, const TensorView& cost, const TensorView& rows,
                           const TensorView& columns, bool maximize, int64_t nonfinite, double largest, int64_t groups,
                           const TensorView& workspace, const TensorView& column_of_row,
                           const TensorView& row_of_column, const TensorView& status) {
  constexpr auto op = "linear_sum_assignment";
  constexpr int64_t kMost = 1 << 28;  // a count of forbidden pairs, and a key, is an int
  check::rank(op, "cost of shape (P, R, C)", cost, 3);
  const int64_t p = cost.size(0), r = cost.size(1), c = cost.size(2);
  check::that(r < kMost && c < kMost, op, "fewer than 2^28 rows and columns", cost);
  check::that(groups > 0 && r % groups == 0, op, "groups that divide the rows", groups);
  assignment::counts(op, "rows", rows, cost);
  assignment::counts(op, "columns", columns, cost);
  check::buffer(op, "column_of_row", column_of_row, {p, r}, ScalarKind::Int64, cost);
  check::buffer(op, "row_of_column", row_of_column, {p * groups, c}, ScalarKind::Int64, cost);
  check::buffer(op, "status", status, {p * groups}, ScalarKind::Int64, cost);
  const math::NonFinite policy = assignment::policy_of(op, nonfinite);
  const int64_t n = p * groups, m = r / groups, longer = std::max(m, c), shorter = std::min(m, c);
  const int64_t bytes = assignment::problem_bytes(m, c, policy == math::NonFinite::Forbid);
  const bool own = bytes <= Device::kSharedBytes;
  if (!own) check::buffer(op, "workspace", workspace, {n, bytes}, ScalarKind::Uint8, cost);
  assignment::with_cost(op, cost, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const math::Assignment<T> body{cost.ptr<T>(),
                                   cost.stride(0),
                                   cost.stride(1),
                                   cost.stride(2),
                                   int(groups),
                                   int(m),
                                   int(c),
                                   rows.ptr<int64_t>(),
                                   columns.ptr<int64_t>(),
                                   rows.present() ? rows.size(0) : 1,
                                   columns.present() ? columns.size(0) : 1,
                                   column_of_row.ptr<int64_t>(),
                                   row_of_column.ptr<int64_t>(),
                                   status.ptr<int64_t>(),
                                   policy,
                                   maximize ? -1.0 : 1.0,
                                   largest,
                                   own ? nullptr : workspace.ptr<std::byte>(),
                                   bytes};
    if (longer <= 128 && bytes <= Device::kWarpBytes) return Device::warp_rows(context, n, longer, body, bytes);
    Device::rows(context, n, 2 * shorter * longer, body, own ? bytes : 0);
  });
}

}  // namespace pydistill
