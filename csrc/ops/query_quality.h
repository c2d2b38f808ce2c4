// Host side of query_quality, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "math/query_quality.h"
#include "ops/padded_boxes.h"

namespace pydistill {

// scores (N, Q, C), boxes (N, Q, 4); target_boxes (B, T, 4), counts (B,), image_sizes (B, 2) or None, N = stages * B.
// rank (N, Q), None for the released form, entry (N, K), corners (N, 4, K): scratch. quality, index (N, K).
template <class Device>
void query_quality(const Context& context, const TensorView& scores, const TensorView& boxes,
                   const TensorView& target_boxes, const TensorView& counts, const TensorView& image_sizes,
                   double gamma, bool released, bool activated, const TensorView& rank, const TensorView& entry,
                   const TensorView& corners, const TensorView& quality, const TensorView& index) {
  constexpr auto op = "query_quality";
  check::rank(op, "scores of shape (N, Q, C)", scores, 3);
  check::rank(op, "quality of shape (N, K)", quality, 2);
  const int64_t n = scores.size(0), q = scores.size(1), c = scores.size(2), k = quality.size(1);
  constexpr int64_t most = std::numeric_limits<int>::max();
  check::that(q < check::kMostAnchors && c <= most && q * c <= most && n <= most, op,
              "fewer than 2^31 images, and scores of each", scores);
  check::that(k <= (released ? q * c
                    : c > 0  ? q
                             : 0) &&
                  k <= std::numeric_limits<int>::max(),
              op, "no more of the best than there are", quality);
  with_floating(op, scores, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    check::buffer(op, "scores", scores, {n, q, c}, kind_of<T>, scores);
    check::buffer(op, "boxes", boxes, {n, q, 4}, kind_of<A>, scores);
    check::padded_boxes(op, "target_boxes", target_boxes, counts, boxes);
    const int64_t images = target_boxes.size(0);
    check::that(images > 0 ? n % images == 0 : n == 0, op, "target_boxes of each image", target_boxes);
    if (image_sizes.present()) check::buffer(op, "image_sizes", image_sizes, {images, 2}, kind_of<A>, scores);
    if (!released) check::buffer(op, "rank", rank, {n, q}, kind_of<A>, scores);
    check::buffer(op, "entry", entry, {n, k}, ScalarKind::Int32, scores);
    check::buffer(op, "corners", corners, {n, 4, k}, kind_of<A>, scores);
    check::buffer(op, "quality", quality, {n, k}, kind_of<A>, scores);
    check::buffer(op, "index", index, {n, k}, ScalarKind::Int64, scores);
    if (n * k == 0) return;
    const auto run = [&]<class R>(const R* ranked, int64_t per_query) {
      Device::rows(
          context, n, q * per_query + k * (k + target_boxes.size(1)),
          math::QueryQuality<R, A>{ranked, boxes.ptr<A>(), padded_boxes<A>(target_boxes, counts), image_sizes.ptr<A>(),
                                   entry.ptr<int>(), corners.ptr<A>(), quality.ptr<A>(), index.ptr<int64_t>(),
                                   int(images), int(q), int(k), int(per_query), A(gamma), activated, released});
    };
    if (released) return run(scores.ptr<const T>(), c);
    Device::short_rows(context, n * q, int(c), math::LargestScore<T, A>{scores.ptr<T>(), rank.ptr<A>(), int(c)});
    run(rank.ptr<const A>(), 1);
  });
}

}  // namespace pydistill
