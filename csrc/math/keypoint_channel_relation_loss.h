// l = 1 / C^2 sum_b |R^s_b - R^t_b|^2 / (N + eps),  R_ij = G_ij / |G_i|,  G_b = P^T P,  P_b (K, C): the map at the K points
// of box b (math/keypoint_cells.h). Of the student's p_i and the teacher's t_i, channel i at the points, with
//   Q = P P^T,  X = P^s P^t^T,  q_i = |G^s_i|^2 = p_i^T Q^s p_i,  r_i = |G^t_i|^2 = t_i^T Q^t t_i,  n_i = p_i^T X t_i
// it is 1 / C^2 sum_i (1 - n_i / sqrt(q_i r_i)) 2, where q_i and r_i are not 0. With f_i = 2 dl / dq_i and g_i = dl / dn_i
//   dp_i = (f_i Q^s + sum_j f_j p_j p_j^T) p_i + (g_i X + sum_j g_j p_j t_j^T) t_i
// Where the maps are alike the difference is small and its terms are not: products, forms and costs are float64.
#pragma once
#include "math/keypoint_box.h"

namespace pydistill::math {

// One row = one box of all B * M.
template <class S, class U, class A> struct KeypointChannelRelationLoss {
  KeypointRows<A> rows;
  FeatureMap<const S> student;
  FeatureMap<const U> teacher;
  const A* used;  // (B, M)
  double* gram;   // (B, M, 3, K, K): Q^s, X, Q^t
  A* pull;        // (B, M, 4, K, K): Q^s, sum f p p^T, X, sum g p t^T
  A* slope;       // (B, M, 2, C): f, g
  A* loss;        // (B, M)
  int boxes, slots, count, channels, chunk;

  PD_HD static int64_t bytes(int count, int chunk) {
    const int64_t n = int64_t(count) * chunk;
    return 2 * scratch_bytes<A>(n) + scratch_bytes<double>(n) + 3 * scratch_bytes<double>(chunk);
  }
  template <class Group> PD_HD void operator()(Group g, int64_t box) const {
    const int area = count * count;
    A *kept = pull + box * 4 * area, *f = slope + box * 2 * channels;
    if (used[box] == A(0)) {
      g.once([=, *this] { loss[box] = A(0); });
      g.each(2 * channels, [=](int i) { f[i] = A(0); });
      return g.each(4 * area, [=](int i) { kept[i] = A(0); });
    }
    const int64_t n = int64_t(count) * chunk, image = box / boxes;
    const KeypointBox<A> points{rows, image * slots * count + box % boxes * count, count};
    A *p = g.template scratch<A>(n), *t = g.template scratch<A>(n);
    double *products = g.template scratch<double>(n), *forms[3];
    for (double*& form : forms) form = g.template scratch<double>(chunk);
    double *qs = gram + box * 3 * area, *x = qs + area, *qt = x + area;
    const auto one = [](int) { return 1.0; };
    for (int from = 0; from == 0 || from < channels; from += chunk) {  // of no channels all products are 0
      const int width = read(g, points, image, from, p, t);
      points.add_products(g, p, p, width, from == 0, qs, one);
      points.add_products(g, p, t, width, from == 0, x, one);
      points.add_products(g, t, t, width, from == 0, qt, one);
    }
    const double per = channels > 0 ? 1 / (double(channels) * channels) : 0.0;
    double total = 0;
    for (int from = 0; from == 0 || from < channels; from += chunk) {
      const int width = chunk < channels ? read(g, points, image, from, p, t) : channels;
      form(g, qs, p, p, width, products, forms[0]);
      form(g, qt, t, t, width, products, forms[1]);
      form(g, x, p, t, width, products, forms[2]);
      const auto channel = [=, q = forms[0], r = forms[1], n = forms[2]](int c) { return Channel(q[c], r[c], n[c]); };
      total += g.sum(width, [=](int c) { return channel(c).cost(); });
      A *fs = f + from, *gs = fs + channels;
      g.each(width, [=](int c) {
        const Channel at = channel(c);
        fs[c] = A(2 * per * (at.cosine * at.a * at.a));
        gs[c] = A(-2 * per * (at.a * at.b));
      });
      points.add_products(g, p, p, width, from == 0, kept + area, [=](int c) { return fs[c]; });
      points.add_products(g, p, t, width, from == 0, kept + 3 * area, [=](int c) { return gs[c]; });
    }
    g.put(loss, box, A(total * per));
    g.each(area, [=](int i) { kept[i] = A(qs[i]), kept[2 * area + i] = A(x[i]); });
  }

 private:
  struct Channel {
    double a, b, cosine;  // 1 / |G^s_i|, 1 / |G^t_i|, 0 where it is 0
    PD_HD Channel(double q, double r, double n) : a(inverse(q)), b(inverse(r)), cosine(n * a * b) {}
    PD_HD double cost() const {
      const double d = (a == 0 ? 0.0 : 1.0) + (b == 0 ? 0.0 : 1.0) - 2 * cosine;
      return d < 0 ? 0.0 : d;
    }
    PD_HD static double inverse(double square) { return square <= 0 ? 0.0 : 1 / std::sqrt(square); }
  };

  template <class Group>
  PD_HD int read(Group g, const KeypointBox<A>& points, int64_t image, int from, A* p, A* t) const {
    const int width = channels - from < chunk ? channels - from : chunk;
    points.sample(g, student.at(image, 0) + from * student.channel, student, width, p);
    points.sample(g, teacher.at(image, 0) + from * teacher.channel, teacher, width, t);
    return width;
  }
  // out[c] = p_c^T m t_c
  template <class Group>
  PD_HD void form(Group g, const double* m, const A* p, const A* t, int width, double* products, double* out) const {
    const Grid grid{width, count};
    g.column_sums(
        grid, products, [n = count](int) { return Span{0, n}; },
        [=, n = count](int c, int k) {
          return [row = m + k * n, by = double(p[c * n + k])](int l) { return row[l] * by; };
        });
    g.row_sums(grid, out, [=, n = count](int c) {
      return [y = products + c * n, t = t + c * n](int l) { return y[l] * double(t[l]); };
    });
  }
};

// The slopes of the points of a box.
template <class S, class U, class A> struct ChannelPull {
  FeatureMap<const S> student;
  FeatureMap<const U> teacher;
  const A *pull, *slope;
  int channels;

  template <class Group>
  PD_HD void operator()(Group g, const KeypointBox<A>& points, int64_t row, int64_t box, int start, A* p, A* to) const {
    const A* f = slope + box * 2 * channels + points.rows.blocks.first(row);
    add(g, points, row, student, f, pull + box * 4 * points.count * points.count, start, false, p, to);
    add(g, points, row, teacher, f + channels, pull + (box * 4 + 2) * points.count * points.count, start, true, p, to);
  }

 private:
  template <class Group, class T>
  PD_HD void add(Group g, const KeypointBox<A>& points, int64_t row, const FeatureMap<const T>& map, const A* by,
                 const A* own, int start, bool adds, A* p, A* to) const {
    const int width = points.rows.blocks.count(row);
    points.sample(g, points.rows.channels(map, row), map, width, p);
    points.add_slopes(g, p, width, start, adds, to,
                      [=, all = own + points.count * points.count](int c, int i) { return by[c] * own[i] + all[i]; });
  }
};

}  // namespace pydistill::math
