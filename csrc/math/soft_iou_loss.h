// l = 1/M sum_nc (1 - I / U),  P = sum_i p_ic,  G = sum_i y_ic,  I = sum_i p_ic y_ic,  U = P + G - I,  literal: P / U
// dl/dp_ic = -1/(M U) where y_ic = 1, else I / (M U^2), literal: -(G - I) / (M U^2);  0 where G = 0
// dl/dz_ic = p_ic (dl/dp_ic - sum_k p_ik dl/dp_ik)    i: pixels of image n, p = softmax(z) over the classes, y one-hot
// M: the pairs (n, c) that count. A pair with G = 0 counts 1 or is skipped. An ignored pixel is not read.
#pragma once
#include "math/elementary.h"
#include "math/tiles.h"

namespace pydistill::math {

struct SoftIouForm {
  int channels;         // K; a single one has label 1
  int soft;             // first channel of the softmax
  int first, measured;  // the classes whose IoU counts
  bool sigmoid;         // of one channel: a softmax with the logit 0 of the background
  bool literal, skip;
  PD_HD bool measures(int c) const { return c >= first && c < first + measured; }
};

template <class T> struct LabelledLogits {
  const T* logits;  // (N, K, H, W), pixels side by side
  int64_t image, channel;
  const int64_t* labels;  // (N, H, W)
  int64_t ignore;
  SoftIouForm form;
  Tiles tiles;

  PD_HD const T* at(int64_t row) const { return logits + tiles.image(row) * image + tiles.first(row); }
  PD_HD const int64_t* labels_at(int64_t row) const {
    return labels + tiles.image(row) * tiles.total + tiles.first(row);
  }
};

constexpr int kUnread = -1, kOutside = -2;  // in place of a channel

struct PlainMax {  // one instruction, unlike Max: a NaN may be lost, because its own power brings it into the softmax
  template <class A> PD_HD A operator()(A a, A b) const { return b > a ? b : a; }
  template <class A> PD_HD static A identity() { return A(-INFINITY); }
};

template <class A, class Power> struct TileSoftmax {  // p_ic = power(c)(i) per_total[i]
  const int* own;                                     // the channel of a pixel's label
  const A* per_total;
  Power power;
};

// Scratch that tile_softmax takes.
template <class A> PD_HD int64_t tile_softmax_bytes(int pixels) {
  return scratch_bytes<int>(pixels) + 2 * scratch_bytes<A>(pixels);
}

template <class A, class Group, class T>
PD_HD auto tile_softmax(const Group& g, const LabelledLogits<T>& in, int64_t row) {
  const int count = in.tiles.count(row);
  const SoftIouForm form = in.form;
  const Grid line{1, count};
  int* own = g.template scratch<int>(count);
  A *peak = g.template scratch<A>(count), *per_total = g.template scratch<A>(count);
  g.each(count, [=, label = in.labels_at(row), ignore = in.ignore](int i) {
    const int64_t lowest = form.channels == 1;
    const bool channel = label[i] >= lowest && label[i] < lowest + form.channels;
    own[i] = label[i] == ignore ? kUnread : channel ? int(label[i] - lowest) : kOutside;
  });
  const auto every = [=](int) { return Span{form.soft, form.channels}; };
  const auto logit = [z = in.at(row), channel = in.channel](int c) {
    return [p = z + c * channel](int i) { return A(p[i]); };
  };
  g.column_fold(line, peak, every, [=](int, int c) { return logit(c); }, PlainMax{});
  if (form.sigmoid) g.each(count, [=](int i) { peak[i] = peak[i] < A(0) ? A(0) : peak[i]; });
  const auto power = g.keep(Grid{form.channels, count}, [=](int c) {
    return [=, z = logit(c), in_softmax = c >= form.soft](int i) {
      const A e = exp(z(i) - peak[i]);
      return in_softmax & (own[i] != kUnread) ? e : A(0);
    };
  });
  g.column_sums(line, per_total, every, [=](int, int c) { return power(c); });
  g.each(count, [=](int i) {
    const A total = per_total[i] + (form.sigmoid ? exp(-peak[i]) : A(0));
    per_total[i] = own[i] == kUnread ? A(0) : A(1) / total;
  });
  return TileSoftmax<A, decltype(power)>{own, per_total, power};
}

// P, G and I of a tile's pixels, one row = one tile of one image.
template <class T, class A> struct SoftIouSums {
  LabelledLogits<T> in;
  A* partial;  // (N, tiles, 3, classes)

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const auto s = tile_softmax<A>(g, in, row);
    const int first = in.form.first, classes = in.form.measured;
    const Grid grid{classes, in.tiles.count(row)};
    A* out = partial + row * 3 * classes;
    g.row_sums(grid, out,
               [=](int k) { return [=, power = s.power(first + k)](int i) { return power(i) * s.per_total[i]; }; });
    g.row_sums(grid, out + classes,
               [=](int k) { return [=, c = first + k](int i) { return s.own[i] == c ? A(1) : A(0); }; });
    g.row_sums(grid, out + 2 * classes, [=](int k) {
      return [=, c = first + k, power = s.power(first + k)](int i) {
        const A p = power(i) * s.per_total[i];
        return s.own[i] == c ? p : A(0);
      };
    });
  }
};

