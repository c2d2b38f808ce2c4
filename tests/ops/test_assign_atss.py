import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pydistill.ops import assign_atss, pairwise_iou
from pydistill.ops.assign_atss import _kernel, assign_atss_reference
from pydistill.ops.valuable_localization_region import _kernel as _region_kernel
from tests.conformance import Case, Conformance, assert_close, each_device, relative_error
from tests.golden import golden
from tests.ops.boxes import grid_anchors, random_boxes

ANCHORS, LEVELS = grid_anchors(128, 192)
GOLDEN_CASES = ["gt0", "gt1", "gt5", "gt0_ign", "gt1_ign", "gt5_ign", "small"]


def assign(anchors, boxes, counts, *rest, **kwargs):
    """``assign_atss`` with its tensors first: anchors, boxes, counts, valid, ignore_boxes, ignore_counts."""
    return _assign(assign_atss, anchors, boxes, counts, *rest, **kwargs)


def reference(anchors, boxes, counts, *rest, **kwargs):
    return _assign(assign_atss_reference, anchors, boxes, counts, *rest, **kwargs)


def _assign(fn, anchors, boxes, counts, valid=None, ignore_boxes=None, ignore_counts=None, levels=LEVELS, **kwargs):
    given = dict(valid=valid, ignore_boxes=ignore_boxes, ignore_counts=ignore_counts)
    return fn(anchors, levels, boxes, counts, **given, **kwargs)


def images(*counts, padding=6, size=60.0, valid=False, ignore=False):
    """Images with so many boxes each, out of a padding of random ones."""

    def make(rng):
        made = [ANCHORS, random_boxes(rng, len(counts), padding, size=size), torch.tensor(counts, dtype=torch.int64)]
        if not valid and not ignore:
            return made
        made.append(torch.rand(len(counts), len(ANCHORS), generator=rng) < 0.8 if valid else None)
        if ignore:
            made += [random_boxes(rng, len(counts), 2), torch.tensor([2, 1, 0][: len(counts)])]
        return made

    return make


class TestAssignAtss(Conformance):
    fn, reference = assign, reference
    cases = {
        "batch": Case(images(6, 0, 3)),
        "topk-1": Case(images(6, 2), dict(topk=1)),
        "topk-above-a-level": Case(images(6, 2), dict(topk=30)),
        "crowd": Case(images(40, 23, padding=40, size=90.0)),
        "valid": Case(images(6, 4, 1, valid=True)),
        "ignored": Case(images(6, 0, 3, ignore=True), dict(ignore_threshold=0.5)),
        "ignored-off": Case(images(6, 4, 3, ignore=True)),
        "valid-and-ignored": Case(images(6, 0, 3, valid=True, ignore=True), dict(ignore_threshold=0.3)),
        "one-level": Case(images(5, 2), dict(levels=[len(ANCHORS)])),
        "an-empty-level": Case(images(5, 2), dict(levels=[0, *LEVELS, 0])),
    }
    empty = Case(images(padding=3))
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-5, torch.bfloat16: 1e-5}
    wrong = {
        "anchors": (
            lambda: assign_atss(torch.rand(4), [4], torch.rand(1, 2, 4), torch.tensor([1])),
            ValueError,
            r"assign_atss: expected anchors of shape \(A, 4\), got \[4\]",
        ),
        "levels": (
            lambda: assign(ANCHORS, torch.rand(1, 2, 4), torch.tensor([1]), levels=[8, 9]),
            ValueError,
            f"assign_atss: expected level_sizes that add up to {len(ANCHORS)}, the number of anchors, got 17",
        ),
        "negative-level": (
            lambda: assign(ANCHORS, torch.rand(1, 2, 4), torch.tensor([1]), levels=[len(ANCHORS) + 1, -1]),
            ValueError,
            "level_sizes that add up",
        ),
        "many-levels": (
            lambda: assign(ANCHORS, torch.rand(1, 2, 4), torch.tensor([1]), levels=[0] * 16 + [len(ANCHORS)]),
            ValueError,
            "at most 16 levels, got 17",
        ),
        "boxes": (
            lambda: assign(ANCHORS, torch.rand(2, 4), torch.tensor([1])),
            ValueError,
            r"boxes of shape \(B, G, 4\), got \[2, 4\]",
        ),
        "counts": (
            lambda: assign(ANCHORS, torch.rand(1, 2, 4), torch.tensor([1, 2])),
            ValueError,
            r"counts of shape \[1\], got \[2\]",
        ),
        "counts-dtype": (
            lambda: assign(ANCHORS, torch.rand(1, 2, 4), torch.tensor([1.0])),
            TypeError,
            "counts of dtype int64, got float32",
        ),
        "topk": (
            lambda: assign(ANCHORS, torch.rand(1, 2, 4), torch.tensor([1]), topk=0),
            ValueError,
            "assign_atss: expected topk > 0, got 0",
        ),
        "valid": (
            lambda: assign(ANCHORS, torch.rand(1, 2, 4), torch.tensor([1]), torch.ones(1, 3, dtype=torch.bool)),
            ValueError,
            r"valid of shape \[1, \d+\], got \[1, 3\]",
        ),
        "valid-dtype": (
            lambda: assign(ANCHORS, torch.rand(1, 2, 4), torch.tensor([1]), torch.ones(1, len(ANCHORS))),
            TypeError,
            "valid of dtype bool, got float32",
        ),
        "ignore-counts": (
            lambda: assign(ANCHORS, torch.rand(1, 2, 4), torch.tensor([1]), None, torch.rand(1, 2, 4)),
            ValueError,
            "ignore_boxes and ignore_counts or neither, got only ignore_boxes",
        ),
        "ignore-batch": (
            lambda: assign(
                ANCHORS, torch.rand(1, 2, 4), torch.tensor([1]), None, torch.rand(3, 2, 4), torch.tensor([1, 1, 1])
            ),
            ValueError,
            r"ignore_boxes of as many images as boxes, got \[3, 2, 4\]",
        ),
        "dtype": (
            lambda: assign(ANCHORS.long(), torch.ones(1, 2, 4).long(), torch.tensor([1])),
            TypeError,
            "assign_atss: expected boxes of a floating point dtype, got torch.int64",
        ),
    }


