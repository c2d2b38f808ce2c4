"""assign_atss alone, and with the valuable localization region between its thresholds, as LD needs both.

Two images, 22400 anchors, 20 boxes each. Operations a pair of anchor and box: 8 of its distance, root and comparison,
for the region 40 of IoU, DIoU and the two comparisons; the few candidates' overlaps are left out.
"""

from pydistill.benchmarks.cases import contenders
from pydistill.benchmarks.dense_scene import BOXES, IMAGES, picture
from pydistill.benchmarks.timing import rotate
from pydistill.ops import assign_atss, valuable_localization_region
from pydistill.ops.assign_atss import assign_atss_reference
from pydistill.ops.valuable_localization_region import valuable_localization_region_reference


def assigned(assign, sizes):
    return lambda anchors, boxes, counts: [*assign(anchors, sizes, boxes, counts)]


def with_region(assign, region, sizes):
    def run(anchors, boxes, counts):
        found = assign(anchors, sizes, boxes, counts)
        return [*found, region(anchors, boxes, counts, found.threshold)]

    return run


def test_assign(compare, device, scale):
    """Floor: the anchors read once per image, index and IoU written: it finds no neighbour.

    The reference asks for each image's count, on which torch.compile breaks its graph.
    """
    anchors, sizes, boxes, counts = picture(device, scale)
    ours, eager = (assigned(fn, sizes) for fn in (assign_atss, assign_atss_reference))
    compare(
        **contenders(ours, eager, anchors, boxes, counts),
        floor=rotate(lambda a: [(a.sum(1), a.sum(1).long()) for _ in range(IMAGES)], anchors),
        bytes_moved=IMAGES * len(anchors) * (16 + 8 + 4),
        operations=8 * IMAGES * BOXES * len(anchors),
    )


def test_assign_and_region(compare, device, scale):
    """Floor: the anchors read once per image and stage, index, IoU and weight written: it finds no neighbour."""
    anchors, sizes, boxes, counts = picture(device, scale)
    ours = with_region(assign_atss, valuable_localization_region, sizes)
    eager = with_region(assign_atss_reference, valuable_localization_region_reference, sizes)
    compare(
        **contenders(ours, eager, anchors, boxes, counts),
        floor=rotate(lambda a: [(a.sum(1), a.sum(1), a.sum(1).long()) for _ in range(IMAGES)], anchors),
        bytes_moved=IMAGES * len(anchors) * (3 * 16 + 8 + 4 + 4),
        operations=(8 + 40) * IMAGES * BOXES * len(anchors),
    )
