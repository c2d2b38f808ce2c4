// l = w (1 - m),  m: GIoU, DIoU or CIoU of a predicted box and its target, row by row; the target is a constant.
// CIoU = DIoU - alpha v (pairwise_iou.h), and what the codes take for alpha = v / (1 - IoU + v + eps) and its gradient:
//   Ciou           a constant
//   CiouReleased   differentiated: d(alpha v) = alpha (2 - alpha) dv + alpha^2 dIoU
//   CiouMmdet      a constant, 0 where IoU <= 0.5; CIoU is cut to [-1, 1]
// A row of weight 0 gives 0, whatever its boxes are.
#pragma once
#include "math/pairwise_iou.h"
#include "math/row_sum.h"

namespace pydistill::math {

enum class BoxLoss { Giou, Diou, Ciou, CiouReleased, CiouMmdet };  // the order in pydistill/ops/box_iou_loss.py

template <BoxLoss k> struct BoxLossTag {
  static constexpr BoxLoss value = k;
};

template <BoxLoss k, class A> PD_HD A alpha(const Aspect<A>& aspect) {
  return k == BoxLoss::CiouMmdet && !(aspect.iou > A(0.5)) ? A(0) : aspect.alpha;
}

template <BoxLoss k, class A> PD_HD A overlap(const Box<A>& a, const Box<A>& b, A eps) {
  if constexpr (k == BoxLoss::Giou) return giou(a, b, eps);
  if constexpr (k == BoxLoss::Diou) return diou(a, b, eps);
  const Aspect<A> aspect(seen_by<Measure::Ciou>(a, eps), seen_by<Measure::Ciou>(b, eps), eps);
  const A ciou = diou(a, b, eps) - alpha<k>(aspect) * aspect.v;
  if constexpr (k == BoxLoss::CiouMmdet) return ciou > 1 ? A(1) : at_least(ciou, A(-1));
  return ciou;
}

template <BoxLoss k, class A> PD_HD Box<A> overlap_gradient(const Box<A>& a, const Box<A>& b, A eps) {
  if constexpr (k == BoxLoss::Giou) return gradient<Measure::Giou>(a, b, eps, true);
  if constexpr (k == BoxLoss::Diou) return gradient<Measure::Diou>(a, b, eps, true);
  Slopes<A> s = slopes<Measure::Diou>(a, b, eps, true);
  const Aspect<A> aspect(seen_by<Measure::Ciou>(a, eps), seen_by<Measure::Ciou>(b, eps), eps);
  const A al = alpha<k>(aspect);
  if constexpr (k == BoxLoss::CiouReleased) {
    const A kept = 1 - al * al;
    s.both *= kept, s.area *= kept;
  }
  if constexpr (k == BoxLoss::CiouMmdet) {
    const A ciou = diou(a, b, eps) - al * aspect.v;
    if (ciou > 1 || ciou < -1) return {};
  }
  s.angle = 2 * (k == BoxLoss::CiouReleased ? al * (2 - al) : al) * Aspect<A>::kScale * aspect.difference;
  return corner_gradient(s, a, b, eps);
}

template <class T, class A> struct BoxRows {
  const T *prediction, *target;  // (R, 4)
  const A* weight;               // (R,), or null
  Tiles tiles;
  A eps;

  PD_HD A weight_of(int64_t i) const { return weight ? weight[i] : A(1); }
  template <class Group> PD_HD bool skips(Group g, int64_t tile) const {
    if (!weight) return false;
    return g.max(tiles.count(tile), [w = weight + tiles.first(tile)](int i) { return w[i] == A(0) ? 0 : 1; }) == 0;
  }
};

// One row = a tile of pairs. What a pair of weight 0 gives is replaced, which takes no branch in the loop.
template <BoxLoss k, class T, class A> struct BoxIouLoss {
  BoxRows<T, A> rows;
  A* loss;  // (R,)

  template <class Group> PD_HD void operator()(Group g, int64_t tile) const {
    const int64_t first = rows.tiles.first(tile);
    const int count = rows.tiles.count(tile);
    A* to = loss + first;
    if (rows.skips(g, tile)) return g.each(count, [=](int i) { to[i] = A(0); });
    const auto weight = g.keep(count, [=, *this](int i) { return rows.weight_of(first + i); });
    g.each(count, [=, p = rows.prediction + 4 * first, t = rows.target + 4 * first, eps = rows.eps](int i) {
      const A m = overlap<k>(load_box<A>(p + 4 * i), load_box<A>(t + 4 * i), eps), w = weight(i);
      to[i] = w == A(0) ? A(0) : w * (1 - m);
    });
  }
};

template <BoxLoss k, class T, class A> struct BoxIouLossBackward {
  BoxRows<T, A> rows;
  const A* dloss;   // (R,), or one number
  int64_t stride;   // of dloss, 0 or 1
  const A* factor;  // avg_factor, or null
  T* dprediction;   // (R, 4)
  A scale;

  template <class Group> PD_HD void operator()(Group g, int64_t tile) const {
    const int64_t first = rows.tiles.first(tile);
    const int count = rows.tiles.count(tile);
    T* to = dprediction + 4 * first;
    if (rows.skips(g, tile)) return g.each(4 * count, [=](int i) { to[i] = T(A(0)); });
    const A down = -scale * per_factor(factor);
    const auto upstream =
        g.keep(count, [=, *this](int i) { return rows.weight_of(first + i) * (down * dloss[(first + i) * stride]); });
    g.each(count, [=, p = rows.prediction + 4 * first, t = rows.target + 4 * first, eps = rows.eps](int i) {
      const Box<A> d = overlap_gradient<k>(load_box<A>(p + 4 * i), load_box<A>(t + 4 * i), eps);
      const A up = upstream(i);
      store_box(to + 4 * i, up == A(0) ? Box<A>{} : d * up);
    });
  }
};

}  // namespace pydistill::math
