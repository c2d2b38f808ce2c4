"""SADLoss: pairs, directions, and the health of its maps."""

import re
import warnings
from math import isnan, log

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pydistill.losses import SADLoss
from pydistill.ops.attention_distillation_loss import attention_distillation_loss_reference
from pydistill.ops.attention_map import attention_map_reference
from tests.conformance import DEVICES, NoCopies, assert_close, each_device, relative_error

SHAPES = [(2, 3, 8, 10), (2, 4, 4, 5), (2, 5, 4, 5), (2, 4, 2, 3)]


def stages(device, shapes=SHAPES, scale=0.5, **options):
    rng = torch.Generator().manual_seed(0)
    made = [scale * torch.randn(s, generator=rng, dtype=torch.float64) for s in shapes]
    return [x.to(device, **options).requires_grad_() for x in made]


@each_device
def test_reads_a_feature_that_serves_two_pairs_once(device):
    """The same losses and gradients as pair by pair, and three channel reductions for two pairs, not four."""
    shapes = [(2, 3, 8, 10), (2, 4, 4, 5), (2, 4, 4, 5)]
    xs = [torch.randn(s, device=device, dtype=torch.float64, requires_grad=True) for s in shapes]
    with torch.profiler.profile() as profile:
        losses = SADLoss(reference="tensorflow")(xs)
    counts = {e.key: e.count for e in profile.key_averages()}
    assert counts["pydistill::channel_energy"] == 3
    pairs = [attention_distillation_loss_reference(a, b, detach_target=False) for a, b in zip(xs, xs[1:])]
    assert_close(list(losses.values()), pairs, 1e-12)
    got = torch.autograd.grad(sum(losses.values()), xs)
    assert_close(got, torch.autograd.grad(sum(pairs), xs), 1e-10)


@each_device
def test_pairs(device):
    xs = [torch.randn(1, 2, 4, 4, device=device) for _ in range(3)]
    losses = SADLoss(pairs=[(2, 0)])(xs)
    want = attention_distillation_loss_reference(xs[2].double(), xs[0].double())
    assert list(losses) == ["sad_2_0"] and relative_error(losses["sad_2_0"], want) < 1e-5
    with pytest.raises(ValueError, match=r"SADLoss: expected features for the pairs \[\(2, 0\)\], got 2 features"):
        SADLoss(pairs=[(2, 0)])(xs[:2])
    with pytest.raises(ValueError, match="SADLoss: expected reference in .*, got 'lua'"):
        SADLoss(reference="lua")
    with pytest.raises(ValueError, match="SADLoss: expected direction in .*, got 'shallow'"):
        SADLoss(direction="shallow")
    with pytest.raises(ValueError, match="SADLoss: expected at least two features, got 1"):
        SADLoss()(xs[:1])
    with pytest.raises(TypeError, match="SADLoss: expected a list of features, got dict"):
        SADLoss()(dict(zip("abc", xs)))
    with pytest.raises(ValueError, match=r"SADLoss: expected features named \['e2'\], got 3 features"):
        SADLoss(names=["e2"])(xs)


@each_device
@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (0, 3), (2, 3)])
@pytest.mark.parametrize("explicit", [False, True])
def test_reverse_has_the_value_of_the_pair_and_lets_the_deeper_stage_learn(device, pair, explicit):
    xs = stages(device)
    shallow, deep = pair
    options = dict(pairs=[(deep, shallow)]) if explicit else dict(pairs=[pair], direction="reverse")
    losses = SADLoss(**options)(xs)
    size = xs[shallow].shape[2:]
    want = attention_distillation_loss_reference(xs[deep], xs[shallow], size=size)
    assert list(losses) == [f"sad_{deep}_{shallow}"]
    got = losses[f"sad_{deep}_{shallow}"]
    assert relative_error(got, want) < 1e-12
    assert relative_error(got, SADLoss(pairs=[pair])(xs)[f"sad_{shallow}_{deep}"]) < 1e-12
    unused = [x for i, x in enumerate(xs) if i != deep]
    assert torch.autograd.grad(got, unused, retain_graph=True, allow_unused=True) == (None,) * 3
    assert relative_error(torch.autograd.grad(got, xs[deep])[0], torch.autograd.grad(want, xs[deep])[0]) < 1e-10


def test_reverse_of_the_default_pairs():
    assert list(SADLoss(direction="reverse")(stages("cpu"))) == ["sad_1_0", "sad_2_1", "sad_3_2"]


def entropy_and_peak(features, **options):
    maps = attention_map_reference(features.detach().double(), **options).flatten(1)
    entropy = torch.special.entr(maps).sum(1).mean() / log(maps.shape[1])
    return [entropy.item(), maps.amax(1).mean().item()]


