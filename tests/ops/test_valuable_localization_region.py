import pytest
import torch

from pydistill.ops import assign_atss, pairwise_iou
from pydistill.ops import valuable_localization_region as region
from pydistill.ops.valuable_localization_region import valuable_localization_region_reference
from tests.conformance import Case, Conformance, assert_close, each_device, relative_error
from tests.ops.boxes import grid_anchors, random_boxes
from tests.ops.test_assign_atss import golden_case, numbers

ANCHORS, LEVELS = grid_anchors(128, 192)
RELEASED = dict(measure="diou_released", upper="open")


def tensors_first(fn):
    """``fn`` called with all its tensors by position, the flags last."""

    def call(anchors, boxes, counts, threshold, valid=None, exclude=None, **kwargs):
        return fn(anchors, boxes, counts, threshold, valid=valid, exclude=exclude, **kwargs)

    return call


def images(*counts, padding=6, size=60.0, flags=False, threshold=None):
    def make(rng):
        n = len(counts)
        boxes = random_boxes(rng, n, padding, size=size)
        limit = 0.1 + 0.5 * torch.rand(n, padding, generator=rng, dtype=torch.float64)
        made = [ANCHORS, boxes, torch.tensor(counts, dtype=torch.int64), limit if threshold is None else threshold]
        return made + [torch.rand(n, len(ANCHORS), generator=rng) < 0.7 for _ in range(2 * flags)]

    return make


class TestRegion(Conformance):
    fn, reference = tensors_first(region), tensors_first(valuable_localization_region_reference)
    cases = {
        "batch": Case(images(6, 0, 3)),
        "released": Case(images(6, 2), RELEASED),
        "one": Case(images(6, 2), dict(weight="one")),
        "all-below": Case(images(6, 2), dict(gamma=0.0)),
        "a-number": Case(images(6, 2, threshold=0.5), dict(gamma=0.5)),
        "flags": Case(images(6, 0, 3, flags=True)),
        "crowd": Case(images(40, 17, padding=40)),
    }
    empty = Case(images(padding=3))
    # with half inputs the anchors are exact and boxes are rounded, alike for both
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-5, torch.bfloat16: 1e-5}
    wrong = {
        "anchors": (
            lambda: region(torch.rand(3, 5), torch.rand(1, 2, 4), torch.tensor([1]), 0.5),
            ValueError,
            r"valuable_localization_region: expected anchors of shape \(A, 4\), got \[3, 5\]",
        ),
        "boxes": (
            lambda: region(ANCHORS, torch.rand(2, 4), torch.tensor([1]), 0.5),
            ValueError,
            r"boxes of shape \(B, G, 4\), got \[2, 4\]",
        ),
        "threshold": (
            lambda: region(ANCHORS, torch.rand(1, 2, 4), torch.tensor([1]), torch.rand(1, 3)),
            ValueError,
            r"threshold of shape \[1, 2\], got \[1, 3\]",
        ),
        "gamma": (
            lambda: region(ANCHORS, torch.rand(1, 2, 4), torch.tensor([1]), 0.5, gamma=1.5),
            ValueError,
            r"gamma in \[0, 1\], got 1.5",
        ),
        "measure": (
            lambda: region(ANCHORS, torch.rand(1, 2, 4), torch.tensor([1]), 0.5, measure="giou"),
            ValueError,
            "expected measure in .*, got 'giou'",
        ),
        "upper": (
            lambda: region(ANCHORS, torch.rand(1, 2, 4), torch.tensor([1]), 0.5, upper="half"),
            ValueError,
            "expected upper in .*, got 'half'",
        ),
        "weight": (
            lambda: region(ANCHORS, torch.rand(1, 2, 4), torch.tensor([1]), 0.5, weight="two"),
            ValueError,
            "expected weight in .*, got 'two'",
        ),
        "exclude": (
            lambda: region(ANCHORS, torch.rand(1, 2, 4), torch.tensor([1]), 0.5, exclude=torch.ones(1, 3).bool()),
            ValueError,
            r"exclude of shape \[1, \d+\], got \[1, 3\]",
        ),
        "dtype": (
            lambda: region(ANCHORS.long(), torch.ones(1, 2, 4).long(), torch.tensor([1]), 0.5),
            TypeError,
            "valuable_localization_region: expected boxes of a floating point dtype, got torch.int64",
        ),
    }


