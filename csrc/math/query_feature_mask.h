// v = sum_i q_i h_i / |h_i| of the queries h of one image and stage; per pixel p of a map f of the image
//   M_p = max(floor, v . f_p / |f_p|),  then  M / max_p M
// A query with q = 0 is not used. Norms are at least kLeastNorm.   T: storage type.  A: accumulation type.
#pragma once
#include "math/boxes.h"
#include "math/feature_map.h"
#include "math/tiles.h"

namespace pydistill::math {

template <class A> constexpr A kLeastNorm = A(1e-12);

template <class A> PD_HD A norm_of(A squares) { return at_least(std::sqrt(squares), kLeastNorm<A>); }

// One row = one image of one stage.
template <class T, class A> struct QueryDirection {
  const T* queries;      // (N, Q, D)
  const A* quality;      // (N, K)
  const int64_t* index;  // (N, K), or null: K = Q, in order
  A* share;              // (N, K): q_i / |h_i|, scratch
  A* direction;          // (N, D): v
  int known, taken, channels;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const auto query = [=, h = queries + row * known * channels, q = quality + row * taken,
                        at = index ? index + row * taken : nullptr, d = channels, n = known](int i) {
      const int64_t k = at ? at[i] : i;
      return q[i] != A(0) && k >= 0 && k < n ? h + k * d : nullptr;
    };
    A* s = share + row * taken;
    g.row_sums(Grid{taken, channels}, s, [=](int i) {
      return [h = query(i)](int c) {
        const A x = h ? A(h[c]) : A(0);
        return x * x;
      };
    });
    g.each(taken, [=, q = quality + row * taken](int i) { s[i] = q[i] / norm_of(s[i]); });
    g.column_sums(
        Grid{1, channels}, direction + row * channels, [n = taken](int) { return Span{0, n}; },
        [=](int, int i) { return [h = query(i), s = s[i]](int c) { return h ? s * A(h[c]) : A(0); }; });
  }
};

// One row = a tile of an image's pixels. Stages run inside a tile, so that its features are near when the next one comes.
template <class T, class A> struct Similarity {
  FeatureMap<const T> features;
  const A* direction;  // (stages, B, D): v
  A* mask;             // (stages, B, pixels)
  A* most;             // (B, tiles, stages): largest of a tile; or null
  int channels, stages;
  int64_t images;
  bool interleaved;
  Tiles tiles;
  A floor;

  PD_HD static int64_t bytes(int stages, int pixels) { return scratch_bytes<A>(int64_t(stages + 1) * pixels); }
  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t image = tiles.image(row), first = tiles.first(row);
    const int count = tiles.count(row), sums = stages + 1;  // the last one is |f|^2
    const T* f = features.at(image, first);
    const auto product = [last = stages, v = direction + image * channels, next = images * channels](int s, int c) {
      return [squared = s == last, v = s == last ? A(0) : v[s * next + c]](A f) { return (squared ? f : v) * f; };
    };
    A* sum = g.template scratch<A>(int64_t(sums) * count);
    if (interleaved)
      g.row_sums(Grid{count * sums, channels}, sum, [=, step = features.pixel](int y) {
        return [=, s = y % sums, f = f + y / sums * step](int c) { return product(s, c)(A(f[c])); };
      });
    else
      g.column_sums(
          Grid{sums, count}, sum, [n = channels](int) { return Span{0, n}; },
          [=, step = features.channel](int s, int c) {
            return [f = f + c * step, term = product(s, c)](int i) { return term(A(f[i])); };
          });
    const int per_stage = interleaved ? 1 : count, per_pixel = interleaved ? sums : 1;
    A* out = mask + image * tiles.total + first;
    const int64_t stage = images * tiles.total;
    g.each(Grid{stages, count}, [=, *this](int s) {
      return [=, low = floor, last = stages, to = out + s * stage](int i) {
        const A* of = sum + i * per_pixel;
        to[i] = at_least(of[s * per_stage] / norm_of(of[last * per_stage]), low);
      };
    });
    if (!most) return;
    g.row_fold(
        Grid{stages, count}, most + row * stages,
        [=](int s) { return [to = out + s * stage](int i) { return to[i]; }; }, Max{});
  }
};

// One row = a mask of one image.
template <class A> struct DivideByMost {
  const A* most;  // (B, tiles, stages)
  A* mask;        // (stages, B, pixels)
  int stages, tiles;
  int64_t images, pixels;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t image = row % images;
    const A largest = g.max(
        tiles, [of = most + image * tiles * stages + row / images, n = stages](int t) { return of[int64_t(t) * n]; });
    g.each(int(pixels), [to = mask + row * pixels, largest](int i) { to[i] = to[i] / largest; });
  }
};

}  // namespace pydistill::math
