"""The ops: each a fused kernel for CPU and CUDA, with its plain-torch reference beside it."""

from pydistill.ops.assign_atss import AnchorAssignment, assign_atss
from pydistill.ops.assign_max_iou import assign_max_iou
from pydistill.ops.assign_points import PointAssignment, assign_points
from pydistill.ops.attention_distillation_loss import attention_distillation_loss, energy_distillation_loss
from pydistill.ops.attention_map import attention_map, channel_energy
from pydistill.ops.bev_grid import BEVGrid
from pydistill.ops.box_iou import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from pydistill.ops.box_iou_loss import ciou_loss, diou_loss, giou_loss
from pydistill.ops.box_keypoints import box_keypoints
from pydistill.ops.distance_to_box import box_to_distance, distance_to_box
from pydistill.ops.distribution_focal_loss import distribution_focal_loss
from pydistill.ops.fine_grained_region import fine_grained_region
from pydistill.ops.gaussian_region import gaussian_region
from pydistill.ops.general_instance_region import general_instance_region
from pydistill.ops.hungarian_match import Match, MatchProblem, hungarian_match, hungarian_match_all
from pydistill.ops.info_nce_loss import info_nce_loss
from pydistill.ops.inside_region import inside_region
from pydistill.ops.integral import integral
from pydistill.ops.keypoint_feature_loss import keypoint_feature_loss
from pydistill.ops.keypoint_relation_loss import keypoint_relation_loss
from pydistill.ops.linear_sum_assignment import Assignment, linear_sum_assignment
from pydistill.ops.masked_feature_loss import masked_feature_loss
from pydistill.ops.match_cost import match_cost
from pydistill.ops.matched_box_loss import BoxLosses, matched_box_loss
from pydistill.ops.matched_class_loss import matched_class_loss, matched_labels
from pydistill.ops.matched_distillation_loss import DistillationTerms, matched_distillation_loss
from pydistill.ops.pairwise_iou import pairwise_iou
from pydistill.ops.quality_focal_loss import quality_focal_loss
from pydistill.ops.query_feature_mask import query_feature_mask
from pydistill.ops.query_quality import QueryQuality, query_quality
from pydistill.ops.response_loss import ResponseLosses, response_loss
from pydistill.ops.sigmoid_focal_loss import sigmoid_focal_loss
from pydistill.ops.soft_iou_loss import soft_iou_loss
from pydistill.ops.softmax_kl import softmax_kl
from pydistill.ops.targets import pack_targets
from pydistill.ops.valuable_localization_region import valuable_localization_region

__all__ = [
    "AnchorAssignment",
    "Assignment",
    "BEVGrid",
    "BoxLosses",
    "DistillationTerms",
    "Match",
    "MatchProblem",
    "PointAssignment",
    "QueryQuality",
    "ResponseLosses",
    "assign_atss",
    "assign_max_iou",
    "assign_points",
    "attention_distillation_loss",
    "attention_map",
    "box_iou",
    "box_keypoints",
    "box_to_distance",
    "channel_energy",
    "ciou_loss",
    "complete_box_iou",
    "diou_loss",
    "distance_box_iou",
    "distance_to_box",
    "distribution_focal_loss",
    "energy_distillation_loss",
    "fine_grained_region",
    "gaussian_region",
    "general_instance_region",
    "generalized_box_iou",
    "giou_loss",
    "hungarian_match",
    "hungarian_match_all",
    "info_nce_loss",
    "inside_region",
    "integral",
    "keypoint_feature_loss",
    "keypoint_relation_loss",
    "linear_sum_assignment",
    "masked_feature_loss",
    "match_cost",
    "matched_box_loss",
    "matched_class_loss",
    "matched_distillation_loss",
    "matched_labels",
    "pack_targets",
    "pairwise_iou",
    "quality_focal_loss",
    "query_feature_mask",
    "query_quality",
    "response_loss",
    "sigmoid_focal_loss",
    "soft_iou_loss",
    "softmax_kl",
    "valuable_localization_region",
]