@each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["gt1", "gt5", "gt1_ign", "gt5_ign", "small"])
@pytest.mark.parametrize("array, options", [("vlr_official", RELEASED), ("vlr_trueDIoU", dict(upper="open"))])
def test_the_released_region(device, dtype, name, array, options):
    """HikariTJU/LD: as it is, and with the DIoU of the paper in its place. No decision is closer than 4e-4."""
    anchors, sizes, boxes, counts, kwargs, want = golden_case(name, device, dtype)
    threshold = assign_atss(anchors, sizes, boxes, counts, **kwargs).threshold
    got = region(anchors, boxes, counts, threshold, **options)[0]
    assert torch.equal(got.cpu() > 0, want[array] > 0)
    assert relative_error(got, want[array]) < 1e-5
    if array == "vlr_trueDIoU":  # no DIoU is at the upper end itself
        assert torch.equal(region(anchors, boxes, counts, threshold)[0], got)


@each_device
def test_the_box_of_the_released_region(device):
    """The weight is the IoU with the box that the reference names, the one with the largest in its band."""
    for name in ("gt5", "gt5_ign"):
        anchors, sizes, boxes, counts, kwargs, want = golden_case(name, device, torch.float64)
        threshold = assign_atss(anchors, sizes, boxes, counts, **kwargs).threshold
        for options, array in ((RELEASED, "vlr_official"), (dict(upper="open"), "vlr_trueDIoU")):
            got = region(anchors, boxes, counts, threshold, **options)[0].cpu()
            index = want[f"{array}_gt_inds"].long()
            inside = (got > 0) & (index > 0)
            iou = pairwise_iou(anchors, boxes[0]).cpu()
            assert inside.sum() > 100
            assert relative_error(got[inside], iou[inside, index[inside] - 1]) < 1e-12


@each_device
def test_closed_and_open_differ_at_the_end_of_the_band(device):
    """The same square twice has DIoU 1 to float64's precision, less the 1e-6 that its area 256 is raised by."""
    square, one = numbers([0, 0, 16, 16]).to(device), torch.tensor([1], device=device)
    diou = pairwise_iou(square, square, mode="diou")
    weights = {u: region(square, square[None], one, diou, upper=u).item() for u in ("closed", "open")}
    assert weights == {"closed": 1.0, "open": 0.0}
    lower = {u: region(square, square[None], one, 4 * diou, gamma=0.25, upper=u).item() for u in ("closed", "open")}
    assert lower == {"closed": 1.0, "open": 1.0}


@each_device
@pytest.mark.parametrize("threshold", [torch.inf, torch.nan])
@pytest.mark.parametrize("gamma", [0.0, 0.25])
def test_no_threshold_no_region(device, threshold, gamma):
    rng = torch.Generator().manual_seed(0)
    boxes, counts = random_boxes(rng, 1, 4).to(device), torch.tensor([4], device=device)
    for limit in (threshold, torch.full((1, 4), threshold, device=device)):
        assert (region(ANCHORS.to(device), boxes, counts, limit, gamma=gamma) == 0).all()


@each_device
def test_one_candidate_has_an_empty_region(device):
    box, one = numbers([0, 0, 8, 8]).to(device)[None], torch.tensor([1], device=device)
    threshold = assign_atss(box[0] + 1, [1], box, one).threshold
    assert region(box[0] + 1, box, one, threshold).tolist() == [[0.0]]