def golden_case(name, device="cpu", dtype=torch.float32):
    """Anchors, level sizes, boxes, counts, the ignored regions and the reference's arrays of one case."""
    z = {k: torch.from_numpy(v) for k, v in golden("ld_atss_vlr").items()}
    own = name == "small"
    anchors, sizes = z["small_anchors" if own else "anchors"], z["small_num_level" if own else "num_level"].tolist()
    boxes = z[name.removesuffix("_ign") + "_gts"][None]
    kwargs = {}
    if name.endswith("_ign"):
        regions = z["ignore_boxes"][None].to(device, dtype)
        one = torch.tensor([1], device=device)
        kwargs = dict(ignore_boxes=regions, ignore_counts=one, ignore_threshold=0.5)
    counts = torch.tensor([boxes.shape[1]], device=device)
    arrays = {k.removeprefix(name + "_"): v for k, v in z.items() if k.startswith(name + "_")}
    return anchors.to(device, dtype), sizes, boxes.to(device, dtype), counts, kwargs, arrays


@each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_the_released_assigner(device, dtype, name):
    """HikariTJU/LD and mmdetection 3.3.0. Its index is 0 for background, -1 for ignored; its IoU -1e8 for no box."""
    anchors, sizes, boxes, counts, kwargs, want = golden_case(name, device, dtype)
    got = assign_atss(anchors, sizes, boxes, counts, **kwargs)
    index = want["atss_gt_inds"].long()
    index = torch.where(index > 0, index - 1, torch.where(index < 0, -2, -1))
    if name == "gt0_ign":  # it forgets the ignored region where there is no box; we do not
        other = golden_case("gt1_ign")[-1]["atss_gt_inds"] == -1
        assert other.sum() == 100 and (index == -1).all()
        index = torch.where(other, -2, index)
    assert torch.equal(got.gt_index[0].cpu(), index)
    labels = torch.from_numpy(golden("ld_atss_vlr")[name.removesuffix("_ign") + "_gt_labels"])
    labels = torch.cat([labels, torch.tensor([-1])])[got.gt_index[0].clamp(min=-1).cpu()]
    assert torch.equal(labels, want["atss_labels"].long())
    assert relative_error(got.max_iou[0], want["atss_max_overlaps"].clamp(min=0)) < 1e-5
    if counts.item():
        assert relative_error(got.threshold[0], want["alpha_pos"]) < 1e-5


@each_device
def test_golden_thresholds_are_mean_and_standard_deviation(device):
    for name in ("gt1", "gt5", "gt1_ign", "gt5_ign", "small"):
        anchors, sizes, boxes, counts, kwargs, want = golden_case(name, device)
        got = assign_atss(anchors, sizes, boxes, counts, **kwargs).threshold[0]
        assert relative_error(got, want["mean"] + want["std"] if "mean" in want else want["alpha_pos"]) < 1e-5
        candidates = pairwise_iou(anchors, boxes[0]).gather(0, want["cand"].long().to(device))
        assert relative_error(got, candidates.mean(0) + candidates.std(0)) < 1e-5


def numbers(*rows):
    return torch.tensor(rows, dtype=torch.float64)


