"""transformers' detectors train with the losses here as with their own: the same loss at every step."""

import pytest
import torch

from pydistill.hosts.transformers import loss_for
from tests.hosts.detectors import detector, scenes

pytest.importorskip("transformers", reason="needs pip install transformers")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def double():
    """float32 would measure how a training grows a last digit."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def train(model, batches):
    """The loss at every step."""
    dtype = next(model.parameters()).dtype
    optimizer = torch.optim.AdamW(model.parameters(), 5e-4)
    losses = []
    for pictures, labels in batches:
        labels = [{**t, "boxes": t["boxes"].to(dtype)} for t in labels]
        optimizer.zero_grad()
        loss = model(pixel_values=pictures.to(dtype), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


@pytest.mark.parametrize("name", ["detr", "deformable_detr", "rt_detr"])
def test_same_curve(name, double):
    """Two trainings from one seed."""
    batches, curves = scenes(100), []
    for replaced in (False, True):
        torch.manual_seed(0)
        model = detector(name).train()
        if replaced:
            model.loss_function = loss_for(model)
        curves.append(train(model, batches))
    want, got = curves
    assert want[-10:].mean() < 0.9 * want[:10].mean()
    assert ((got - want) / want).abs().max() < 1e-4


@pytest.mark.parametrize("name, steps", [("conditional_detr", 20), ("d_fine", 40)])
def test_same_loss_as_it_trains(name, steps):
    """One training in float32, which is all that D-FINE's own loss takes; both losses of every step's outputs."""
    torch.manual_seed(0)
    model = detector(name).train()
    theirs, ours, wrong = model.loss_function, loss_for(model), []

    def both(*args, **kwargs):
        (total, terms, _), result = theirs(*args, **kwargs), ours(*args, **kwargs)
        pairs = [(result[0], total), *((result[1][name], term) for name, term in terms.items())]
        wrong.append(max(float((a - b).detach().abs().max() / total.detach()) for a, b in pairs))
        assert result[1].keys() == terms.keys()
        return result

    model.loss_function = both
    curve = train(model, scenes(steps))
    assert curve[-10:].mean() < curve[:10].mean()
    assert max(wrong) < 1e-5
