// s_a = max_c |sigma(t_ac) - sigma(s_ac)|;  b_a: the teacher's box where sigma(t) >= sigma(s) at that class, else the
// student's. On each level the anchor of largest s joins the region and takes out those whose box has an IoU > limit with
// its own; then the next, until `top` have joined or none is left. Of equals the first joins.
#pragma once
#include "math/elementary.h"
#include "math/padded_boxes.h"

namespace pydistill::math {

// One row = one anchor of one image. What takes no part scores -infinity.
template <class T, class A> struct GeneralInstances {
  const T *student, *teacher;              // (B, A, C)
  const A *student_boxes, *teacher_boxes;  // (B, A, 4)
  const bool* valid;                       // (B, A) or null
  A *score, *box;                          // (B, A), (B, A, 4)
  bool* inside;                            // (B, A)
  int classes;
  bool activated;  // they are probabilities already

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    activated ? compare(g, row, [](T x) { return A(x); })
              : compare(g, row, [](T x) { return A(1) / (A(1) + exp(-A(x))); });
  }

 private:
  template <class Group, class P> PD_HD void compare(Group g, int64_t row, P probability) const {
    const T *s = student + row * classes, *t = teacher + row * classes;
    const Candidate<A> most = g.argmin(classes, [=](int c) {
      const A d = std::abs(probability(t[c]) - probability(s[c]));
      return Candidate<A>{d == d ? -d : A(-INFINITY)};  // a NaN comes first, and is seen below
    });
    g.once([=, *this] {
      inside[row] = false;
      score[row] = A(-INFINITY);
      if (!(most.value > A(-INFINITY) && most.value < A(INFINITY)) || (valid && !valid[row])) return;
      const bool teachers = probability(t[most.index]) >= probability(s[most.index]);
      const Box<A> b = load_box<A>((teachers ? teacher_boxes : student_boxes) + 4 * row);
      if (!b.proper()) return;
      store_box(box + 4 * row, b);
      score[row] = -most.value;
    });
  }
};

// One row = a level of one image, or of the whole batch.
template <class A> struct TopInstances {
  A* score;
  const A* box;
  bool* inside;
  Levels levels;
  int images;  // of a row
  int top;
  A limit;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int level = int(row % levels.count), size = levels.size(level);
    const int64_t first = row / levels.count * images * int64_t(levels.total()) + levels.first[level];
    const auto at = [=, one = images == 1, total = levels.total()](int i) {
      return first + (one ? i : int64_t(i / size) * total + i % size);
    };
    Candidate<A> next = g.argmin(size * images, [=, s = score](int i) { return Candidate<A>{-s[at(i)]}; });
    for (int joined = 0; next.value < A(INFINITY);) {
      g.once([=, *this] { inside[at(next.index)] = true; });
      if (++joined == top) return;
      const Box<A> own = load_box<A>(box + 4 * at(next.index));
      next = g.argmin(size * images, [=, *this](int i) {
        const int64_t k = at(i);
        A s = score[k];
        if (s > A(-INFINITY) && (i == next.index || iou(load_box<A>(box + 4 * k), own, kAreaFloor<A>) > limit))
          s = score[k] = A(-INFINITY);
        return Candidate<A>{-s};
      });
    }
  }
};

}  // namespace pydistill::math
