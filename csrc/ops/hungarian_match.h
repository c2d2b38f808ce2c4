// hungarian_match: host side.
#pragma once
#include "math/hungarian_match.h"
#include "ops/linear_sum_assignment.h"
#include "ops/match_cost.h"

namespace pydistill {

namespace match {

struct SearchMemory {  // of one problem
  bool keeps;          // all rows of costs
  int width;           // of one
  int64_t bytes;
};

inline int64_t search_bytes(int64_t targets, int64_t queries, int width, bool keeps, bool forbid) {
  const int64_t search = forbid ? math::SearchState<math::Forbidding>::bytes(targets, queries)
                                : math::SearchState<double>::bytes(targets, queries);
  using Largest = math::MatchPairs<float, float, math::SoftmaxClass<float, float>>;
  return search + Largest::bytes(width) + math::Workspace::bytes<float>((keeps ? targets : 1) * width);
}

template <class Device> SearchMemory search_memory(int64_t targets, int64_t queries, int64_t groups, bool forbid) {
  const int width = int(math::Steps::most(queries, queries * groups));
  const int64_t all = search_bytes(targets, queries, width, true, forbid);
  if (all <= Device::kSharedBytes) return {true, width, all};
  return {false, width, search_bytes(targets, queries, width, false, forbid)};
}

}  // namespace match

// Bytes of workspace for one problem that the caller must bring; 0 where the device's own scratch is enough.
template <class Device>
int64_t hungarian_match_workspace(int64_t targets, int64_t queries, int64_t groups, bool forbid) {
  const int64_t bytes = match::search_memory<Device>(targets, queries, groups, forbid).bytes;
  return bytes > Device::kSharedBytes ? bytes : 0;
}

// Tensors as in match_cost, float32, no soft targets; T is query_of_target's, fewer than the queries of a group.
// target_of_query (N, groups * Q), query_of_target (N * groups, T), status (N * groups).
template <class Device>
void hungarian_match(const Context& context, const TensorView& logits, const TensorView& boxes,
                     const TensorView& target_labels, const TensorView& target_boxes, const TensorView& counts,
                     const TensorView& image_sizes, int64_t class_cost, double class_weight, double l1_weight,
                     double giou_weight, double alpha, double gamma, double eps, double giou_eps, bool corners,
                     bool l1_corners, bool clamp_targets, int64_t nonfinite, int64_t groups,
                     const TensorView& workspace, const TensorView& target_of_query, const TensorView& query_of_target,
                     const TensorView& status) {
  constexpr auto op = "hungarian_match";
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
  check::rank(op, "query_of_target of shape (N * groups, T)", query_of_target, 2);
  const int64_t n = logits.size(0), q = logits.size(1), t = query_of_target.size(1);
  check::that(groups > 0 && q % groups == 0 && q < 1 << 28, op, "groups that divide fewer than 2^28 queries", groups);
  const int64_t problems = n * groups, queries = q / groups;
  check::that(t < queries, op, "fewer targets than queries of a group", query_of_target);
  check::that(!options.scores(), op, "a class cost of labels", class_cost);
  check::buffer(op, "target_of_query", target_of_query, {n, q}, ScalarKind::Int64, logits);
  check::buffer(op, "query_of_target", query_of_target, {problems, t}, ScalarKind::Int64, logits);
  check::buffer(op, "status", status, {problems}, ScalarKind::Int64, logits);
  const MatchTensors tensors{logits, boxes, target_labels, target_boxes, counts, image_sizes, t};
  match::check_tensors<float, float>(op, tensors, options);
  const math::NonFinite policy = assignment::policy_of(op, nonfinite);
  const auto [keeps, width, bytes] =
      match::search_memory<Device>(t, queries, groups, policy == math::NonFinite::Forbid);
  const bool own = bytes <= Device::kSharedBytes;
  if (!own) check::buffer(op, "workspace", workspace, {problems, bytes}, ScalarKind::Uint8, logits);
  match::with_pairs<float, float>(tensors, options,
                                  [&, keeps = keeps, width = width, bytes = bytes](const auto& pairs) {
                                    const math::HungarianMatch<std::remove_cvref_t<decltype(pairs)>> body{
                                        pairs,
                                        int(queries),
                                        int(groups),
                                        width,
                                        keeps,
                                        target_of_query.ptr<int64_t>(),
                                        query_of_target.ptr<int64_t>(),
                                        status.ptr<int64_t>(),
                                        policy,
                                        own ? nullptr : workspace.ptr<std::byte>(),
                                        bytes};
                                    Device::rows(context, problems, 16 * t * queries, body, own ? bytes : 0);
                                  });
}

}  // namespace pydistill
