// Bilinear samples of feature maps at the key points of boxes, and the adjoint:
//   p_kc = sum_j w_kj x_c[i_kj], j < 4          dx_c[i] += sum_{kj: i_kj = i} w_kj dp_kc
// A point (u, v) counts cells from the corner of the map: the centre of cell i is i + 1/2. Beyond its border the map is 0.
// The boxes of an image come in groups, so that what a row of a launch keeps of one fits into its scratch.
#pragma once
#include "math/feature_map.h"
#include "math/power.h"
#include "math/tiles.h"

namespace pydistill::math {

constexpr int kCorners = 4;

// The two cells along one axis that a position between -1 and `size` reads. One off the map has weight 0, and is then the
// other one, as is one of weight 0: what is read has weight.
template <class A> struct Neighbours {
  int cell[2];
  A weight[2];
  PD_HD Neighbours(A position, int size) {
    const int low = int(std::floor(position));
    const A rest = position - A(low);
    const bool near = low >= 0, far = low + 1 < size && rest > A(0);
    cell[0] = near ? low : 0;
    cell[1] = far ? low + 1 : cell[0];
    weight[0] = near ? A(1) - rest : A(0);
    weight[1] = far ? rest : A(0);
  }
};

// One row = one box, or the padding behind the last of an image. A box that is not valid, or has a point that is not
// finite, is not used: its points, like those off the map, have weight 0 and the cell `map.area()`.
template <class A> struct KeypointCells {
  const A* points;    // (B, M, K, 2): u, v
  const bool* valid;  // (B, M)
  int* cell;          // (B, slots, K, 4)
  A* weight;          // (B, slots, K, 4)
  A* used;            // (B, M): 1 or 0
  int boxes, slots, count;
  Grid map;
  bool swap;  // x and y, scaled by the sides of the map

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const bool padding = row % slots >= boxes;
    const int64_t box = row / slots * boxes + row % slots;
    const A* p = points + box * count * 2;
    const bool reads =
        !padding && valid[box] && g.sum(2 * count, [p](int i) { return std::isfinite(p[i]) ? 0 : 1; }) == 0;
    if (!padding) g.once([=, *this] { used[box] = A(reads ? 1 : 0); });
    g.each(count, [=, *this, first = row * count](int k) {
      const A h = A(map.h), w = A(map.w), u = reads ? p[2 * k] : A(-1), v = reads ? p[2 * k + 1] : A(-1);
      const A column = (swap ? v * (w / h) : u) - A(0.5), line = (swap ? u * (h / w) : v) - A(0.5);
      const bool on = column > A(-1) && column < w && line > A(-1) && line < h;
      const Neighbours<A> x(on ? column : A(0), map.w), y(on ? line : A(0), map.h);
      for (int j = 0; j < kCorners; ++j) {
        const int64_t to = (first + k) * kCorners + j;
        cell[to] = on ? y.cell[j / 2] * map.w + x.cell[j % 2] : map.h * map.w;
        weight[to] = on ? y.weight[j / 2] * x.weight[j % 2] : A(0);
      }
    });
  }
};

// One key point, and its value on channels whose cells are `step` apart.
template <class A> struct Keypoint {
  const int* cell;
  const A* weight;
  bool on;
  template <class T> PD_HD A of(const T* x, int64_t step) const {
    if (!on) return A(0);
    return (weight[0] * A(x[cell[0] * step]) + weight[1] * A(x[cell[1] * step])) +
           (weight[2] * A(x[cell[2] * step]) + weight[3] * A(x[cell[3] * step]));
  }
};