// One row = one image.
template <class A> struct SoftIouImage {
  const A* partial;
  A* sums;  // (N, 3, classes)
  int tiles, classes;

  template <class Group> PD_HD void operator()(Group g, int64_t n) const {
    const int size = 3 * classes;
    g.row_sums(Grid{size, tiles}, sums + n * size, [=, from = partial + n * tiles * size](int k) {
      return [=](int t) { return from[int64_t(t) * size + k]; };
    });
  }
};

template <class A> struct SoftIouParts {
  A p, g, i;
  PD_HD static SoftIouParts of(const A* sums, int64_t n, int classes, int k) {
    const A* at = sums + n * 3 * classes + k;
    return {at[0], at[classes], at[2 * classes]};
  }
  PD_HD A u() const { return p + (g - i); }
  PD_HD A loss(const SoftIouForm& form) const {
    if (g == A(0)) return form.skip ? A(0) : A(1);
    return (form.literal ? g - i : (p - i) + (g - i)) / u();
  }
  PD_HD A slope_own() const { return g == A(0) ? A(0) : A(-1) / u(); }
  PD_HD A slope_other(const SoftIouForm& form) const {
    if (g == A(0)) return A(0);
    return (form.literal ? i - g : i) / (u() * u());
  }
};

template <class A> struct SoftIouMean {
  const A* sums;
  A *loss, *slopes;  // (N, 2, classes): dl/dp_ic, first where y_ic = 1, then elsewhere
  int images;
  SoftIouForm form;

  template <class Group> PD_HD void operator()(Group g, int64_t) const {
    const int classes = form.measured;
    const Grid pairs{images, classes};
    const auto parts = [=, *this](int n) {
      return [=, *this](int k) { return SoftIouParts<A>::of(sums, n, classes, k); };
    };
    const A total =
        g.sum(pairs, [=, *this](int n) { return [=, *this, part = parts(n)](int k) { return part(k).loss(form); }; });
    const A used = g.sum(pairs, [=, *this](int n) {
      return [=, *this, part = parts(n)](int k) { return !form.skip || part(k).g > A(0) ? A(1) : A(0); };
    });
    g.once([=, *this] { *loss = used == A(0) ? A(0) : total / used; });
    g.each(pairs, [=, *this](int n) {
      return [=, *this, part = parts(n), to = slopes + int64_t(n) * 2 * classes](int k) {
        to[k] = used == A(0) ? A(0) : part(k).slope_own() / used;
        to[classes + k] = used == A(0) ? A(0) : part(k).slope_other(form) / used;
      };
    });
  }
};

template <class T, class A> struct SoftIouBackward {
  LabelledLogits<T> in;
  const A *slopes, *dloss;
  T* dlogits;  // (N, K, H, W)

  PD_HD static int64_t bytes(int pixels, int channels) {
    return tile_softmax_bytes<A>(pixels) + scratch_bytes<A>(pixels) + 2 * scratch_bytes<A>(channels);
  }
  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t n = in.tiles.image(row);
    const int pixels = in.tiles.count(row), channels = in.form.channels;
    A *slope_own = g.template scratch<A>(channels), *slope_other = g.template scratch<A>(channels);
    g.each(channels, [=, *this](int c) {
      const bool measured = in.form.measures(c);
      const A* of = slopes + n * 2 * in.form.measured + c - in.form.first;
      slope_own[c] = measured ? *dloss * of[0] : A(0);
      slope_other[c] = measured ? *dloss * of[in.form.measured] : A(0);
    });
    const auto s = tile_softmax<A>(g, in, row);
    const auto slope = [=](int c) {
      return [=, own = slope_own[c], other = slope_other[c]](int i) { return s.own[i] == c ? own : other; };
    };
    A* mean = g.template scratch<A>(pixels);  // of the slopes, times the softmax's total
    g.column_sums(
        Grid{1, pixels}, mean, [form = in.form](int) { return Span{form.first, form.first + form.measured}; },
        [=](int, int c) { return [power = s.power(c), of = slope(c)](int i) { return power(i) * of(i); }; });
    T* to = dlogits + n * channels * in.tiles.total + in.tiles.first(row);
    g.fill(
        Grid{channels, pixels}, [=, area = in.tiles.total](int c) { return to + c * area; },
        [=](int c) {
          return [=, power = s.power(c), of = slope(c)](int i) {
            const A per = s.per_total[i];
            return power(i) * per * (of(i) - mean[i] * per);
          };
        });
  }
};

}  // namespace pydistill::math