@each_device
@pytest.mark.parametrize("options", [{}, {"normalize": "mean", "temperature": 0.5}, {"normalize": "standardize"}])
def test_health_is_entropy_and_peak_of_each_map(device, options):
    xs, others = stages(device, scale=0.5), stages(device, scale=0.9)
    loss = SADLoss(pairs=[(1, 2), (0, 2)], health=True, **options)
    loss(xs)
    loss(others)
    got = loss.health.statistics()
    assert list(got) == [f"{i}.{what}" for i in range(3) for what in ("entropy", "peak")]
    want = [entropy_and_peak(torch.cat((a.detach(), b.detach())), **options) for a, b in zip(xs[:3], others)]
    assert relative_error(torch.tensor(list(got.values())), torch.tensor(want).flatten()) < 1e-5
    assert loss.health.statistics() == {}
    loss(xs)
    assert loss.health.statistics()["2.peak"] == pytest.approx(entropy_and_peak(xs[2], **options)[1], rel=1e-5)


def test_health_changes_nothing_and_is_in_no_state():
    xs = stages("cpu")
    plain, watched = SADLoss(), SADLoss(health=True, names=["e1", "e2", "e3", "e4"])
    assert plain.health is None
    a, b = plain(xs), watched(xs)
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert not watched.state_dict() and not list(watched.buffers())  # else DDP would broadcast it at every step
    assert "e4.entropy" in watched.health.statistics()
    watched.eval()(xs)
    assert watched.health.statistics() == {}
    watched.train()([x[:0] for x in xs])
    assert watched.health.statistics() == {}
    watched([torch.full((1, 2, 3, 3), torch.nan)] * 4)
    assert isnan(watched.health.statistics()["e1.peak"])


# Features N(0, s^2) as large as ENet's E1 and E2 at 288 x 800.
ENET = [(2, 64, 72, 200), (2, 128, 36, 100)]
UNIFORM = "collapsed to uniform .* Try normalize='standardize' or a temperature below 1 or larger features"
ONE_HOT = "collapsed to one pixel .* Try normalize='mean' or a temperature above 1"


@each_device
@pytest.mark.parametrize(
    ("scale", "collapse"),
    [(0.02, UNIFORM), (0.1, None), (0.3, None), (0.577, None), (3.0, ONE_HOT), (20.0, ONE_HOT)],
    ids=lambda value: value if isinstance(value, float) else "",
)
def test_a_map_that_has_collapsed_is_named_once(device, scale, collapse):
    xs = stages(device, ENET, scale, dtype=torch.float32)
    loss = SADLoss(health=True, names=["e1", "e2"])
    for messages in (2 * (collapse is not None), 0):
        loss(xs)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loss.health.statistics()
        assert len(caught) == messages
        for name, warning in zip(("e1", "e2"), caught):
            assert re.search(f"SADLoss: the attention map of feature '{name}' has {collapse}", str(warning.message))
            assert warning.filename == __file__


def test_the_warning_leaves_out_what_is_in_use_already():
    loss = SADLoss(pairs=[(0, 1)], health=True, normalize="mean", temperature=1e-3)
    loss(stages("cpu"))
    with pytest.warns(UserWarning, match="Try a temperature above 0.001$"):
        loss.health.statistics()
    loss = SADLoss(pairs=[(0, 1)], health=True, normalize="standardize", temperature=1e3)
    loss(stages("cpu"))
    with pytest.warns(UserWarning, match="Try a temperature below 1000 or larger features$"):
        loss.health.statistics()


@each_device
@pytest.mark.parametrize("scale", [0.02, 3.0])
@pytest.mark.parametrize("normalize", ["mean", "standardize"])
def test_the_remedy_helps(device, scale, normalize):
    loss = SADLoss(health=True, normalize=normalize)
    loss(stages(device, ENET, scale, dtype=torch.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = loss.health.statistics()
    assert 0.9 < got["1.entropy"] < 0.9999 and got["1.peak"] < 0.1


@each_device
def test_health_in_compiled_code(device):
    torch._dynamo.reset()
    xs = stages(device, dtype=torch.float32)
    eager, loss = SADLoss(health=True), SADLoss(health=True)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        eager(xs)
        sum(compiled(xs).values()).backward()
    got, want = loss.health.statistics(), eager.health.statistics()
    assert got.keys() == want.keys()
    assert relative_error(torch.tensor(list(got.values())), torch.tensor(list(want.values()))) < 1e-6


def test_health_on_a_fake_gpu_without_a_copy():
    loss = SADLoss(health=True, normalize="mean")
    with FakeTensorMode(), NoCopies(), torch.no_grad():
        for _ in range(2):
            loss([torch.empty(s, device="cuda") for s in SHAPES])
    loss(stages("cpu"))
    assert len(loss.health.statistics()) == 8


@pytest.mark.cuda
@pytest.mark.skipif("cuda" not in DEVICES, reason="needs a GPU")
def test_health_in_a_captured_step():
    xs, loss = stages("cuda", dtype=torch.float32), SADLoss(health=True)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        loss(xs)
    torch.cuda.current_stream().wait_stream(stream)
    want = loss.health.statistics()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss(xs)
    for _ in range(3):
        graph.replay()
    assert loss.health.statistics() == pytest.approx(want, rel=1e-6)
