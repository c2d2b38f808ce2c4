// l1 = w |p - t|_1,  giou = w (1 - GIoU(p, t)),  of a query's box p and the target t that it is matched with.
// d l1 / dp = w sign(p - t);  the gradient of GIoU: pairwise_iou.h. Where the union is not above 0 and eps is 0, GIoU
// counts as 0 and has no gradient. A query without a target, or of weight 0, is not read.
#pragma once
#include "math/box_format.h"
#include "math/pairwise_iou.h"
#include "math/per_image.h"

namespace pydistill::math {

template <class T, class A> struct MatchedBoxes {
  const T* boxes;        // (N, Q, 4)
  PerImage<A> targets;   // (B or N, T, 4)
  const int64_t* match;  // (N, Q), of target; outside [0, T): none
  const A* weight;       // (N, Q), or null
  PerImage<A> sizes;     // (B, 2): h, w in pixels, or null
  int known;             // T
  Tiles tiles;           // over the queries of an image
  BoxFormat format, target_format;
  A eps;

  struct Pair {
    ComparedBox<A> own, other;
    A eps;

    PD_HD bool flat() const {  // no union
      const A both = positive_area(intersection(own.box, other.box));
      return eps == A(0) && own.box.area() + other.box.area() - both <= A(0);
    }
    PD_HD A l1() const {
      return std::abs(own.l1.x1 - other.l1.x1) + std::abs(own.l1.y1 - other.l1.y1) + std::abs(own.l1.x2 - other.l1.x2) +
             std::abs(own.l1.y2 - other.l1.y2);
    }
    PD_HD A giou_loss() const { return flat() ? A(1) : A(1) - giou(own.box, other.box, eps); }
    PD_HD ComparedBox<A> gradient(A of_l1, A of_giou) const {
      const auto sign = [](A x) { return x > A(0) ? A(1) : x < A(0) ? A(-1) : A(0); };
      const Box<A> s{sign(own.l1.x1 - other.l1.x1), sign(own.l1.y1 - other.l1.y1), sign(own.l1.x2 - other.l1.x2),
                     sign(own.l1.y2 - other.l1.y2)};
      const Box<A> overlap = flat() ? Box<A>{} : math::gradient<Measure::Giou>(own.box, other.box, eps, true);
      return {s * of_l1, overlap * -of_giou};
    }
  };

  PD_HD A weight_of(int64_t i) const { return weight ? weight[i] : A(1); }
  PD_HD bool skips(int64_t i) const { return match[i] < 0 || match[i] >= known || weight_of(i) == A(0); }
  struct Image {  // what its queries have in common
    const A* targets;
    A w, h;
  };
  PD_HD Image image(int64_t n) const {
    const A* size = sizes.at(n);
    return {targets.at(n), size ? size[1] : A(1), size ? size[0] : A(1)};
  }
  PD_HD Pair pair(const Image& of, int64_t i) const {
    return {format.read(load_box<A>(boxes + 4 * i), of.w, of.h),
            target_format.read(load_box<A>(of.targets + 4 * match[i]), of.w, of.h), eps};
  }
};

// One row = a tile of an image's queries.
template <class T, class A> struct MatchedBoxLoss {
  MatchedBoxes<T, A> in;
  A *l1, *giou;  // (N, Q)

  template <class Group> PD_HD void operator()(Group g, int64_t tile) const {
    const int64_t n = in.tiles.image(tile), first = n * in.tiles.total + in.tiles.first(tile);
    const auto image = in.image(n);
    g.each(in.tiles.count(tile), [=, *this](int at) {
      const int64_t i = first + at;
      if (in.skips(i)) return void(l1[i] = giou[i] = A(0));
      const auto pair = in.pair(image, i);
      const A w = in.weight_of(i);
      l1[i] = w * pair.l1(), giou[i] = w * pair.giou_loss();
    });
  }
};

template <class T, class A> struct MatchedBoxLossBackward {
  MatchedBoxes<T, A> in;
  Rows<const A> dl1, dgiou;  // of N * Q numbers
  T* dboxes;                 // (N, Q, 4)

  template <class Group> PD_HD void operator()(Group g, int64_t tile) const {
    const int64_t n = in.tiles.image(tile), first = n * in.tiles.total + in.tiles.first(tile);
    const auto image = in.image(n);
    g.each(in.tiles.count(tile), [=, *this](int at) {
      const int64_t i = first + at;
      Box<A> d{};
      if (!in.skips(i)) {
        const auto pair = in.pair(image, i);
        const A w = in.weight_of(i);
        d = in.format.gradient(pair.gradient(w * *dl1.at(i), w * *dgiou.at(i)), image.w, image.h);
      }
      store_box(dboxes + 4 * i, d);
    });
  }
};

}  // namespace pydistill::math
