// Host side of soft_iou_loss, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "core/check.h"
#include "core/launch.h"
#include "math/soft_iou_loss.h"

namespace pydistill {

namespace soft_iou {

constexpr int kMostClasses = 1024;  // what a block's scratch holds the slopes of

inline math::SoftIouForm form(const char* op, const TensorView& logits, int64_t soft, int64_t first, int64_t measured,
                              bool sigmoid, bool literal, bool skip) {
  check::rank(op, "logits of shape (N, K, H, W)", logits, 4);
  const int64_t n = logits.size(0), k = logits.size(1);
  check::that(k >= 1 && k <= kMostClasses, op, "1 to 1024 classes", k);
  check::that(n <= std::numeric_limits<int>::max() / k, op, "fewer than 2^31 images and classes", n);
  check::that(0 <= soft && soft <= first && first < k && measured >= 1 && measured <= k - first && (!sigmoid || k == 1),
              op, "a form that fits the classes", k);
  return {int(k), int(soft), int(first), int(measured), sigmoid, literal, skip};
}

template <class Device, class T>
math::LabelledLogits<T> pixels(const char* op, const TensorView& logits, const TensorView& labels, int64_t ignore_index,
                               const math::SoftIouForm& form) {
  const int64_t h = logits.size(2), w = logits.size(3);
  const bool side_by_side = (w <= 1 || logits.stride(3) == 1) && (h <= 1 || logits.stride(2) == w);
  check::that(logits.numel() == 0 || side_by_side, op, "logits with pixels side by side", "other strides");
  check::buffer(op, "labels", labels, {logits.size(0), h, w}, ScalarKind::Int64, logits);
  return {logits.ptr<const T>(),   logits.stride(0), logits.stride(1), labels.ptr<const int64_t>(), ignore_index, form,
          {h * w, Device::kPixels}};
}

}  // namespace soft_iou

// How many parts of an image are summed apart: the size of `partial`.
template <class Device> int64_t soft_iou_tiles(int64_t pixels) {
  return math::Tiles{pixels, Device::kPixels}.per_image();
}

// The softmax runs over the channels from `soft` on; the IoU of `measured` classes from `first` on counts.
// partial (N, tiles, 3, measured) and sums (N, 3, measured): scratch; loss (); slopes (N, 2, measured): kept.
template <class Device>
void soft_iou_loss(const Context& context, const TensorView& logits, const TensorView& labels, int64_t ignore_index,
                   int64_t soft, int64_t first, int64_t measured, bool sigmoid, bool literal, bool skip,
                   const TensorView& partial, const TensorView& sums, const TensorView& loss,
                   const TensorView& slopes) {
  constexpr auto op = "soft_iou_loss";
  const auto form = soft_iou::form(op, logits, soft, first, measured, sigmoid, literal, skip);
  with_floating(op, logits, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const auto in = soft_iou::pixels<Device, T>(op, logits, labels, ignore_index, form);
    const int64_t n = logits.size(0), tiles = in.tiles.per_image();
    check::buffer(op, "partial", partial, {n, tiles, 3, measured}, kind_of<A>, logits);
    check::buffer(op, "sums", sums, {n, 3, measured}, kind_of<A>, logits);
    check::buffer(op, "loss", loss, {}, kind_of<A>, logits);
    check::buffer(op, "slopes", slopes, {n, 2, measured}, kind_of<A>, logits);
    Device::rows(context, n * tiles, int64_t(2) * form.channels * in.tiles.size,
                 math::SoftIouSums<T, A>{in, partial.ptr<A>()}, math::tile_softmax_bytes<A>(in.tiles.size));
    Device::rows(context, n, 3 * measured * tiles,
                 math::SoftIouImage<A>{partial.ptr<A>(), sums.ptr<A>(), int(tiles), int(measured)});
    Device::rows(context, 1, n * measured,
                 math::SoftIouMean<A>{sums.ptr<A>(), loss.ptr<A>(), slopes.ptr<A>(), int(n), form});
  });
}

// dlogits: contiguous, of the logits' shape.
template <class Device>
void soft_iou_loss_backward(const Context& context, const TensorView& dloss, const TensorView& logits,
                            const TensorView& labels, int64_t ignore_index, int64_t soft, int64_t first,
                            int64_t measured, bool sigmoid, const TensorView& slopes, const TensorView& dlogits) {
  constexpr auto op = "soft_iou_loss_backward";
  const auto form = soft_iou::form(op, logits, soft, first, measured, sigmoid, false, false);
  with_floating(op, logits, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    using Body = math::SoftIouBackward<T, A>;
    const auto in = soft_iou::pixels<Device, T>(op, logits, labels, ignore_index, form);
    const int64_t n = logits.size(0);
    check::buffer(op, "dloss", dloss, {}, kind_of<A>, logits);
    check::buffer(op, "slopes", slopes, {n, 2, measured}, kind_of<A>, logits);
    check::buffer(op, "dlogits", dlogits, {n, logits.size(1), logits.size(2), logits.size(3)}, kind_of<T>, logits);
    Device::rows(context, n * in.tiles.per_image(), int64_t(3) * form.channels * in.tiles.size,
                 Body{in, slopes.ptr<A>(), dloss.ptr<A>(), dlogits.ptr<T>()},
                 Body::bytes(in.tiles.size, form.channels));
  });
}

}  // namespace pydistill
