// l = 1 / (K C) sum_bkc |s_bkc - t_bkc|^q / (N + eps),  s, t: the maps at point k of box b (math/keypoint_cells.h)
#pragma once
#include "math/keypoint_cells.h"

namespace pydistill::math {

// f(point, channel) = student - teacher of a row's channels, points counted from `first`.
template <class S, class U, class A> struct KeypointPair {
  KeypointRows<A> rows;
  FeatureMap<const S> student;
  FeatureMap<const U> teacher;

  PD_HD auto difference(int64_t row, int64_t first) const {
    return [=, rows = rows, s = rows.channels(student, row), t = rows.channels(teacher, row), sp = student.pixel,
            tp = teacher.pixel, sc = student.channel, tc = teacher.channel](int p, int c) {
      const Keypoint<A> k = rows.point(first + p);
      return k.of(s + c * sc, sp) - k.of(t + c * tc, tp);
    };
  }
};

template <class S, class U, class A> struct KeypointFeatureLoss {
  KeypointPair<S, U, A> in;
  AbsoluteOrSquare norm;
  A* partial;  // one per row

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int count = in.rows.blocks.count(row), points = in.rows.points;
    A total(0);
    for (int group = 0; group < in.rows.groups; ++group) {
      const auto term = [d = in.difference(row, in.rows.first(row, group)), norm = norm](int p, int c) {
        return norm(d(p, c));
      };
      total += in.rows.interleaved
                   ? g.sum(Grid{points, count}, [=](int p) { return [=](int c) { return term(p, c); }; })
                   : g.sum(Grid{count, points}, [=](int c) { return [=](int p) { return term(p, c); }; });
    }
    g.put(partial, row, total);
  }
};

// dstudent comes as zeros.
template <class S, class U, class A> struct KeypointFeatureBackward {
  KeypointPair<S, U, A> in;
  AbsoluteOrSquare norm;
  KeypointOwners<A> owners;
  const A *dloss, *factor;
  FeatureMap<S> dstudent;

  PD_HD static int64_t bytes(int points, int channels) { return KeypointRows<A>::bytes(points, channels); }
  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const KeypointRows<A>& rows = in.rows;
    const int count = rows.blocks.count(row);
    const A upstream = *dloss * *factor;
    A* slope = g.template scratch<A>(int64_t(rows.points) * count);
    for (int group = 0; group < rows.groups; ++group) {
      rows.each(g, 0, rows.points, count,
                [=, d = in.difference(row, rows.first(row, group)), norm = norm, rows = rows](int p, int c) {
                  slope[rows.at(p, c, count)] = norm.slope(d(p, c));
                });
      owners.add(g, rows, row, group, slope, upstream, dstudent);
    }
  }
};

}  // namespace pydistill::math
