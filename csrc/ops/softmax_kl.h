// Host side of softmax_kl, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "core/check.h"
#include "core/launch.h"
#include "core/pages.h"
#include "math/softmax_kl.h"
#include "ops/row_sum.h"

namespace pydistill {

namespace kl {

// f(Tag<S>, Tag<U>) with the storage types of student and teacher: the same, or a float32 teacher of a half student.
template <class F> void with_pair(const char* op, const TensorView& student, const TensorView& teacher, F f) {
  if (student.kind() > ScalarKind::BFloat16)
    throw DtypeError(std::string(op) + ": expected a floating point dtype, got " + kind_name(student.kind()));
  with_floating(op, student, [&](auto tag) {
    using S = typename decltype(tag)::type;
    if (teacher.kind() == kind_of<S>) return f(tag, tag);
    if constexpr (sizeof(S) == 2) {
      if (teacher.kind() == ScalarKind::Float32) return f(tag, Tag<float>{});
    }
    check::kind(op, "teacher", teacher, kind_of<S>);
  });
}

inline void same_shape(const char* op, const char* expected, const TensorView& a, const TensorView& b) {
  check::that(check::same_shape(a, b) && check::same_device(a, b), op, expected, b);
}

inline void gradient(const char* op, const char* name, const TensorView& t, const TensorView& of) {
  same_shape(op, name, of, t);
  check::kind(op, name, t, of.kind());
  huge_pages(t);
}

template <class S, class U, class A>
math::KlRows<S, U, A> rows(const char* op, const TensorView& student, const TensorView& teacher,
                           const TensorView& weight, double temperature, int64_t dim) {
  check::positive(op, "temperature", temperature);
  check::that(dim >= 0 && dim < student.ndim, op, "dim within the student's dimensions", dim);
  same_shape(op, "teacher of the student's shape and device", student, teacher);
  const int64_t n = student.size(int(dim));
  check::that(n >= 1 && n <= std::numeric_limits<int>::max(), op, "at least one bin", n);
  Rows<const A> weights;
  if (weight.present())
    weights = row_sum::per_row<A>(op, "weight of one number per row", weight, student.numel() / n, student);
  return {rows_of<const S>(op, student, int(dim)), rows_of<const U>(op, teacher, int(dim)), weights, int(n),
          A(1 / temperature)};
}

}  // namespace kl

// rows, partial, total, avg_factor: as row_sum::sum has them.
// kept: the gradient of rows or total, of the student's shape, or None; not with a weight or avg_factor.
template <class Device>
void softmax_kl(const Context& context, const TensorView& student, const TensorView& teacher, const TensorView& weight,
                const TensorView& avg_factor, double temperature, int64_t dim, double scale, double reduction,
                const TensorView& rows, const TensorView& partial, const TensorView& total, const TensorView& kept) {
  constexpr auto op = "softmax_kl";
  kl::with_pair(op, student, teacher, [&](auto s, auto u) {
    using S = typename decltype(s)::type;
    using U = typename decltype(u)::type;
    using A = typename Accumulate<S>::type;
    const auto in = kl::rows<S, U, A>(op, student, teacher, weight, temperature, dim);
    const int64_t n = student.numel() / in.n;
    check::buffer(op, "rows", rows, {n}, kind_of<A>, student);
    if (kept.present()) kl::gradient(op, "kept of the student's shape and device", kept, student);
    check::that(!kept.present() || !(weight.present() || avg_factor.present()), op,
                "kept without weight and avg_factor", kept);
    const math::SoftmaxKl<S, U, A> body{in, rows.ptr<A>(), rows_of<S>(op, kept, int(dim)), A(scale),
                                        A(scale * reduction / temperature)};
    const auto sum = row_sum::sum<Device, A>(op, rows, partial, total, avg_factor, reduction);
    Device::short_rows(context, n, in.n, body, 0, interleaved(in.student));
    sum(context);
  });
}

// dloss: () or one per row, of any strides. scale: of a row's gradient, but for the weight and avg_factor.
// adds: to what dstudent holds.
template <class Device>
void softmax_kl_backward(const Context& context, const TensorView& dloss, const TensorView& student,
                         const TensorView& teacher, const TensorView& weight, const TensorView& avg_factor,
                         double temperature, int64_t dim, double scale, bool adds, const TensorView& dstudent,
                         const TensorView& dteacher) {
  constexpr auto op = "softmax_kl_backward";
  kl::with_pair(op, student, teacher, [&](auto s, auto u) {
    using S = typename decltype(s)::type;
    using U = typename decltype(u)::type;
    using A = typename Accumulate<S>::type;
    const auto in = kl::rows<S, U, A>(op, student, teacher, weight, temperature, dim);
    const int64_t n = student.numel() / in.n;
    if (dstudent.present()) kl::gradient(op, "dstudent of the student's shape and device", dstudent, student);
    if (dteacher.present()) kl::gradient(op, "dteacher of the teacher's shape and device", dteacher, teacher);
    const math::SoftmaxKlBackward<S, U, A> body{in,
                                                row_sum::dloss<A>(op, dloss, n, student),
                                                row_sum::factor<A>(op, avg_factor, student),
                                                {rows_of<S>(op, dstudent, int(dim)), adds},
                                                rows_of<U>(op, dteacher, int(dim)),
                                                A(scale / temperature)};
    Device::short_rows(context, n, in.n, body, 0, interleaved(in.student));
  });
}

}  // namespace pydistill