@each_device
def test_candidates_of_equal_distance_go_by_index(device):
    """Four anchors around the centre of the box, two places: the first two are the candidates."""
    anchors = numbers([-4, -4, 4, 4], [-4, 2, 4, 10], [2, -4, 10, 4], [2, 2, 10, 10]).to(device)
    box, one = numbers([-4, -4, 10, 10]).to(device)[None], torch.tensor([1], device=device)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]):
        got = assign_atss(anchors[order], [4], box, one, topk=2)
        assert got.gt_index[0].tolist() == [0, 0, -1, -1]


@each_device
def test_legs_in_either_order_are_a_tie(device):
    """Squared distances 0.1^2 + 0.7^2, either way round, also where multiply and add are fused."""
    x, y = 0.1, 0.7
    centres = [(y, x), (x, y), (-x, y), (-y, -x)] * 8
    anchors = torch.tensor([[a - 3, b - 3, a + 3, b + 3] for a, b in centres], device=device)
    box, one = torch.tensor([[[-3.0, -3.0, 3.0, 3.0]]], device=device), torch.tensor([1], device=device)
    exact = numbers(*[[a - 3, b - 3, a + 3, b + 3] for a, b in centres]).float()
    distance = ((exact[:, :2] + exact[:, 2:]) / 2).abs().sort(1).values
    same = (distance == distance[0]).all(1).nonzero()[:, 0].tolist()
    assert len(same) >= 8, "the construction has no ties"
    got = assign_atss(anchors[same], [len(same)], box, one, topk=3)
    chosen = (got.gt_index[0] == 0).nonzero()[:, 0].tolist()
    assert chosen and max(chosen) < 3


@each_device
def test_equal_iou_goes_to_the_lower_box(device):
    anchors, levels = ANCHORS.to(device), LEVELS
    box = numbers([40, 40, 90, 80]).to(device)
    got = assign_atss(anchors, levels, box.expand(3, 4)[None], torch.tensor([3], device=device))
    assert set(got.gt_index.unique().tolist()) == {-1, 0}


@each_device
def test_one_candidate_has_no_standard_deviation(device):
    """Nothing is positive, and nothing is NaN."""
    box, one = numbers([0, 0, 8, 8]).to(device)[None], torch.tensor([1], device=device)
    got = assign_atss(box[0].clone(), [1], box, one)
    assert got.gt_index.tolist() == [[-1]] and got.threshold.tolist() == [[torch.inf]] and got.max_iou.tolist() == [[0]]
    two = assign_atss(box[0].repeat(2, 1), [2], box, one)
    assert two.gt_index.tolist() == [[0, 0]] and two.threshold.tolist() == [[1.0]]


@each_device
def test_a_box_without_area_has_no_anchor(device):
    boxes = numbers([50, 50, 50, 50], [30, 20, 30, 80], [20, 20, 70, 70]).to(device)[None]
    got = assign_atss(ANCHORS.to(device), LEVELS, boxes, torch.tensor([3], device=device))
    assert set(got.gt_index.unique().tolist()) == {-1, 2}
    assert got.threshold[0, :2].tolist() == [0.0, 0.0]


@each_device
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 1e308])
def test_boxes_that_are_no_boxes_match_nothing(device, bad):
    """Not finite, or inverted: as if they were not there; their threshold is infinity."""
    rng = torch.Generator().manual_seed(0)
    boxes = random_boxes(rng, 1, 4, size=60.0).to(device)
    want = assign_atss(ANCHORS.to(device), LEVELS, boxes[:, :2], torch.tensor([2], device=device))
    for column in range(4):
        worse = boxes.clone()
        worse[0, 2, column] = bad
        worse[0, 3] = worse[0, 3].flip(0)
        if worse[0, 2, 2] - worse[0, 2, 0] >= 0 and worse[0, 2, 3] - worse[0, 2, 1] >= 0 and abs(bad) < torch.inf:
            continue  # so large a box is one
        got = assign_atss(ANCHORS.to(device), LEVELS, worse, torch.tensor([4], device=device))
        assert torch.equal(got.gt_index, want.gt_index) and torch.equal(got.max_iou, want.max_iou)
        assert got.threshold[0, 2:].tolist() == [torch.inf, torch.inf]


@each_device
def test_anchors_that_are_no_boxes_are_ignored(device):
    boxes, counts = numbers([40, 40, 90, 80]).to(device)[None], torch.tensor([1], device=device)
    anchors = ANCHORS.to(device).clone()
    broken = torch.zeros(len(anchors), dtype=torch.bool, device=device)
    broken[100:140] = True
    anchors[100:120] = torch.nan
    anchors[120:140] = anchors[120:140].flip(1)
    got = assign_atss(anchors, LEVELS, boxes, counts)
    want = assign_atss(ANCHORS.to(device), LEVELS, boxes, counts, valid=~broken[None])
    assert (got.gt_index[0, broken] == -2).all()
    assert all(torch.equal(g, w) for g, w in zip(got, want))


