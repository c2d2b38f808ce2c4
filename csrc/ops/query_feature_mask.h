// Host side of query_feature_mask, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "core/launch.h"
#include "math/query_feature_mask.h"
#include "ops/feature_map.h"

namespace pydistill {

// queries (N, Q, D), quality (N, K), index (N, K) or None; share (N, K): scratch; direction (N, D).
template <class Device>
void query_direction(const Context& context, const TensorView& queries, const TensorView& quality,
                     const TensorView& index, const TensorView& share, const TensorView& direction) {
  constexpr auto op = "query_direction";
  check::rank(op, "queries of shape (N, Q, D)", queries, 3);
  check::rank(op, "quality of shape (N, K)", quality, 2);
  const int64_t n = queries.size(0), q = queries.size(1), d = queries.size(2), k = quality.size(1);
  constexpr int64_t most = std::numeric_limits<int>::max();
  check::that(q <= most && k <= most && d <= most, op, "fewer than 2^31 queries and channels", queries);
  check::that(index.present() || k == q, op, "an index, or the quality of each query", quality);
  with_floating(op, queries, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    check::buffer(op, "queries", queries, {n, q, d}, kind_of<T>, queries);
    check::buffer(op, "quality", quality, {n, k}, kind_of<A>, queries);
    if (index.present()) check::buffer(op, "index", index, {n, k}, ScalarKind::Int64, queries);
    check::buffer(op, "share", share, {n, k}, kind_of<A>, queries);
    check::buffer(op, "direction", direction, {n, d}, kind_of<A>, queries);
    Device::rows(context, n, 2 * k * d,
                 math::QueryDirection<T, A>{queries.ptr<T>(), quality.ptr<A>(), index.ptr<int64_t>(), share.ptr<A>(),
                                            direction.ptr<A>(), int(q), int(k), int(d)});
  });
}

constexpr int kMaskPixels = 64;  // of a tile: the features of its pixels stay near while stages take turns

// How many tiles an image of so many pixels has.
template <class Device> int64_t query_mask_tiles(int64_t pixels) {
  return math::Tiles{pixels, kMaskPixels}.per_image();
}

// features (B, D, H, W), direction (stages, B, D), mask (stages, B, H, W); most (B, tiles, stages): scratch, present to
// divide each mask by its largest value.
template <class Device>
void query_feature_mask(const Context& context, const TensorView& features, const TensorView& direction, double floor,
                        bool interleaved, const TensorView& most, const TensorView& mask) {
  constexpr auto op = "query_feature_mask";
  check::rank(op, "features of shape (B, D, H, W)", features, 4);
  check::rank(op, "mask of shape (stages, B, H, W)", mask, 4);
  const int64_t b = features.size(0), d = features.size(1), h = features.size(2), w = features.size(3),
                stages = mask.size(0);
  const math::Tiles tiles{h * w, kMaskPixels};
  check::that(d <= std::numeric_limits<int>::max() && h * w <= std::numeric_limits<int>::max(), op,
              "fewer than 2^31 channels and pixels", features);
  with_floating(op, features, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    using Body = math::Similarity<T, A>;
    check::that(Body::bytes(int(stages), tiles.size) <= Cuda::kSharedBytes, op, "fewer stages", mask);
    check::buffer(op, "direction", direction, {stages, b, d}, kind_of<A>, features);
    check::buffer(op, "mask", mask, {stages, b, h, w}, kind_of<A>, features);
    if (most.present()) check::buffer(op, "most", most, {b, tiles.per_image(), stages}, kind_of<A>, features);
    if (mask.numel() == 0) return;
    Device::rows(context, b * tiles.per_image(), (stages + 1) * d * tiles.size,
                 Body{feature_map<const T>(op, "features", features, interleaved), direction.ptr<A>(), mask.ptr<A>(),
                      most.ptr<A>(), int(d), int(stages), b, interleaved, tiles, A(floor)},
                 Body::bytes(int(stages), tiles.size));
    if (most.present())
      Device::rows(context, stages * b, h * w,
                   math::DivideByMost<A>{most.ptr<A>(), mask.ptr<A>(), int(stages), int(tiles.per_image()), b, h * w});
  });
}

}  // namespace pydistill
