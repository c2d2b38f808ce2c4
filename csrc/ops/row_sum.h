// Host side of what every loss of rows shares: its avg_factor, and the sum of its rows. pydistill/ops/_reduction.py
// allocates and names the arguments.
#pragma once
#include "core/check.h"
#include "core/launch.h"
#include "math/row_sum.h"

namespace pydistill::row_sum {

constexpr int kTile = 4096;  // losses that are summed in one go

template <class A> const A* factor(const char* op, const TensorView& t, const TensorView& like) {
  if (t.present()) check::buffer(op, "avg_factor", t, {}, kind_of<A>, like);
  return t.ptr<A>();
}

// One element per row of `like`, of any strides.
template <class A>
Rows<const A> per_row(const char* op, const char* name, const TensorView& t, int64_t rows, const TensorView& like) {
  check::kind(op, name, t, kind_of<A>);
  check::that(t.numel() == rows && check::same_device(t, like), op, name, t);
  return rows_of<const A>(op, t, -1);
}

// The upstream gradient: one per row, or the same for all.
template <class A> Rows<const A> dloss(const char* op, const TensorView& t, int64_t rows, const TensorView& like) {
  return per_row<A>(op, "dloss of one number, or one per row", t, t.numel() == 1 ? 1 : rows, like);
}

// rows: (R,) one loss per row; total: () = scale sum rows / avg_factor, or None, and then there is nothing to do;
// partial: (ceil(R / 4096),) scratch where R > 4096; avg_factor: () or None.
// Checks; the result, called with a context once the rows are written, adds them up.
template <class Device, class A>
auto sum(const char* op, const TensorView& rows, const TensorView& partial, const TensorView& total,
         const TensorView& avg_factor, double scale) {
  using Tiles = math::SumTiles<A>;
  const bool wanted = total.present();
  const int64_t n = rows.numel(), tiles = (n + kTile - 1) / kTile;
  if (wanted) check::buffer(op, "total", total, {}, kind_of<A>, rows);
  if (wanted && tiles > 1) check::buffer(op, "partial", partial, {tiles}, kind_of<A>, rows);
  const A *loss = rows.ptr<A>(), *factor = row_sum::factor<A>(op, avg_factor, rows);
  return [=, sums = partial.ptr<A>(), out = total.ptr<A>()](const Context& context) {
    if (!wanted) return;
    if (tiles <= 1) return Device::rows(context, 1, n, Tiles{loss, out, n, int(n), A(scale), factor});
    Device::rows(context, tiles, kTile, Tiles{loss, sums, n, kTile, A(1), nullptr});
    Device::rows(context, 1, tiles, Tiles{sums, out, tiles, int(tiles), A(scale), factor});
  };
}

}  // namespace pydistill::row_sum