// One row = a block of channels of an image. Inside, whatever lies side by side in memory is walked last.
template <class A> struct KeypointRows {
  const int* cell;  // (B, groups, points, 4)
  const A* weight;
  int groups, points;  // of an image; of a group
  int64_t pixels;
  Tiles blocks;
  bool interleaved;  // a pixel's channels side by side, not a channel's pixels

  PD_HD Keypoint<A> point(int64_t i) const {  // of all
    const int* c = cell + i * kCorners;
    return {c, weight + i * kCorners, c[0] < pixels};
  }
  PD_HD int64_t first(int64_t row, int group) const { return (blocks.image(row) * groups + group) * points; }
  template <class T> PD_HD T* channels(const FeatureMap<T>& map, int64_t row) const {
    return map.at(blocks.image(row), 0) + blocks.first(row) * map.channel;
  }
  // Where the numbers of `count` channels of a group's points are kept.
  PD_HD int64_t at(int point, int channel, int count) const {
    return interleaved ? int64_t(point) * count + channel : int64_t(channel) * points + point;
  }
  PD_HD static int64_t bytes(int points, int channels) { return scratch_bytes<A>(int64_t(points) * channels); }

  // f(point, channel) for `count` points from `first` and all channels of the row.
  template <class Group, class F> PD_HD void each(Group g, int first, int count, int channels, F f) const {
    if (interleaved) return g.each(Grid{count, channels}, [=](int p) { return [=](int c) { f(first + p, c); }; });
    g.each(Grid{channels, count}, [=](int c) { return [=](int p) { f(first + p, c); }; });
  }
};

// The corners of each group's points by the cell that they read: who owns a channel of an image adds those of a cell in
// this order.
template <class A> struct KeypointOwners {
  const int* cell;       // (B, groups, points * 4), ascending
  const int64_t* order;  // which corner it is

  // dmap += factor * the adjoint of `slope`, kept as rows.at says.
  template <class Group, class T>
  PD_HD void add(Group g, const KeypointRows<A>& rows, int64_t row, int group, const A* slope, A factor,
                 const FeatureMap<T>& dmap) const {
    const int corners = rows.points * kCorners, count = rows.blocks.count(row);
    const int64_t first = rows.first(row, group) * kCorners;
    const int* at = cell + first;
    const int64_t* from = order + first;
    const A* weight = rows.weight + first;
    T* d = rows.channels(dmap, row);
    const int64_t point_step = rows.interleaved ? count : 1, channel_step = rows.interleaved ? 1 : rows.points;
    const auto owns = [=, pixels = rows.pixels](int e) { return at[e] < pixels && (e == 0 || at[e - 1] != at[e]); };
    const auto put = [=](int e, const A* slope, T* to) {
      A total(0);
      for (int k = e; k < corners && at[k] == at[e]; ++k)
        total += weight[from[k]] * slope[from[k] / kCorners * point_step];
      *to = T(A(*to) + factor * total);
    };
    if (rows.interleaved)
      return g.each(Grid{corners, count}, [=, step = dmap.pixel](int e) {
        const bool own = owns(e);
        return [=, to = own ? d + at[e] * step : d](int c) {
          if (own) put(e, slope + c * channel_step, to + c);
        };
      });
    g.each(Grid{count, corners}, [=, step = dmap.channel](int c) {
      return [=, to = d + c * step, slope = slope + c * channel_step](int e) {
        if (owns(e)) put(e, slope, to + at[e]);
      };
    });
  }
};

// A sum of numbers over the number of used boxes, or over what normalises.
template <class A> struct KeypointTotal {
  const A* value;
  const A* used;        // (boxes,)
  const A* normalizer;  // or null
  A *loss, *factor;     // factor: what backward multiplies by
  int values, boxes;
  A scale, eps;

  template <class Group> PD_HD void operator()(Group g, int64_t) const {
    const A total = g.sum(values, [v = value](int i) { return v[i]; });
    const A count = normalizer ? *normalizer : g.sum(boxes, [v = used](int i) { return v[i]; });
    g.once([=, *this] {
      const A by = count + eps;
      *factor = by == A(0) ? A(0) : scale / by;
      *loss = total == A(0) ? A(0) : total * (scale / by);
    });
  }
};

}  // namespace pydistill::math
