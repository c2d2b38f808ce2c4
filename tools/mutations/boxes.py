"""Mistakes in the formulas of boxes and their overlaps."""

from mutations.mutation import Mutation, forward, gradient

BOXES = [
    Mutation(
        "the distance of the centres twice too small",
        "boxes.h",
        "return (dx * dx + dy * dy) * A(0.25);",
        "return (dx * dx + dy * dy) * A(0.125);",
        "pairwise_iou",
        forward("pairwise_iou", "TestPairwiseIou", "diou"),
    ),
    Mutation(
        "the enclosing box of an intersection",
        "boxes.h",
        "return {Min{}(a.x1, b.x1), Min{}(a.y1, b.y1), Max{}(a.x2, b.x2), Max{}(a.y2, b.y2)};",
        "return {Min{}(a.x1, b.x1), Min{}(a.y1, b.y1), Max{}(a.x2, b.x2), Min{}(a.y2, b.y2)};",
        "pairwise_iou",
        forward("pairwise_iou", "TestPairwiseIou", "giou"),
    ),
    Mutation(
        "eps is not a floor of the union",
        "boxes.h",
        "return both / at_least(a.area() + b.area() - both, eps);",
        "return both / (a.area() + b.area() - both + eps);",
        "pairwise_iou",
        forward("pairwise_iou", "TestPairwiseIou", "large-eps"),
    ),
    Mutation(
        "a tie goes to one side",
        "pairwise_iou.h",
        "own > other ? A(1) : own == other ? A(0.5) : A(0);",
        "own > other ? A(1) : A(0);",
        "pairwise_iou",
        gradient("pairwise_iou", "TestPairwiseIou", "touching-giou"),
    ),
    Mutation(
        "alpha without 1 - IoU",
        "pairwise_iou.h",
        "alpha = v / (1 - iou + v + eps);",
        "alpha = v / (1 + v + eps);",
        "pairwise_iou",
        forward("pairwise_iou", "TestPairwiseIou", "ciou"),
    ),
    Mutation(
        "the share of alpha that is no constant, squared",
        "box_iou_loss.h",
        "al * (2 - al) : al)",
        "al * (1 - al) : al)",
        "box_iou_loss",
        gradient("box_iou_loss", "TestBoxIouLoss", "ciou_released"),
    ),
    Mutation(
        "the unit of the distances forgotten on the way back",
        "distance_to_box.h",
        "Box<A>{-s * e.x1, -s * e.y1, s * e.x2, s * e.y2}",
        "Box<A>{-s * e.x1, -s * e.y1, s * e.x2, e.y2}",
        "distance_to_box",
        gradient("distance_to_box", "TestDistanceToBox", "layers"),
    ),
    Mutation(
        "half a side is a side",
        "box_format.h",
        "return {d.x1 + d.x2, d.y1 + d.y2, (d.x2 - d.x1) * A(0.5), (d.y2 - d.y1) * A(0.5)};",
        "return {d.x1 + d.x2, d.y1 + d.y2, (d.x2 - d.x1) * A(0.5), (d.y2 - d.y1)};",
        "matched_box_loss",
        gradient("matched_box_loss", "TestMatchedBoxLoss", "stages"),
    ),
    Mutation(
        "L1 of three sides",
        "matched_box_loss.h",
        "std::abs(own.l1.x2 - other.l1.x2) +\n             std::abs(own.l1.y2 - other.l1.y2);",
        "std::abs(own.l1.x2 - other.l1.x2);",
        "matched_box_loss",
        forward("matched_box_loss", "TestMatchedBoxLoss", "stages"),
    ),
]