@each_device
@pytest.mark.parametrize("weight", ["iou", "one"])
def test_boxes_without_area_have_an_empty_region(device, weight):
    """Also where an anchor's centre is theirs, so that DIoU is 0 and in the band {0}."""
    anchors = ANCHORS.to(device)
    boxes = numbers([48, 48, 48, 48], [30, 48, 66, 48]).to(device)[None]
    counts = torch.tensor([2], device=device)
    threshold = assign_atss(anchors, LEVELS, boxes, counts).threshold
    assert threshold.tolist() == [[0.0, 0.0]]
    assert (region(anchors, boxes, counts, threshold, weight=weight) == 0).all()


@each_device
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_box_weighs_nothing(device, bad):
    rng = torch.Generator().manual_seed(0)
    boxes, two = random_boxes(rng, 1, 4, size=60.0).to(device), torch.tensor([2], device=device)
    anchors, four = ANCHORS.to(device).clone(), torch.tensor([4], device=device)
    want = region(anchors, boxes[:, :2], two, 0.5)
    boxes[0, 2, 1], boxes[0, 3] = bad, boxes[0, 3].flip(0)
    assert torch.equal(region(anchors, boxes, four, 0.5), want)
    hit = (want[0] > 0).nonzero()[:2, 0]
    anchors[hit[0], 2], anchors[hit[1]] = bad, anchors[hit[1]].flip(0)
    got = region(anchors, boxes, four, 0.5)
    assert (got[0, hit] == 0).all() and (got != want).sum() == 2


@each_device
@pytest.mark.parametrize("counts", [[9, -3], [6, 0]])
def test_counts_are_clamped(device, counts):
    rng = torch.Generator().manual_seed(0)
    boxes = random_boxes(rng, 2, 6, size=60.0).to(device)
    got = region(ANCHORS.to(device), boxes, torch.tensor(counts, device=device), 0.5)
    assert torch.equal(got[0], region(ANCHORS.to(device), boxes[:1], torch.tensor([6], device=device), 0.5)[0])
    assert (got[1] == 0).all() and (got[0] > 0).any()


@each_device
def test_positives_can_be_taken_out(device):
    anchors, sizes, boxes, counts, kwargs, _ = golden_case("gt5", device)
    assigned = assign_atss(anchors, sizes, boxes, counts, **kwargs)
    positive = assigned.gt_index >= 0
    both = region(anchors, boxes, counts, assigned.threshold, **RELEASED)
    assert positive.sum() == 18 and (both[positive] > 0).sum() == 12  # of the released code
    without = region(anchors, boxes, counts, assigned.threshold, exclude=positive, **RELEASED)
    assert torch.equal(without, both.masked_fill(positive, 0.0))


@each_device
@pytest.mark.parametrize("shape", [(0, 2, 3), (5, 0, 3), (5, 2, 0), (0, 0, 0)])
def test_nothing_to_compare(device, shape):
    anchors, batch, most = shape
    boxes, counts = torch.rand(batch, most, 4, device=device), torch.zeros(batch, dtype=torch.int64, device=device)
    got = region(torch.rand(anchors, 4, device=device), boxes, counts, 0.5)
    assert got.shape == (batch, anchors) and (got == 0).all()


@each_device
@pytest.mark.parametrize("seed", range(12))
def test_random_pictures_with_their_own_thresholds(device, seed):
    rng = torch.Generator().manual_seed(seed)
    boxes, counts = random_boxes(rng, 3, 12, size=20.0 + 10 * seed), torch.tensor([12, 5, 0])
    options = [{}, RELEASED, dict(gamma=0.0), dict(weight="one", gamma=0.7)][seed % 4]
    threshold = assign_atss(ANCHORS, LEVELS, boxes, counts).threshold
    got = region(*[t.to(device) for t in (ANCHORS, boxes, counts, threshold)], **options)
    want = valuable_localization_region_reference(ANCHORS, boxes, counts, threshold, **options)
    assert torch.equal(got.cpu() > 0, want > 0) and (got > 0).sum() > 10
    assert_close(got, want, 1e-12)
