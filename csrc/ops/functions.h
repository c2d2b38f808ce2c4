// The table of contents: every compiled function, as f<Device> with Device = PYDISTILL_DEVICE (Cpu, Cuda). What calls
// them, csrc/python/module.cpp and csrc/replay/replay.cpp, finds their code in the objects of csrc/cpu or csrc/cuda.
#pragma once
#include "ops/assign_atss.h"
#include "ops/assign_max_iou.h"
#include "ops/assign_points.h"
#include "ops/attention_map.h"
#include "ops/box_iou_loss.h"
#include "ops/box_keypoints.h"
#include "ops/distance_to_box.h"
#include "ops/distribution_focal_loss.h"
#include "ops/fine_grained_region.h"
#include "ops/gaussian_region.h"
#include "ops/general_instance_region.h"
#include "ops/hungarian_match.h"
#include "ops/inside_region.h"
#include "ops/integral.h"
#include "ops/keypoint_cells.h"
#include "ops/keypoint_channel_relation_loss.h"
#include "ops/keypoint_feature_loss.h"
#include "ops/keypoint_relation_loss.h"
#include "ops/linear_sum_assignment.h"
#include "ops/masked_feature_loss.h"
#include "ops/match_cost.h"
#include "ops/matched_box_loss.h"
#include "ops/matched_class_loss.h"
#include "ops/pairwise_iou.h"
#include "ops/quality_focal_loss.h"
#include "ops/query_feature_mask.h"
#include "ops/query_quality.h"
#include "ops/response_loss.h"
#include "ops/sigmoid_focal_loss.h"
#include "ops/soft_iou_loss.h"
#include "ops/softmax_kl.h"
#include "ops/valuable_localization_region.h"

// clang-format off
#define PD_FUNCTIONS(X)                                                                                            \
  X(channel_energy) X(channel_energy_backward) X(attention_map) X(attention_map_backward)                          \
  X(attention_distillation_loss) X(attention_distillation_loss_backward)                                           \
  X(soft_iou_loss) X(soft_iou_loss_backward) X(softmax_kl) X(softmax_kl_backward)                                  \
  X(box_iou_loss) X(box_iou_loss_backward) X(pairwise_iou) X(pairwise_iou_backward)                                \
  X(distance_to_box) X(distance_to_box_backward) X(box_to_distance) X(integral) X(integral_backward)               \
  X(quality_focal_loss) X(quality_focal_loss_backward) X(sigmoid_focal_loss) X(sigmoid_focal_loss_backward)        \
  X(distribution_focal_loss) X(distribution_focal_loss_backward)                                                   \
  X(assign_atss) X(assign_max_iou) X(assign_points) X(valuable_localization_region)                                \
  X(inside_region) X(fine_grained_region) X(general_instance_region)                                               \
  X(masked_feature_loss) X(masked_feature_loss_backward)                                                           \
  X(match_cost) X(hungarian_match) X(linear_sum_assignment)                                                        \
  X(matched_box_loss) X(matched_box_loss_backward) X(matched_class_loss) X(matched_class_loss_backward)            \
  X(query_quality) X(query_direction) X(query_feature_mask)                                                        \
  X(box_keypoints) X(gaussian_region) X(keypoint_cells) X(keypoint_feature_loss) X(keypoint_feature_loss_backward) \
  X(keypoint_channel_relation_loss) X(keypoint_channel_relation_loss_backward)                                     \
  X(keypoint_relation_loss) X(keypoint_relation_loss_backward) X(response_loss) X(response_loss_backward)
// clang-format on

namespace pydistill {
using Device = PYDISTILL_DEVICE;
#define PD_ELSEWHERE(f) extern template decltype(f<Device>) f<Device>;
PD_FUNCTIONS(PD_ELSEWHERE)
}  // namespace pydistill
