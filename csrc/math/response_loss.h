// Of each pixel i with the weight G_i, s and t the largest class score of student and teacher, r their n regressed numbers:
//   l_cls = sum_i G_i |f(s_i) - h(t_i)| / (M + eps),  f(s) = clamp(sigmoid(s)) or s,  h(t) = clamp(sigmoid(t / T))
//   l_reg = 1 / n sum_i G_i sum_k |r^s_ik - r^t_ik| / (M + eps),  M = sum G, or what is given
// The gradient of l_cls goes to the first channel with the largest score. Of a tile whose G is all 0 no score is read.
#pragma once
#include "core/ahead.h"
#include "math/elementary.h"
#include "math/feature_map.h"
#include "math/power.h"
#include "math/tiles.h"

namespace pydistill::math {

// One channel of a head, wherever its tensor is.
template <class S, class U> struct HeadChannel {
  FeatureMap<const S> student;
  FeatureMap<const U> teacher;
  FeatureMap<S> dstudent;
};

// Heads come as separate tensors: this makes one list of channels of them. One row = one head.
template <class S, class U> struct HeadChannels {
  static constexpr int kMost = 16;
  HeadChannel<S, U> head[kMost];
  int first[kMost + 1];  // its place in the list
  HeadChannel<S, U>* out;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const HeadChannel<S, U> h = head[row];
    g.each(first[row + 1] - first[row], [=, to = out + first[row]](int c) {
      HeadChannel<S, U> one = h;
      one.student.data += c * h.student.channel;
      one.teacher.data += c * h.teacher.channel;
      if (one.dstudent.data) one.dstudent.data += c * h.dstudent.channel;
      to[c] = one;
    });
  }
};

template <class A> struct Squash {  // of a score
  A scale, least, most;
  bool logit;
  PD_HD A sigmoid(A z) const { return A(1) / (A(1) + exp(-z * scale)); }
  PD_HD A operator()(A z) const {
    if (!logit) return z;
    const A p = sigmoid(z);
    return p < least ? least : p > most ? most : p;
  }
  PD_HD A slope(A z) const {
    if (!logit) return A(1);
    const A p = sigmoid(z);
    return p < least || p > most ? A(0) : scale * p * (A(1) - p);
  }
};

template <class S, class U, class A> struct ResponseTiles {
  const HeadChannel<S, U>* channel;  // the classes first
  int classes, numbers;
  const A* region;  // (B, pixels)
  Tiles tiles;
  Squash<A> student, teacher;

  PD_HD const A* weight(int64_t row) const { return region + tiles.image(row) * tiles.total + tiles.first(row); }
  template <class Group> PD_HD bool skips(Group g, int64_t row) const {
    return g.max(tiles.count(row), [w = weight(row)](int i) { return w[i] == A(0) ? 0 : 1; }) == 0;
  }
  PD_HD const S* of_student(int c, int64_t row) const {
    return channel[c].student.at(tiles.image(row), tiles.first(row));
  }
  PD_HD const U* of_teacher(int c, int64_t row) const {
    return channel[c].teacher.at(tiles.image(row), tiles.first(row));
  }

  // The channels of a tile lie far apart, each in a line or two of a cache: all are asked for before the first is used.
  template <class Group> PD_HD void ahead(Group g, int64_t row) const {
    const int64_t image = tiles.image(row), first = tiles.first(row);
    for (int c = 0; c < classes + numbers; ++c) {
      const HeadChannel<S, U> one = channel[c];
      if (one.student.pixel == 1) pydistill::ahead(g, one.student.at(image, first), tiles.count(row));
      if (one.teacher.pixel == 1) pydistill::ahead(g, one.teacher.at(image, first), tiles.count(row));
      if (one.dstudent.data && one.dstudent.pixel == 1)
        pydistill::ahead(g, one.dstudent.at(image, first), tiles.count(row));
    }
  }

  // The largest scores of each pixel.
  template <class Group> PD_HD void strongest(Group g, int64_t row, A* s, A* t) const {
    const Grid line{1, tiles.count(row)};
    const auto all = [n = classes](int) { return Span{0, n}; };
    g.column_fold(
        line, s, all,
        [=, *this](int, int c) {
          return [x = of_student(c, row), step = channel[c].student.pixel](int i) { return A(x[i * step]); };
        },
        Max{});
    g.column_fold(
        line, t, all,
        [=, *this](int, int c) {
          return [x = of_teacher(c, row), step = channel[c].teacher.pixel](int i) { return A(x[i * step]); };
        },
        Max{});
  }
};

