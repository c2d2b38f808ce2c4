// Host side of pairwise_iou, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "core/check.h"
#include "core/launch.h"
#include "math/pairwise_iou.h"

namespace pydistill {

namespace overlap {

inline void check_boxes(const char* op, const TensorView& a, const TensorView& b, bool aligned) {
  check::rank(op, "a of shape (A, 4)", a, 2);
  check::that(a.size(1) == 4, op, "a of shape (A, 4)", a);
  check::that(b.ndim == 2 && b.size(1) == 4, op, aligned ? "b of shape (A, 4)" : "b of shape (G, 4)", b);
  check::that(!aligned || a.size(0) == b.size(0), op, "as many boxes in b as in a", b);
  check::that(a.size(0) < std::numeric_limits<int>::max() && b.size(0) < std::numeric_limits<int>::max(), op,
              "fewer than 2^31 boxes", a);
  check::buffer(op, "b", b, {b.size(0), 4}, a.kind(), a);
  check::buffer(op, "a", a, {a.size(0), 4}, a.kind(), a);
}

// The shape of what is computed, (A,) or (A, G).
inline void check_pairs(const char* op, const char* name, const TensorView& t, const TensorView& a, const TensorView& b,
                        bool aligned, ScalarKind kind) {
  if (aligned) return check::buffer(op, name, t, {a.size(0)}, kind, a);
  check::buffer(op, name, t, {a.size(0), b.size(0)}, kind, a);
}

template <class F> void with_measure(const char* op, int64_t mode, F f) {
  using math::Measure;
  switch (Measure(mode)) {
    case Measure::Iou: return f(math::MeasureTag<Measure::Iou>{});
    case Measure::Iof: return f(math::MeasureTag<Measure::Iof>{});
    case Measure::Giou: return f(math::MeasureTag<Measure::Giou>{});
    case Measure::Diou: return f(math::MeasureTag<Measure::Diou>{});
    case Measure::Ciou: return f(math::MeasureTag<Measure::Ciou>{});
    case Measure::DiouReleased: return f(math::MeasureTag<Measure::DiouReleased>{});
  }
  check::that(false, op, "a mode below 6", mode);
}

}  // namespace overlap

template <class Device>
void pairwise_iou(const Context& context, const TensorView& a, const TensorView& b, int64_t mode, bool aligned,
                  double eps, const TensorView& out) {
  constexpr auto op = "pairwise_iou";
  overlap::check_boxes(op, a, b, aligned);
  check::that(eps >= 0, op, "eps >= 0", eps);
  const int64_t n = a.size(0);
  const int columns = int(b.size(0));
  with_boxes(op, a, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    overlap::check_pairs(op, "out", out, a, b, aligned, kind_of<A>);
    if (out.numel() == 0) return;
    overlap::with_measure(op, mode, [&](auto measure) {
      constexpr auto m = decltype(measure)::value;
      const math::Tiles tiles =
          aligned ? math::Tiles{n, Device::kPixels} : math::bands(Grid{int(n), columns}, Device::kPixels);
      const int64_t cost = int64_t(tiles.size) * (aligned ? 1 : columns) * 8;
      if (aligned)
        Device::rows(context, tiles.per_image(), cost,
                     math::AlignedIou<m, T, A>{a.ptr<T>(), b.ptr<T>(), out.ptr<A>(), tiles, A(eps)});
      else
        Device::rows(context, tiles.per_image(), cost,
                     math::PairwiseIou<m, T, A>{a.ptr<T>(), b.ptr<T>(), out.ptr<A>(), columns, tiles, A(eps)});
    });
  });
}

template <class Device>
void pairwise_iou_backward(const Context& context, const TensorView& grad, const TensorView& a, const TensorView& b,
                           int64_t mode, bool aligned, double eps, const TensorView& da, const TensorView& db) {
  constexpr auto op = "pairwise_iou_backward";
  overlap::check_boxes(op, a, b, aligned);
  const int64_t n = a.size(0), columns = b.size(0);
  with_boxes(op, a, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    overlap::check_pairs(op, "grad", grad, a, b, aligned, kind_of<A>);
    check::buffer(op, "da", da, {n, 4}, kind_of<T>, a);
    check::buffer(op, "db", db, {columns, 4}, kind_of<T>, a);
    const T *pa = a.ptr<T>(), *pb = b.ptr<T>();
    const A* g = grad.ptr<A>();
    overlap::with_measure(op, mode, [&](auto measure) {
      constexpr auto m = decltype(measure)::value;
      if (aligned) {
        const math::Tiles tiles{n, Device::kPixels};
        return Device::rows(context, tiles.per_image(), tiles.size * 16,
                            math::AlignedIouBackward<m, T, A>{pa, pb, g, da.ptr<T>(), db.ptr<T>(), tiles, A(eps)});
      }
      using Body = math::PairwiseIouBackward<m, T, A>;
      Device::short_rows(context, n, int(columns),
                         Body{pa, pb, g, da.ptr<T>(), columns, 1, int(columns), A(eps), true});
      Device::short_rows(context, columns, int(n), Body{pb, pa, g, db.ptr<T>(), 1, columns, int(n), A(eps), false});
    });
  });
}

}  // namespace pydistill
