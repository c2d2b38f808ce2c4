// Host side of the focal losses of independent classes, written once for both devices and every target: check, launch.
#pragma once
#include "core/pages.h"
#include "math/focal_tiles.h"
#include "ops/row_sum.h"

namespace pydistill::focal {

inline int64_t row_count(const TensorView& logits) {
  int64_t rows = 1;
  for (int d = 0; d + 1 < logits.ndim; ++d) rows *= logits.size(d);
  return rows;
}

template <class A>
Rows<const A> per_row(const char* op, const char* name, const TensorView& t, const TensorView& logits) {
  return row_sum::per_row<A>(op, name, t, row_count(logits), logits);
}
template <class A> Rows<const A> weights(const char* op, const TensorView& t, const TensorView& logits) {
  return t.present() ? per_row<A>(op, "weight of one number per row", t, logits) : Rows<const A>{};
}

template <class T>
Rows<T> like_logits(const char* op, const char* expected, const TensorView& t, const TensorView& logits) {
  check::that(check::same_shape(t, logits) && check::same_device(t, logits), op, expected, t);
  check::kind(op, expected, t, logits.kind());
  huge_pages(t);
  return rows_of<T>(op, t, t.ndim - 1);
}
// What forward keeps, or None.
template <class T> Rows<T> kept_of(const char* op, const TensorView& t, const TensorView& logits) {
  return t.present() ? like_logits<T>(op, "kept of the logits' shape and device", t, logits) : Rows<T>{};
}

// f(Tag<T>, Tag<A>) with the storage type of the logits and what it accumulates in.
template <class F> void with_logits(const char* op, const TensorView& logits, F f) {
  if (logits.kind() > ScalarKind::BFloat16)
    throw DtypeError(std::string(op) + ": expected logits of a floating point dtype, got " + kind_name(logits.kind()));
  check::that(logits.ndim >= 1 && logits.size(logits.ndim - 1) <= std::numeric_limits<int>::max(), op,
              "logits of shape (..., C)", logits);
  with_floating(op, logits, [&](auto tag) { f(tag, Tag<typename Accumulate<typename decltype(tag)::type>::type>{}); });
}

template <class T, class A, class Targets, class Loss>
math::FocalRows<T, A, Targets, Loss> rows(const char* op, const TensorView& logits, const Targets& targets,
                                          const TensorView& weight, const Loss& loss) {
  const int last = logits.ndim - 1;
  return {rows_of<const T>(op, logits, last), targets, weights<A>(op, weight, logits), int(logits.size(last)), loss};
}

struct Outputs {  // as row_sum::sum has them; kept: the gradient of rows or of total before avg_factor, or None
  const TensorView &rows, &partial, &total, &kept;
};

// A GPU takes a row at a time, a CPU a tile of rows.
template <class Device, class Body> void launch(const Context& context, int64_t n, const Body& body) {
  const auto& in = body.rows;
  if constexpr (std::is_same_v<Device, Cpu>) {
    const int size = in.n < Device::kPixels && in.n > 0 ? Device::kPixels / in.n : 1;
    const math::FocalTiles<Body> tiles{body, n, size};
    Device::rows(context, (n + size - 1) / size, int64_t(size) * in.n, tiles);
  } else {
    Device::short_rows(context, n, in.n, body, 0, interleaved(in.logits));
  }
}

template <class Device, class T, class A, class Targets, class Loss>
void forward(const Context& context, const char* op, const TensorView& logits,
             const math::FocalRows<T, A, Targets, Loss>& in, const TensorView& avg_factor, double reduction,
             const Outputs& out) {
  const int64_t n = row_count(logits);
  check::buffer(op, "rows", out.rows, {n}, kind_of<A>, logits);
  const auto kept = kept_of<T>(op, out.kept, logits);
  const auto sum = row_sum::sum<Device, A>(op, out.rows, out.partial, out.total, avg_factor, reduction);
  launch<Device>(context, n,
                 math::FocalForward<std::remove_cvref_t<decltype(in)>>{in, out.rows.ptr<A>(), kept, A(reduction)});
  sum(context);
}

template <class Device, class T, class A, class Targets, class Loss>
void backward(const Context& context, const char* op, const TensorView& dloss, const TensorView& logits,
              const math::FocalRows<T, A, Targets, Loss>& in, const TensorView& avg_factor, double scale,
              const TensorView& dlogits) {
  const int64_t n = row_count(logits);
  const auto factor = row_sum::factor<A>(op, avg_factor, logits);
  const auto to = like_logits<T>(op, "dlogits of the logits' shape and device", dlogits, logits);
  using In = std::remove_cvref_t<decltype(in)>;
  launch<Device>(context, n,
                 math::FocalBackward<In>{in, row_sum::dloss<A>(op, dloss, n, logits), factor, to, A(scale)});
}

}  // namespace pydistill::focal
