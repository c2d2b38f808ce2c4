// l = 1 / K^2 sum_b |R^s_b - R^t_b|^q / (N + eps),  P_b: the map at the K points of box b (math/keypoint_cells.h), Q = P P^T
//   cosine:  R_kl = a_k a_l Q_kl,  a_k = 1 / (sqrt(Q_kk) + eps)          rows:  R_kl = a_k Q_kl,  a_k = 1 / |Q_k|
// With E = the derivative of |.|^q at R^s - R^t, over K^2, and m_k = sum_l E_kl R_kl the gradient of P is M P:
//   cosine:  M_kl = 2 a_k a_l E_kl, on the diagonal less 2 a_k m_k / sqrt(Q_kk)
//   rows:    M = F + F^T,  F_kl = a_k (E_kl - R_kl m_k)
#pragma once
#include "math/keypoint_box.h"

namespace pydistill::math {

// The relations of the K points of one box, from Q.
template <class A> struct Relations {
  const A* gram;     // (K, K): Q
  const A* inverse;  // (K,): a
  int count;
  bool cosine;

  PD_HD A operator()(int k, int l) const {
    const A r = gram[k * count + l] * inverse[k];
    return cosine ? r * inverse[l] : r;
  }
  template <class Group> PD_HD static void fill(Group g, const A* gram, int count, bool cosine, A eps, A* inverse) {
    if (cosine)
      return g.each(count, [=](int k) {
        const A by = std::sqrt(gram[k * count + k]) + eps;
        inverse[k] = by == A(0) ? A(0) : A(1) / by;
      });
    g.row_sums(Grid{count, count}, inverse,
               [=](int k) { return [q = gram + k * count](int l) { return q[l] * q[l]; }; });
    g.each(count, [=](int k) { inverse[k] = inverse[k] == A(0) ? A(0) : A(1) / std::sqrt(inverse[k]); });
  }
};

// One row = one box of all B * M.
template <class S, class U, class A> struct KeypointRelationLoss {
  KeypointRows<A> rows;
  FeatureMap<const S> student;
  FeatureMap<const U> teacher;
  AbsoluteOrSquare norm;
  const A* used;  // (B, M)
  A* gram;        // (B, M, 2, K, K): Q of the student; of the teacher, at last E
  A* pull;        // (B, M, K, K): M
  A* loss;        // (B, M)
  int boxes, slots, count, channels, chunk;
  bool cosine;
  A eps;

  PD_HD static int64_t bytes(int count, int chunk) {
    return 2 * scratch_bytes<A>(int64_t(count) * chunk) + 3 * scratch_bytes<A>(count);
  }
  template <class Group> PD_HD void operator()(Group g, int64_t box) const {
    A* m = pull + box * count * count;
    if (used[box] == A(0)) {
      g.once([=, *this] { loss[box] = A(0); });
      return g.each(count * count, [=](int i) { m[i] = A(0); });
    }
    A *p = g.template scratch<A>(int64_t(count) * chunk), *q = g.template scratch<A>(int64_t(count) * chunk);
    A *as = g.template scratch<A>(count), *at = g.template scratch<A>(count), *mass = g.template scratch<A>(count);
    A *gs = gram + 2 * box * count * count, *gt = gs + count * count;
    const int64_t image = box / boxes;
    const KeypointBox<A> points{rows, image * slots * count + box % boxes * count, count};
    const auto one = [](int) { return A(1); };
    for (int from = 0; from == 0 || from < channels; from += chunk) {  // of no channels all products are 0
      const int width = channels - from < chunk ? channels - from : chunk;
      points.sample(g, student.at(image, 0) + from * student.channel, student, width, p);
      points.sample(g, teacher.at(image, 0) + from * teacher.channel, teacher, width, q);
      points.add_products(g, p, p, width, from == 0, gs, one);
      points.add_products(g, q, q, width, from == 0, gt, one);
    }
    Relations<A>::fill(g, gs, count, cosine, eps, as);
    Relations<A>::fill(g, gt, count, cosine, eps, at);
    const Relations<A> rs{gs, as, count, cosine}, rt{gt, at, count, cosine};
    const A per = count > 0 ? A(1) / (A(count) * A(count)) : A(0);
    // A product fused with the subtraction would leave its rounding where the two are equal, with a sign and a slope.
    const auto apart = [=](int k, int l) {
      const A s = rs(k, l), t = rt(k, l);
      return s == t ? A(0) : s - t;
    };
    const A total =
        g.sum(Grid{count, count}, [=, norm = norm](int k) { return [=](int l) { return norm(apart(k, l)); }; });
    g.put(loss, box, total * per);
    // Once: where R^s is R^t but for rounding, a slope taken again may have the other sign.
    g.each(Grid{count, count}, [=, norm = norm, n = count](int k) {
      return [=](int l) { gt[k * n + l] = per * norm.slope(apart(k, l)); };
    });
    const auto e = [=, n = count](int k, int l) { return gt[k * n + l]; };
    g.row_sums(Grid{count, count}, mass, [=](int k) { return [=](int l) { return e(k, l) * rs(k, l); }; });
    g.each(Grid{count, count}, [=, n = count, cosine = cosine](int k) {
      return [=](int l) {
        if (cosine) {
          const A length = std::sqrt(gs[k * n + k]);
          const A along = k == l && length > A(0) ? 2 * as[k] * mass[k] / length : A(0);
          m[k * n + l] = 2 * as[k] * as[l] * e(k, l) - along;
        } else {
          m[k * n + l] = as[k] * (e(k, l) - rs(k, l) * mass[k]) + as[l] * (e(l, k) - rs(l, k) * mass[l]);
        }
      };
    });
  }
};

// The slopes of the points of a box: M P.
template <class S, class A> struct PointPull {
  FeatureMap<const S> student;
  const A* pull;  // (B, M, K, K)

  template <class Group>
  PD_HD void operator()(Group g, const KeypointBox<A>& points, int64_t row, int64_t box, int start, A* p,
                        A* slope) const {
    const int width = points.rows.blocks.count(row), area = points.count * points.count;
    points.sample(g, points.rows.channels(student, row), student, width, p);
    points.add_slopes(g, p, width, start, false, slope, [m = pull + box * area](int, int i) { return m[i]; });
  }
};

// dstudent comes as zeros.
template <class S, class A, class Pull> struct KeypointRelationBackward {
  KeypointRows<A> rows;
  Pull pull;
  KeypointOwners<A> owners;
  const A *dloss, *factor;
  FeatureMap<S> dstudent;
  int boxes, per_group, count;  // per_group: boxes of a group

  PD_HD static int64_t bytes(int points, int count, int channels) {
    return KeypointRows<A>::bytes(points, channels) + KeypointRows<A>::bytes(count, channels);
  }
  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int width = rows.blocks.count(row), n = count;
    const int64_t image = rows.blocks.image(row);
    const A upstream = *dloss * *factor;
    A *slope = g.template scratch<A>(int64_t(rows.points) * width), *p = g.template scratch<A>(int64_t(n) * width);
    for (int group = 0; group < rows.groups; ++group) {
      for (int box = 0; box < per_group; ++box) {
        const int64_t of = int64_t(group) * per_group + box;
        const int start = box * n;
        if (of < boxes)
          pull(g, KeypointBox<A>{rows, rows.first(row, group) + start, n}, row, image * boxes + of, start, p, slope);
        else
          rows.each(g, start, n, width, [=, rows = rows](int k, int c) { slope[rows.at(k, c, width)] = A(0); });
      }
      owners.add(g, rows, row, group, slope, upstream, dstudent);
    }
  }
};

}  // namespace pydistill::math
