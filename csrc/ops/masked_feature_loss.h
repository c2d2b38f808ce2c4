// Host side of masked_feature_loss, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "math/masked_feature_loss.h"
#include "ops/feature_map.h"
#include "ops/softmax_kl.h"

namespace pydistill {

namespace masked_feature {

constexpr int kPixels = 256;  // of a tile: small ones are skipped more often

inline int64_t tiles(const TensorView& student) {
  return student.size(0) * math::Tiles{student.size(2) * student.size(3), kPixels}.per_image();
}

// f(a MaskedPair)
template <class F>
void with_features(const char* op, const TensorView& student, const TensorView& teacher, const TensorView& mask,
                   int64_t norm, bool squared, bool interleaved, F f) {
  check::rank(op, "student of shape (N, C, H, W)", student, 4);
  kl::same_shape(op, "teacher of the student's shape and device", student, teacher);
  check::that(norm == 1 || norm == 2, op, "norm 1 or 2", norm);
  check::that(student.size(1) <= std::numeric_limits<int>::max(), op, "fewer than 2^31 channels", student);
  kl::with_pair(op, student, teacher, [&](auto s, auto u) {
    using S = typename decltype(s)::type;
    using U = typename decltype(u)::type;
    using A = typename Accumulate<S>::type;
    const int64_t n = student.size(0), h = student.size(2), w = student.size(3);
    check::buffer(op, "mask", mask, {n, h, w}, kind_of<A>, student);
    check::that(tiles(student) <= std::numeric_limits<int>::max(), op, "fewer than 2^31 tiles", student);
    const auto run = [&](auto of) {
      f(math::MaskedPair<S, U, A, decltype(of)>{feature_map<const S>(op, "student", student, interleaved),
                                                feature_map<const U>(op, "teacher", teacher, interleaved),
                                                mask.ptr<const A>(),
                                                int(student.size(1)),
                                                interleaved,
                                                squared,
                                                {h * w, kPixels},
                                                of},
        s, u);
    };
    norm == 2 ? run(math::Square{}) : run(math::Absolute{});
  });
}

}  // namespace masked_feature

// How many parts are summed apart: the size of `partial` and `mass`.
template <class Device> int64_t masked_feature_tiles(int64_t images, int64_t pixels) {
  return images * math::Tiles{pixels, masked_feature::kPixels}.per_image();
}

// normalizer (): or None. partial, mass (tiles,): scratch; mass present: its sum normalises. loss (); factor (): kept.
template <class Device>
void masked_feature_loss(const Context& context, const TensorView& student, const TensorView& teacher,
                         const TensorView& mask, const TensorView& normalizer, int64_t norm, bool squared,
                         bool interleaved, double scale, const TensorView& partial, const TensorView& mass,
                         const TensorView& loss, const TensorView& factor) {
  constexpr auto op = "masked_feature_loss";
  masked_feature::with_features(
      op, student, teacher, mask, norm, squared, interleaved, [&]<class In, class S, class U>(const In& in, S, U) {
        using A = std::remove_cvref_t<decltype(*in.mask)>;
        using Body = math::MaskedFeatureLoss<typename S::type, typename U::type, A, decltype(in.norm)>;
        const int64_t rows = masked_feature::tiles(student);
        if (normalizer.present()) check::buffer(op, "normalizer", normalizer, {}, kind_of<A>, student);
        check::buffer(op, "partial", partial, {rows}, kind_of<A>, student);
        if (mass.present()) check::buffer(op, "mass", mass, {rows}, kind_of<A>, student);
        check::buffer(op, "loss", loss, {}, kind_of<A>, student);
        check::buffer(op, "factor", factor, {}, kind_of<A>, student);
        Device::rows(context, rows, int64_t(in.channels) * in.tiles.size, Body{in, partial.ptr<A>(), mass.ptr<A>()},
                     Body::bytes(in.tiles.size));
        Device::rows(context, 1, rows,
                     math::MaskedFeatureTotal<A>{partial.ptr<A>(), mass.ptr<A>(), normalizer.ptr<A>(), loss.ptr<A>(),
                                                 factor.ptr<A>(), int(rows), A(scale)});
      });
}

// dstudent: of the student's shape, laid out as `interleaved` says.
template <class Device>
void masked_feature_loss_backward(const Context& context, const TensorView& dloss, const TensorView& student,
                                  const TensorView& teacher, const TensorView& mask, const TensorView& factor,
                                  int64_t norm, bool squared, bool interleaved, const TensorView& dstudent) {
  constexpr auto op = "masked_feature_loss_backward";
  masked_feature::with_features(
      op, student, teacher, mask, norm, squared, interleaved, [&]<class In, class S, class U>(const In& in, S, U) {
        using A = std::remove_cvref_t<decltype(*in.mask)>;
        using T = typename S::type;
        check::buffer(op, "dloss", dloss, {}, kind_of<A>, student);
        check::buffer(op, "factor", factor, {}, kind_of<A>, student);
        kl::gradient(op, "dstudent of the student's shape and device", dstudent, student);
        const auto to = feature_map<T>(op, "dstudent", dstudent, interleaved);
        Device::rows(context, masked_feature::tiles(student), int64_t(in.channels) * in.tiles.size,
                     math::MaskedFeatureBackward<T, typename U::type, A, decltype(in.norm)>{in, dloss.ptr<A>(),
                                                                                            factor.ptr<A>(), to});
      });
}

}  // namespace pydistill
