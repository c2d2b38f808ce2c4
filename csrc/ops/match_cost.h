// match_cost: host side.
#pragma once
#include <algorithm>

#include "core/check.h"
#include "core/launch.h"
#include "math/match_cost.h"

namespace pydistill {

struct MatchOptions {
  math::ClassCost class_cost;
  double class_weight, l1_weight, giou_weight, alpha, gamma, eps, giou_eps;
  bool corners, l1_corners, clamp_targets;
  bool labels() const { return class_cost == math::ClassCost::Focal || class_cost == math::ClassCost::Softmax; }
  bool scores() const { return !labels() && class_cost != math::ClassCost::None; }
};

struct MatchTensors {
  TensorView logits, boxes, labels, target_boxes, counts, sizes;
  int64_t targets;
  TensorView scores = {}, mask = {}, extra = {}, slopes = {}, constant = {}, cost = {};
  int64_t images() const { return logits.size(0); }
  int64_t queries() const { return logits.size(1); }
  int64_t classes() const { return logits.size(2); }
  static constexpr int kTile = 256;
  math::Tiles tiles() const { return {queries(), int(std::min<int64_t>(kTile, std::max<int64_t>(queries(), 1)))}; }
};

namespace match {

inline math::ClassCost class_cost_of(const char* op, int64_t k) {
  check::that(k >= 0 && k <= int64_t(math::ClassCost::None), op, "a class_cost below 6", k);
  return static_cast<math::ClassCost>(k);
}

template <class A> math::PerImage<A> per_image(const TensorView& t) {
  if (!t.present()) return {nullptr, 1, 0};
  return {t.ptr<A>(), t.size(0), t.size(0) ? t.numel() / t.size(0) : 0};
}

// (B, ...) or (N, ...) with N a multiple of B; `rest` is what follows the first dimension.
inline void repeated(const char* op, const char* name, const TensorView& t, std::initializer_list<int64_t> rest,
                     ScalarKind kind, const MatchTensors& tensors) {
  const int64_t n = tensors.images();
  check::that(t.ndim == int(rest.size()) + 1 && (t.size(0) == n || (t.size(0) > 0 && n % t.size(0) == 0)), op,
              (std::string(name) + " of one entry an image").c_str(), t);
  int64_t shape[4] = {t.size(0)};
  std::copy(rest.begin(), rest.end(), shape + 1);
  for (int d = 1; d < t.ndim; ++d)
    check::that(t.size(d) == shape[d], op, (std::string(name) + " shaped like the others").c_str(), t);
  check::kind(op, name, t, kind);
  check::that(t.contiguous() && check::same_device(t, tensors.logits), op,
              (std::string(name) + " contiguous, on the device of the others").c_str(), t);
}

template <class T, class A> void check_tensors(const char* op, const MatchTensors& x, const MatchOptions& options) {
  const int64_t n = x.images(), q = x.queries(), t = x.targets, c = x.classes();
  check::buffer(op, "logits", x.logits, {n, q, c}, kind_of<T>, x.logits);
  if (x.boxes.present()) check::buffer(op, "boxes", x.boxes, {n, q, 4}, kind_of<T>, x.logits);
  if (x.extra.present()) check::buffer(op, "extra", x.extra, {n, t, q}, kind_of<A>, x.logits);
  if (x.cost.present()) check::buffer(op, "cost", x.cost, {n, t, q}, kind_of<A>, x.logits);
  if (options.labels()) repeated(op, "target_labels", x.labels, {t}, ScalarKind::Int64, x);
  check::that(x.boxes.present() == x.target_boxes.present(), op, "both boxes and target_boxes, or none", x.boxes);
  if (x.boxes.present()) repeated(op, "target_boxes", x.target_boxes, {t, 4}, kind_of<A>, x);
  if (x.counts.present()) repeated(op, "counts", x.counts, {}, ScalarKind::Int64, x);
  if (x.sizes.present()) repeated(op, "image_sizes", x.sizes, {2}, kind_of<A>, x);
  if (!options.scores()) return;
  repeated(op, "target_scores", x.scores, {t, c}, kind_of<A>, x);
  if (x.mask.present()) repeated(op, "token_mask", x.mask, {c}, ScalarKind::Bool, x);
  check::buffer(op, "slopes", x.slopes, {n, c, q}, kind_of<A>, x.logits);
  check::buffer(op, "constant", x.constant, {n, q}, kind_of<A>, x.logits);
}

template <class T, class A, class Class>
math::MatchPairs<T, A, Class> pairs(const MatchTensors& x, const MatchOptions& o, const Class& class_cost) {
  return {x.boxes.ptr<T>(),
          per_image<int64_t>(x.labels),
          per_image<A>(x.target_boxes),
          per_image<int64_t>(x.counts),
          per_image<A>(x.sizes),
          class_cost,
          int(x.targets),
          int(x.classes()),
          {o.corners, o.l1_corners, false},
          {o.corners, o.l1_corners, o.clamp_targets},
          A(o.l1_weight),
          A(o.giou_weight),
          A(o.giou_eps)};
}

// The costs that read nothing but logits, labels and boxes: f(pairs).
template <class T, class A, class F> void with_pairs(const MatchTensors& x, const MatchOptions& o, F f) {
  if (o.class_cost == math::ClassCost::None) return f(pairs<T, A>(x, o, math::NoClass{}));
  const T* logits = x.logits.ptr<T>();
  const int classes = int(x.classes());
  const A weight = A(o.class_weight);
  if (o.class_cost == math::ClassCost::Softmax)
    return f(pairs<T, A>(x, o, math::SoftmaxClass<T, A>{logits, classes, weight}));
  math::with_power(A(o.gamma), [&](auto power) {
    f(pairs<T, A>(x, o,
                  math::FocalClass<T, A, decltype(power)>{logits, classes, weight, {A(o.alpha), A(o.eps), power}}));
  });
}

template <class Device, class Pairs> void launch(const Context& context, const MatchTensors& x, const Pairs& pairs) {
  using A = typename Pairs::Value;
  const math::Tiles tiles = x.tiles();
  const int64_t bytes = Pairs::bytes(tiles.size);
  const math::MatchCost<Pairs> body{pairs, x.extra.ptr<A>(), x.cost.ptr<A>(), tiles, bytes};
  Device::rows(context, x.images() * tiles.per_image(), 8 * tiles.size * x.targets, body, bytes);
}

template <class Device, class T, class A, class P>
void soft(const Context& context, const MatchTensors& x, const MatchOptions& o, const math::Focal<A, P>& focal) {
  const int queries = int(x.queries()), classes = int(x.classes()), targets = int(x.targets);
  const math::Tiles tiles = x.tiles();
  Device::rows(context, x.images() * tiles.per_image(), 8 * tiles.size * classes,
               math::SoftClassTable<T, A, P>{x.logits.ptr<T>(),
                                             per_image<bool>(x.mask),
                                             x.slopes.ptr<A>(),
                                             x.constant.ptr<A>(),
                                             classes,
                                             tiles,
                                             {o.class_cost, focal}});
  Device::rows(
      context, x.images() * targets, int64_t(queries) * classes,
      math::SoftClassSums<A>{x.slopes.ptr<A>(), per_image<A>(x.scores), x.cost.ptr<A>(), targets, queries, classes});
  launch<Device>(context, x, pairs<T, A>(x, o, math::SoftClass<A>{x.constant.ptr<A>(), A(o.class_weight)}));
}

template <class Device, class T, class A>
void dispatch(const Context& context, const MatchTensors& x, const MatchOptions& o) {
  if (!o.scores()) return with_pairs<T, A>(x, o, [&](const auto& p) { launch<Device>(context, x, p); });
  math::with_power(A(o.gamma), [&](auto power) {
    soft<Device, T, A>(context, x, o, math::Focal<A, decltype(power)>{A(o.alpha), A(o.eps), power});
  });
}

}  // namespace match

// cost (N, T, Q) of logits (N, Q, C) and boxes (N, Q, 4), if any, added to extra (N, T, Q), if any. Targets, counts,
// sizes and mask have N entries or a length that divides N: they repeat. target_scores (., T, C) with the buffers
// slopes (N, C, Q), constant (N, Q): soft class targets.
template <class Device>
void match_cost(const Context& context, const TensorView& logits, const TensorView& boxes,
                const TensorView& target_labels, const TensorView& target_boxes, const TensorView& counts,
                const TensorView& image_sizes, const TensorView& target_scores, const TensorView& token_mask,
                int64_t class_cost, double class_weight, double l1_weight, double giou_weight, double alpha,
                double gamma, double eps, double giou_eps, bool corners, bool l1_corners, bool clamp_targets,
                const TensorView& extra, const TensorView& slopes, const TensorView& constant, const TensorView& cost) {
  constexpr auto op = "match_cost";
  const MatchOptions options{match::class_cost_of(op, class_cost),
                             class_weight,
                             l1_weight,
                             giou_weight,
                             alpha,
                             gamma,
                             eps,
                             giou_eps,
                             corners,
                             l1_corners,
                             clamp_targets};
  check::rank(op, "logits of shape (N, Q, C)", logits, 3);
  check::rank(op, "cost of shape (N, T, Q)", cost, 3);
  const MatchTensors tensors{logits,      boxes,        target_labels, target_boxes, counts,
                             image_sizes, cost.size(1), target_scores, token_mask,   extra,
                             slopes,      constant,     cost};
  with_floating(op, logits, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    match::check_tensors<T, A>(op, tensors, options);
    if (cost.numel() > 0) match::dispatch<Device, T, A>(context, tensors, options);
  });
}

}  // namespace pydistill