@each_device
def test_ignored_anchors_fill_a_level_that_runs_out(device):
    """As the released assigner does: far away, but candidates; and then they may be positive."""
    anchors = numbers([0, 0, 10, 10], [1, 1, 11, 11], [40, 40, 50, 50], [60, 60, 70, 70]).to(device)
    box, region, one = numbers([0, 0, 10, 10])[0], numbers([0, 0, 12, 12]), torch.tensor([1], device=device)
    ignore = dict(ignore_boxes=region[None].to(device), ignore_counts=one, ignore_threshold=0.5)
    full = assign_atss(anchors, [4], box[None, None].to(device), one, topk=2, **ignore)
    assert full.gt_index.tolist() == [[-2, -2, -1, -1]]
    short = assign_atss(anchors, [4], box[None, None].to(device), one, topk=4, **ignore)
    assert short.gt_index.tolist() == [[0, -2, -1, -1]]


@each_device
@pytest.mark.parametrize("counts", [[9, -3], [6, 0]])
def test_counts_are_clamped(device, counts):
    rng = torch.Generator().manual_seed(0)
    boxes = random_boxes(rng, 2, 6, size=60.0).to(device)
    got = assign_atss(ANCHORS.to(device), LEVELS, boxes, torch.tensor(counts, device=device))
    want = assign_atss_reference(ANCHORS.to(device), LEVELS, boxes, torch.tensor([6, 0], device=device))
    assert torch.equal(got.gt_index, want.gt_index)
    want = assign_atss(ANCHORS.to(device), LEVELS, boxes, torch.tensor([6, 0], device=device))
    assert all(torch.equal(g, w) for g, w in zip(got, want))
    assert (got.gt_index[1] == -1).all() and got.gt_index[0].max() >= 0


@each_device
@pytest.mark.parametrize("shape", [(0, 2, 3), (5, 0, 3), (5, 2, 0), (0, 0, 0)])
def test_nothing_to_assign(device, shape):
    anchors, images, most = shape
    boxes, counts = torch.rand(images, most, 4, device=device), torch.zeros(images, dtype=torch.int64, device=device)
    got = assign_atss(torch.zeros(anchors, 4, device=device), [anchors], boxes, counts)
    assert got.gt_index.shape == (images, anchors) and (got.gt_index == -1).all()
    assert got.threshold.shape == (images, most) and (got.threshold == torch.inf).all()
    assert got.max_iou.shape == (images, anchors) and (got.max_iou == 0).all()


@each_device
@pytest.mark.parametrize("seed", range(20))
def test_random_pictures(device, seed):
    rng = torch.Generator().manual_seed(seed)
    made = images(12, 5, 0, padding=12, size=30.0 + 10 * seed, valid=seed % 2, ignore=seed % 3)(rng)
    kwargs = dict(topk=1 + seed % 11, ignore_threshold=0.4)
    got = assign(*[t if t is None else t.to(device) for t in made], **kwargs)
    assert_close(got, reference(*made, **kwargs), 1e-12)
    assert (got.gt_index >= 0).sum() > 0


@each_device
def test_mixed_dtypes(device):
    """Half-precision anchors and float32 boxes meet in float32."""
    rng = torch.Generator().manual_seed(1)
    boxes, counts = random_boxes(rng, 1, 5).float().to(device), torch.tensor([5], device=device)
    got = assign_atss(ANCHORS.half().to(device), LEVELS, boxes, counts)
    want = assign_atss(ANCHORS.half().float().to(device), LEVELS, boxes, counts)
    assert all(torch.equal(g, w) for g, w in zip(got, want)) and got.max_iou.dtype == torch.float32


class Allocated(TorchDispatchMode):
    """Adds up the bytes of all tensors that are made."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.bytes += out.numel() * out.element_size() if func.__name__.startswith(("new_empty", "empty")) else 0
        return out


def test_memory_of_a_full_batch():
    """2 images, 22400 anchors, 20 boxes: no anchors x boxes matrix, which alone would take 3.6 MB per image."""
    anchors, levels = grid_anchors(800, 1344, (8, 16, 32, 64, 128))
    boxes, counts = random_boxes(torch.Generator().manual_seed(0), 2, 20, size=500.0), torch.tensor([20, 13])
    assert len(anchors) == 22400
    with Allocated() as made:
        _kernel(anchors.float(), levels, boxes.float(), counts, 9, None, None, None, -1.0)
        _region_kernel(anchors.float(), boxes.float(), counts, None, 0.5, 0.25, False, False, False, None, None)
    assert 0 < made.bytes < 1.2e6
