// l = w (1 - m),  m: GIoU, DIoU or CIoU of a predicted box and its target, row by row; the target is a constant.
// CIoU = DIoU - alpha v (pairwise_iou.h), and what the codes take for alpha = v / (1 - IoU + v + eps) and its gradient:
//   Ciou           a constant
//   CiouReleased   differentiated: d(alpha v) = alpha (2 - alpha) dv + alpha^2 dIoU
//   CiouMmdet      a constant, 0 where IoU <= 0.5; CIoU is cut to [-1, 1]
// A row of weight 0 is not read.
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
  const Aspect<A> aspect(a, b, eps);
  const A ciou = diou(a, b, eps) - alpha<k>(aspect) * aspect.v;
  if constexpr (k == BoxLoss::CiouMmdet) return ciou > 1 ? A(1) : at_least(ciou, A(-1));
  return ciou;
}

template <BoxLoss k, class A> PD_HD Box<A> overlap_gradient(const Box<A>& a, const Box<A>& b, A eps) {
  if constexpr (k == BoxLoss::Giou) return gradient<Measure::Giou>(a, b, eps, true);
  if constexpr (k == BoxLoss::Diou) return gradient<Measure::Diou>(a, b, eps, true);
  Slopes<A> s = slopes<Measure::Diou>(a, b, eps);
  const Aspect<A> aspect(a, b, eps);
  const A al = alpha<k>(aspect);
  if constexpr (k == BoxLoss::CiouReleased) {
    const A kept = 1 - al * al;
    s.both *= kept, s.own_area *= kept, s.other_area *= kept;
  }
  if constexpr (k == BoxLoss::CiouMmdet) {
    const A ciou = diou(a, b, eps) - al * aspect.v;
    if (ciou > 1 || ciou < -1) return {};
  }
  s.own_angle = 2 * (k == BoxLoss::CiouReleased ? al * (2 - al) : al) * Aspect<A>::kScale * aspect.difference;
  return corner_gradient(s, a, b, eps);
}

template <class T, class A> struct BoxRows {
  const T *prediction, *target;  // (R, 4)
  const A* weight;               // (R,), or null
  Tiles tiles;
  A eps;

  PD_HD bool skips(int64_t i) const { return weight && weight[i] == A(0); }
  PD_HD A weigh(int64_t i, A x) const { return weight ? weight[i] * x : x; }
};

// One row = a tile of pairs.
template <BoxLoss k, class T, class A> struct BoxIouLoss {
  BoxRows<T, A> rows;
  A* loss;  // (R,)

  template <class Group> PD_HD void operator()(Group g, int64_t tile) const {
    const int64_t first = rows.tiles.first(tile);
    g.each(rows.tiles.count(tile), [=, *this](int at) {
      const int64_t i = first + at;
      if (rows.skips(i)) return void(loss[i] = A(0));
      const Box<A> own = load_box<A>(rows.prediction + 4 * i), other = load_box<A>(rows.target + 4 * i);
      loss[i] = rows.weigh(i, 1 - overlap<k>(own, other, rows.eps));
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
    const A down = -scale * per_factor(factor);
    g.each(rows.tiles.count(tile), [=, *this](int at) {
      const int64_t i = first + at;
      Box<A> d{};
      if (!rows.skips(i)) {
        const Box<A> own = load_box<A>(rows.prediction + 4 * i), other = load_box<A>(rows.target + 4 * i);
        d = overlap_gradient<k>(own, other, rows.eps) * rows.weigh(i, down * dloss[i * stride]);
      }
      store_box(dprediction + 4 * i, d);
    });
  }
};

}  // namespace pydistill::math
