// cost(q, t) = w_class class(q, t) + w_l1 |l1(q) - l1(t)|_1 - w_giou GIoU(box(q), box(t)), of the queries and the
// targets of one image: DETR, Carion et al. 2020, arXiv:2005.12872, section 3.1.
// What matches nothing costs infinity: a box that is inverted or not finite, a label outside [0, C).
// T: storage type.  A: accumulation type.
#pragma once
#include "math/box_format.h"
#include "math/match_class.h"

namespace pydistill::math {

// A box that matches nothing costs infinity on top of what any other would, so that loops over boxes need no branch.
template <class A> struct MatchBox {
  A l1[4];
  Box<A> box;
  A penalty;
  PD_HD static MatchBox none(A penalty = 0) { return {{0, 0, 0, 0}, {0, 0, 1, 1}, penalty}; }
  PD_HD static MatchBox checked(const Box<A>& l1, const Box<A>& box) {
    if (!box.proper()) return none(A(INFINITY));
    return {{l1.x1, l1.y1, l1.x2, l1.y2}, box, A(0)};
  }
};

// How four numbers, or null, become what L1 and GIoU compare. Sizes turn unit coordinates into pixels, for GIoU alone.
struct BoxReader : BoxFormat {
  template <class A, class T> PD_HD MatchBox<A> operator()(const T* p, const A* size) const {
    if (!p) return MatchBox<A>::none();
    const Box<A> four{A(p[0]), A(p[1]), A(p[2]), A(p[3])};
    const ComparedBox<A> b = read(four, size ? size[1] : A(1), size ? size[0] : A(1));
    return MatchBox<A>::checked(b.l1, b.box);
  }
};

// One array per number, so that neighbours are queries.
template <class A> struct QueryBoxes {
  enum { L1, X1 = 4, Y1, X2, Y2, Penalty, Arrays };
  A* data;
  int stride;
  PD_HD QueryBoxes(Workspace& memory, int count)
      : data(memory.take<A>(Arrays * aligned(count))), stride(aligned(count)) {}
  static int64_t bytes(int count) { return Workspace::bytes<A>(Arrays * aligned(count)); }

  PD_HD A& at(int array, int i) const { return data[array * stride + i]; }
  PD_HD void put(int i, const MatchBox<A>& b) const {
    for (int k = 0; k < 4; ++k) at(L1 + k, i) = b.l1[k];
    at(X1, i) = b.box.x1, at(Y1, i) = b.box.y1, at(X2, i) = b.box.x2, at(Y2, i) = b.box.y2;
    at(Penalty, i) = b.penalty;
  }
  PD_HD A distance(int i, const A* other) const {
    return std::abs(at(L1, i) - other[0]) + std::abs(at(L1 + 1, i) - other[1]) + std::abs(at(L1 + 2, i) - other[2]) +
           std::abs(at(L1 + 3, i) - other[3]);
  }
  PD_HD Box<A> box(int i) const { return {at(X1, i), at(Y1, i), at(X2, i), at(Y2, i)}; }
  PD_HD A penalty(int i) const { return at(Penalty, i); }

 private:
  PD_HD static int aligned(int count) { return int(Workspace::bytes<A>(count) / int64_t(sizeof(A))); }
};

// `count` queries of image n, prepared, against its targets.
template <class Pairs, class Term> struct PairTile {
  using A = typename Pairs::Value;
  Pairs pairs;
  int64_t n;
  int count;
  QueryBoxes<A> query;
  Term term;

  // out[k * stride + i] = cost of target first + k and query i. One copy of the code on a CPU, so that all who ask see the
  // same bits.
  template <class Group>
  [[gnu::noclone]] PD_LOOP void write(const Group& g, int first, int targets, A* out, int64_t stride) const {
    g.each(Grid{targets, count}, [=, *this](int k) {
      const int t = first + k;
      const A* corners = pairs.target_boxes.at(n);
      const MatchBox<A> target = pairs.target_reader(corners ? corners + int64_t(t) * 4 : nullptr, pairs.sizes.at(n));
      const int64_t label = Pairs::kLabels ? pairs.labels.at(n)[t] : 0;
      const bool known = !Pairs::kLabels || (label >= 0 && label < pairs.classes);
      const A penalty = known ? target.penalty : A(INFINITY);
      A* to = out + k * stride;
      return [=, q = query, l1 = pairs.l1_weight, overlap = pairs.giou_weight, eps = pairs.giou_eps,
              cost = term(known ? label : 0, static_cast<const A*>(to))](int i) {
        const A boxes = l1 * q.distance(i, target.l1) - overlap * giou(q.box(i), target.box, eps);
        to[i] = (cost(i) + boxes) + (q.penalty(i) + penalty);
      };
    });
  }
};

template <class T, class A, class Class> struct MatchPairs {
  using Value = A;
  static constexpr bool kLabels = Class::kLabels;
  const T* boxes;            // (N, Q, 4), or null: no box terms
  PerImage<int64_t> labels;  // (B or N, T), or null
  PerImage<A> target_boxes;  // (B or N, T, 4), or null
  PerImage<int64_t> counts;  // (B or N), or null
  PerImage<A> sizes;         // (B, 2): h, w in pixels, or null
  Class class_cost;
  int targets, classes;
  BoxReader reader;  // of the queries
  BoxReader target_reader;
  A l1_weight, giou_weight, giou_eps;

  static int64_t bytes(int count) { return QueryBoxes<A>::bytes(count) + Class::bytes(count); }

  // Of image n, from query `start` of all N * Q on.
  template <class Group>
  [[gnu::noclone]] PD_LOOP auto tile(const Group& g, Workspace& memory, int64_t n, int64_t start, int count) const {
    const QueryBoxes<A> query(memory, count);
    g.each(count, [=, from = boxes ? boxes + start * 4 : nullptr, size = sizes.at(n), read = reader](int i) {
      query.put(i, read(from ? from + int64_t(i) * 4 : nullptr, size));
    });
    const auto term = class_cost.tile(g, memory, start, count);
    return PairTile<MatchPairs, decltype(term)>{*this, n, count, query, term};
  }

  PD_HD int known_targets(int64_t n) const {
    const int64_t* known = counts.at(n);
    if (kLabels && classes == 0) return 0;  // no label is known
    return !known || *known > targets ? targets : *known < 0 ? 0 : int(*known);
  }
};

}  // namespace pydistill::math
