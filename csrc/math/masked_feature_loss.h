// l = sum_ni m_ni^p e_ni / (C' M),  e_ni = sum_c |s_nci - t_nci|^q,  C' = C or 1,  M: what normalises;  0 / 0 = 0
// dl/ds_nci = m_ni^p slope(s_nci - t_nci) / (C' M),  slope(d) = 2 d (q = 2) or the sign of d (q = 1)
// i: pixels of image n. One row = a tile of them. Of a tile whose mask is all 0 no feature is read.
#pragma once
#include "math/feature_map.h"
#include "math/power.h"
#include "math/tiles.h"

namespace pydistill::math {

template <class S, class U, class A, class Norm> struct MaskedPair {
  FeatureMap<const S> student;
  FeatureMap<const U> teacher;
  const A* mask;  // (N, pixels)
  int channels;
  bool interleaved;  // a pixel's channels side by side, not a channel's pixels
  bool squared;      // the mask: p = 2
  Tiles tiles;
  Norm norm;

  PD_HD int64_t at(int64_t row) const { return tiles.image(row) * tiles.total + tiles.first(row); }
  PD_HD auto weight(int64_t row) const {
    return [m = mask + at(row), two = squared](int i) { return two ? m[i] * m[i] : m[i]; };
  }
  template <class Group> PD_HD bool skips(Group g, int64_t row) const {
    return g.max(tiles.count(row), [m = mask + at(row)](int i) { return m[i] == A(0) ? 0 : 1; }) == 0;
  }

  // e of each pixel, 0 where the mask is.
  template <class Group> PD_HD void errors(Group g, int64_t row, A* out) const {
    const int count = tiles.count(row), all = channels;
    const A* m = mask + at(row);
    const S* s = student.at(tiles.image(row), tiles.first(row));
    const U* t = teacher.at(tiles.image(row), tiles.first(row));
    if (interleaved)
      return g.row_sums(Grid{count, channels}, out, [=, *this](int i) {
        return [=, *this, s = s + i * student.pixel, t = t + i * teacher.pixel, read = m[i] != A(0)](int c) {
          return read ? norm(A(s[c]) - A(t[c])) : A(0);
        };
      });
    g.column_sums(
        Grid{1, count}, out, [all](int) { return Span{0, all}; },
        [=, *this](int, int c) {
          return [=, *this, s = s + c * student.channel, t = t + c * teacher.channel](int i) {
            const A e = norm(A(s[i]) - A(t[i]));
            return m[i] == A(0) ? A(0) : e;
          };
        });
  }
};

template <class S, class U, class A, class Norm> struct MaskedFeatureLoss {
  MaskedPair<S, U, A, Norm> in;
  A *partial, *mass;  // a row's sum and, where that is not null, its sum of the mask

  PD_HD static int64_t bytes(int pixels) { return scratch_bytes<A>(pixels); }
  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int count = in.tiles.count(row);
    if (in.skips(g, row)) {
      g.once([=, *this] {
        partial[row] = A(0);
        if (mass) mass[row] = A(0);
      });
      return;
    }
    A* e = g.template scratch<A>(count);
    in.errors(g, row, e);
    const A total = g.sum(count, [e, w = in.weight(row)](int i) { return w(i) * e[i]; });
    g.put(partial, row, total);
    if (mass) g.put(mass, row, g.sum(count, [m = in.mask + in.at(row)](int i) { return m[i]; }));
  }
};

// The tiles' sums, in order. `factor` is what backward multiplies by.
template <class A> struct MaskedFeatureTotal {
  const A *partial, *mass;
  const A* normalizer;  // or null
  A *loss, *factor;
  int rows;
  A scale;

  template <class Group> PD_HD void operator()(Group g, int64_t) const {
    const A total = g.sum(rows, [p = partial](int i) { return p[i]; }) * scale;
    const A mask = mass ? g.sum(rows, [p = mass](int i) { return p[i]; }) : A(1);
    g.once([=, *this] {
      const A by = normalizer ? *normalizer : mask;
      *loss = total == A(0) && by == A(0) ? A(0) : total / by;
      *factor = by == A(0) ? A(0) : scale / by;
    });
  }
};

template <class S, class U, class A, class Norm> struct MaskedFeatureBackward {
  MaskedPair<S, U, A, Norm> in;
  const A *dloss, *factor;
  FeatureMap<S> dstudent;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int count = in.tiles.count(row);
    const int64_t n = in.tiles.image(row), first = in.tiles.first(row);
    const bool across = in.interleaved;
    const Grid grid = across ? Grid{count, in.channels} : Grid{in.channels, count};
    S* d = dstudent.at(n, first);
    const int64_t step = across ? dstudent.pixel : dstudent.channel;
    const auto to = [=](int y) { return d + y * step; };
    if (in.skips(g, row)) return g.fill(grid, to, [](int) { return [](int) { return A(0); }; });
    const A upstream = *dloss * *factor;
    const auto slope = [upstream, norm = in.norm](S s, U t, A w) {
      const A v = upstream * w * norm.slope(A(s) - A(t));
      return w == A(0) ? A(0) : v;
    };
    const S* s = in.student.at(n, first);
    const U* t = in.teacher.at(n, first);
    if (across)
      return g.fill(grid, to, [=, *this, w = in.weight(row)](int i) {
        return [=, s = s + i * in.student.pixel, t = t + i * in.teacher.pixel, w = w(i)](int c) {
          return slope(s[c], t[c], w);
        };
      });
    g.fill(grid, to, [=, *this, w = in.weight(row)](int c) {
      return [=, s = s + c * in.student.channel, t = t + c * in.teacher.channel](int i) {
        return slope(s[i], t[i], w(i));
      };
    });
  }
};

}  // namespace pydistill::math
