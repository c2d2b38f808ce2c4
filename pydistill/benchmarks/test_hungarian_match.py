"""hungarian_match and, of several problems at once, hungarian_match_all: 8 images.

Peers: a loop over images with torch's costs and SciPy, transformers' matcher where it is installed, and SciPy alone on
costs at hand. Operations: 45 a pair of query and target for its cost (L1 12, GIoU 31, sums 2); the search depends on
the costs and is left out.
"""

from functools import partial

import pytest
import torch

from pydistill.benchmarks import matching_eager
from pydistill.benchmarks.cases import sides
from pydistill.benchmarks.matching_eager import scipy_assignment
from pydistill.benchmarks.set_scene import IMAGES, predictions
from pydistill.benchmarks.timing import rotate
from pydistill.ops import MatchProblem, hungarian_match, hungarian_match_all, match_cost


def peers(given, preset):
    """The loop and transformers' matcher, once they agree with ours."""
    found = {"loop": partial(matching_eager.loop, preset=preset)}
    if matcher := matching_eager.transformers_matcher(preset):
        found["transformers"] = matcher
    ours = hungarian_match(*given, preset=preset).target_of_query.cpu()
    for name, peer in found.items():
        for row, (queries, targets) in zip(ours, peer(*given)):
            agreed = torch.equal(row[torch.as_tensor(queries)], torch.as_tensor(targets).cpu())
            assert agreed and int((row >= 0).sum()) == len(targets), name
    return found


@pytest.mark.parametrize("preset", ["detr", "deformable_detr"])
@pytest.mark.parametrize("queries, targets", [(300, 20), (900, 100)])
def test_images(compare, device, scale, queries, targets, preset):
    """Floor: costs read and written."""
    given = predictions(device, IMAGES, *sides(scale, queries, targets))
    cost = match_cost(*given, preset=preset)
    compare(
        ours=rotate(partial(hungarian_match, preset=preset), *given),
        **{name: rotate(peer, *given) for name, peer in peers(given, preset).items()},
        scipy=rotate(lambda matrices: [scipy_assignment(m) for m in matrices], cost.cpu().numpy()),
        floor=rotate(lambda c: c + 1, cost),
        bytes_moved=sum(t.numel() * t.element_size() for t in given) + 2 * 4 * cost.numel(),
        operations=45 * cost.numel(),
    )


def test_all(compare, device, scale):
    """Three problems, as a step with a teacher and a group of queries has them, in one call and in three."""
    problems = [predictions(device, IMAGES, *sides(scale, queries, 20)) for queries in (300, 300, 900)]
    preset, flat = "deformable_detr", [x for given in problems for x in given]
    found = [peers(given, preset) for given in problems]

    def each(run):
        return lambda *x: [run[i](*x[4 * i : 4 * i + 4]) for i in range(len(problems))]

    def ours(*x):
        return hungarian_match_all([MatchProblem(*x[4 * i : 4 * i + 4], preset=preset) for i in range(len(problems))])

    one_by_one = [partial(hungarian_match, preset=preset)] * len(problems)
    cells = sum(len(x[0]) * x[0].shape[1] * x[2].shape[1] for x in problems)
    compare(
        ours=rotate(ours, *flat),
        one_by_one=rotate(each(one_by_one), *flat),
        **{name: rotate(each([x[name] for x in found]), *flat) for name in found[0]},
        bytes_moved=sum(t.numel() * t.element_size() for t in flat) + 2 * 4 * cells,
        operations=45 * cells,
    )
