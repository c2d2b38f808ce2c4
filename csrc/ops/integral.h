// Host side of integral, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "core/check.h"
#include "core/launch.h"
#include "core/pages.h"
#include "math/integral.h"

namespace pydistill {

namespace expectation {

// Rows of n logits along the last dimension; bins: (n,) or None; mask: bool, one per row, or None.
template <class T, class A>
math::BinRows<T, A> rows(const char* op, const TensorView& logits, const TensorView& bins, const TensorView& mask) {
  check::that(logits.ndim >= 1, op, "logits of shape (..., n)", logits);
  const int64_t n = logits.size(logits.ndim - 1);
  check::that(n >= 1 && n <= std::numeric_limits<int>::max(), op, "at least one bin", n);
  if (bins.present()) check::buffer(op, "bins", bins, {n}, kind_of<A>, logits);
  if (mask.present()) check::buffer(op, "mask", mask, {logits.numel() / n}, ScalarKind::Bool, logits);
  return {rows_of<const T>(op, logits, logits.ndim - 1), bins.ptr<A>(), mask.ptr<bool>(), int(n)};
}

}  // namespace expectation

// out: (R,) one value per row.
template <class Device>
void integral(const Context& context, const TensorView& logits, const TensorView& bins, const TensorView& mask,
              const TensorView& out) {
  constexpr auto op = "integral";
  with_floating(op, logits, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const auto in = expectation::rows<T, A>(op, logits, bins, mask);
    const int64_t n = logits.numel() / in.n;
    check::buffer(op, "out", out, {n}, kind_of<A>, logits);
    Device::short_rows(context, n, in.n, math::Integral<T, A>{in, out.ptr<A>()});
  });
}

// dout: (R,); dlogits: the logits' shape, of any strides; adds: to what it holds.
template <class Device>
void integral_backward(const Context& context, const TensorView& dout, const TensorView& logits, const TensorView& bins,
                       const TensorView& mask, bool adds, const TensorView& dlogits) {
  constexpr auto op = "integral_backward";
  with_floating(op, logits, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const auto in = expectation::rows<T, A>(op, logits, bins, mask);
    check::kind(op, "dlogits", dlogits, kind_of<T>);
    check::buffer(op, "dout", dout, {logits.numel() / in.n}, kind_of<A>, logits);
    check::that(dlogits.ndim == logits.ndim && dlogits.numel() == logits.numel() &&
                    dlogits.size(logits.ndim - 1) == in.n && check::same_device(dlogits, logits),
                op, "dlogits of the logits' shape and device", dlogits);
    huge_pages(dlogits);
    const math::IntegralBackward<T, A> body{in, dout.ptr<A>(), {rows_of<T>(op, dlogits, logits.ndim - 1), adds}};
    Device::short_rows(context, logits.numel() / in.n, in.n, body);
  });
}

}  // namespace pydistill
