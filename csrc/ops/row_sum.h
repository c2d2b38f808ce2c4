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

// rows: (R,) one loss per row; total: () = scale sum rows / avg_factor, or None, and then there is nothing to do;
// partial: (ceil(R / 4096),) scratch where R > 4096; avg_factor: () or None.
template <class Device, class A>
void sum(const Context& context, const char* op, const TensorView& rows, const TensorView& partial,
         const TensorView& total, const TensorView& avg_factor, double scale) {
  using Tiles = math::SumTiles<A>;
  if (!total.present()) return;
  const int64_t n = rows.numel(), tiles = (n + kTile - 1) / kTile;
  const A* loss = rows.ptr<A>();
  check::buffer(op, "total", total, {}, kind_of<A>, rows);
  const A* factor = row_sum::factor<A>(op, avg_factor, rows);
  if (tiles <= 1) return Device::rows(context, 1, n, Tiles{loss, total.ptr<A>(), n, int(n), A(scale), factor});
  check::buffer(op, "partial", partial, {tiles}, kind_of<A>, rows);
  A* sums = partial.ptr<A>();
  Device::rows(context, tiles, kTile, Tiles{loss, sums, n, kTile, A(1), nullptr});
  Device::rows(context, 1, tiles, Tiles{sums, total.ptr<A>(), tiles, int(tiles), A(scale), factor});
}

}  // namespace pydistill::row_sum