// partial (3, rows): the sums of a tile: classes, numbers, G
template <class S, class U, class A> struct ResponseLoss {
  ResponseTiles<S, U, A> in;
  A* partial;
  int64_t rows;

  PD_HD static int64_t bytes(int pixels) { return 3 * scratch_bytes<A>(pixels); }
  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    if (in.skips(g, row))
      return g.once([=, *this] {
        for (int k = 0; k < 3; ++k) partial[k * rows + row] = A(0);
      });
    in.ahead(g, row);
    const int count = in.tiles.count(row);
    const A* w = in.weight(row);
    A *s = g.template scratch<A>(count), *t = g.template scratch<A>(count), *d = g.template scratch<A>(count);
    in.strongest(g, row, s, t);
    g.column_sums(
        Grid{1, count}, d, [first = in.classes, n = in.numbers](int) { return Span{first, first + n}; },
        [=, in = in](int, int c) {
          return [s = in.of_student(c, row), t = in.of_teacher(c, row), sp = in.channel[c].student.pixel,
                  tp = in.channel[c].teacher.pixel](int i) { return std::abs(A(s[i * sp]) - A(t[i * tp])); };
        });
    const A classes = g.sum(count, [=, f = in.student, h = in.teacher, none = in.classes == 0](int i) {
      return none || w[i] == A(0) ? A(0) : w[i] * std::abs(f(s[i]) - h(t[i]));
    });
    const A numbers = g.sum(count, [=](int i) { return w[i] == A(0) ? A(0) : w[i] * d[i]; });
    const A mass = g.sum(count, [w](int i) { return w[i]; });
    g.once([=, *this] { partial[row] = classes, partial[rows + row] = numbers, partial[2 * rows + row] = mass; });
  }
};

template <class A> struct ResponseTotal {
  const A* partial;
  const A* normalizer;  // or null
  A *losses, *factor;   // (2,), ()
  int rows;
  A per_number, eps;

  template <class Group> PD_HD void operator()(Group g, int64_t) const {
    const A classes = g.sum(rows, [p = partial](int i) { return p[i]; });
    const A numbers = g.sum(rows, [p = partial + rows](int i) { return p[i]; });
    const A mass = normalizer ? *normalizer : g.sum(rows, [p = partial + 2 * int64_t(rows)](int i) { return p[i]; });
    g.once([=, *this] {
      const A by = mass + eps, one = by == A(0) ? A(0) : A(1) / by;
      *factor = one;
      losses[0] = classes == A(0) ? A(0) : classes / by;
      losses[1] = numbers == A(0) ? A(0) : numbers * per_number / by;
    });
  }
};

// dstudent comes in as zeros.
template <class S, class U, class A> struct ResponseBackward {
  ResponseTiles<S, U, A> in;
  const A *dlosses, *factor;
  A per_number;

  PD_HD static int64_t bytes(int pixels) { return 2 * scratch_bytes<A>(pixels); }
  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    if (in.skips(g, row)) return;
    in.ahead(g, row);
    const int count = in.tiles.count(row);
    const int64_t image = in.tiles.image(row), first = in.tiles.first(row);
    const A* w = in.weight(row);
    const A classes = dlosses[0] * *factor, numbers = dlosses[1] * *factor * per_number;
    A *s = g.template scratch<A>(count), *t = g.template scratch<A>(count);
    in.strongest(g, row, s, t);
    g.each(in.classes > 0 ? count : 0, [=, in = in](int i) {
      if (w[i] == A(0)) return;
      int best = 0;
      for (int c = in.classes; c-- > 0;) {
        const A z = A(in.of_student(c, row)[i * in.channel[c].student.pixel]);
        if (z == s[i] || z != z) best = c;
      }
      const FeatureMap<S>& d = in.channel[best].dstudent;
      const A slope = Absolute{}.slope(in.student(s[i]) - in.teacher(t[i])) * in.student.slope(s[i]);
      d.at(image, first)[i * d.pixel] = S(classes * w[i] * slope);
    });
    g.each(Grid{in.numbers, count}, [=, in = in](int k) {
      const HeadChannel<S, U> one = in.channel[in.classes + k];
      return [=, s = one.student.at(image, first), t = one.teacher.at(image, first),
              d = one.dstudent.at(image, first)](int i) {
        const A v = numbers * w[i] * Absolute{}.slope(A(s[i * one.student.pixel]) - A(t[i * one.teacher.pixel]));
        d[i * one.dstudent.pixel] = S(w[i] == A(0) ? A(0) : v);
      };
    });
  }
};

}  // namespace pydistill::math
