"""Three steps of Lightning against the same loop by hand; what its checkpoints contain; where they resume."""

import sys
from dataclasses import replace
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from pydistill import Adapter, Distiller, Term
from tests.conformance import relative_error
from tests.training.nets import Net, batches, same_bits, sgd

pytest.importorskip("lightning", reason="needs pip install 'pydistill[train]'")
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from pydistill.hosts.lightning import DistillerCallback, DistillerMixin

WARNINGS = "not have many workers|LeafSpec|during checkpointing|not empty|not resumable|returned `None`"
pytestmark = pytest.mark.filterwarnings(f"ignore:.*({WARNINGS}).*")
DATA = batches(6)
ADAPTED = Term(F.mse_loss, "net.body", "body", Adapter("1x1", 4, 8), weight=2.0, ramp=4)


def distiller_of(dropout=0.3):
    term = replace(ADAPTED, student="body")
    torch.manual_seed(3)  # the adapter's start is drawn from the global stream
    return Distiller(Net(4, seed=0, dropout=dropout), Net(8, seed=1, dropout=0.3), {"hint": term})


class Recorded(LightningModule):
    def __init__(self):
        super().__init__()
        self.totals, self.hints = [], []

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.totals.append(outputs["loss"].item())
        self.hints.append(float(self.trainer.callback_metrics.get("distill/hint", 0.0)))


class Mixed(DistillerMixin, Recorded):
    def __init__(self, distiller):
        super().__init__()
        self.distiller = distiller

    def training_step(self, batch, batch_idx):
        images, labels = batch
        distilled = self.distill(images)
        return F.cross_entropy(distilled.output, labels) + distilled.loss

    def configure_optimizers(self):
        return sgd(self.distiller)


class Plain(Recorded):
    """Knows nothing of distillation."""

    def __init__(self, dropout=0.3):
        super().__init__()
        self.net = Net(4, seed=0, dropout=dropout)

    def training_step(self, batch):
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    def configure_optimizers(self):
        return sgd(self.net)


def fit(module, folder, *, steps=3, resume=None, callbacks=(), data=DATA, **options):
    saved = ModelCheckpoint(dirpath=folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[saved, *callbacks],
        default_root_dir=folder,
        **options,
    )
    torch.manual_seed(7)
    loader = DataLoader(data, batch_size=None, generator=torch.Generator())  # draws nothing from the global stream
    trainer.fit(module, loader, ckpt_path=resume)
    return torch.load(folder / f"step={steps}.ckpt", weights_only=True)


def by_hand(distiller, steps=3, accumulate=1):
    """The loop of the manual. Returns the total and the weighted hint of every batch."""
    torch.manual_seed(7)
    optimizer, totals, hints = sgd(distiller), [], []
    for i, (images, labels) in enumerate(DATA[: steps * accumulate]):
        distilled = distiller(images)
        total = F.cross_entropy(distilled.output, labels) + distilled.loss
        (total / accumulate).backward()
        totals.append(total.item())
        hints.append(distilled.losses["hint"].item() if distilled.losses else 0.0)
        if i % accumulate == accumulate - 1:
            optimizer.step()
            optimizer.zero_grad()
            distiller.advance()
    return totals, hints


def assert_near(got, expected):
    assert len(got) == len(expected) and relative_error(torch.tensor(got), torch.tensor(expected)) < 1e-6


@pytest.mark.parametrize("accumulate", [1, 2])
def test_mixin_is_the_loop_of_the_manual(accumulate, tmp_path):
    module, own = Mixed(distiller_of()), distiller_of()
    saved = fit(module, tmp_path, accumulate_grad_batches=accumulate)
    totals, hints = by_hand(own, accumulate=accumulate)
    assert_near(module.hints, hints)
    assert_near([accumulate * total for total in module.totals], totals)
    assert module.distiller.step == own.step == 3
    assert same_bits(module.distiller, own)
    assert not any("teacher" in key for key in saved["state_dict"])
    assert saved["state_dict"].keys() == {f"distiller.{key}" for key in own.state_dict()}
    assert int(saved["state_dict"]["distiller._extra_state"]) == 3
    assert sum(len(group["params"]) for group in module.optimizers().param_groups) == len([*own.parameters()])
    assert {path.suffix for path in tmp_path.rglob("*")} == {".ckpt"}


def test_mixin_resumes_at_its_step(tmp_path):
    own = distiller_of(dropout=0.0)
    totals, _ = by_hand(own)
    fit(Mixed(distiller_of(dropout=0.0)), tmp_path, steps=2)
    resumed = Mixed(distiller_of(dropout=0.0))
    fit(resumed, tmp_path, resume=tmp_path / "step=2.ckpt", data=DATA[2:3] * 6)
    assert_near(resumed.totals, totals[2:])
    assert resumed.distiller.step == 3 and same_bits(resumed.distiller, own)


def callback_of(**options):
    term = Term(F.mse_loss, "net.body", "body", weight=2.0, ramp=4)
    return DistillerCallback(Net(4, seed=1, dropout=0.3), {"hint": term}, **options)


def plain_distiller(dropout=0.3):
    term = Term(F.mse_loss, "body", "body", weight=2.0, ramp=4)
    return Distiller(Net(4, seed=0, dropout=dropout), Net(4, seed=1), {"hint": term})


def test_callback_adds_the_terms_to_a_module_that_knows_nothing_of_them(tmp_path):
    module, own, callback = Plain(), plain_distiller(), callback_of()
    saved = fit(module, tmp_path, callbacks=[callback])
    totals, hints = by_hand(own)
    assert_near(module.totals, totals)
    assert_near(module.hints, hints)
    assert same_bits(module.net, own.student)
    assert saved["state_dict"].keys() == Plain().state_dict().keys()
    assert saved["callbacks"]["DistillerCallback"] == {"step": 3}
    assert "training_step" not in vars(module)


def test_callback_resumes_at_its_step(tmp_path):
    own = plain_distiller(dropout=0.0)
    totals, _ = by_hand(own)
    fit(Plain(dropout=0.0), tmp_path, steps=2, callbacks=[callback_of()])
    resumed = Plain(dropout=0.0)
    fit(resumed, tmp_path, resume=tmp_path / "step=2.ckpt", callbacks=[callback_of()], data=DATA[2:3] * 6)
    assert_near(resumed.totals, totals[2:])
    assert same_bits(resumed.net, own.student)


class Verbose(Plain):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch["pair"])
        return None if batch_idx == 1 else {"loss": loss, "index": batch_idx}


def test_callback_keeps_what_a_step_returns(tmp_path):
    outputs = []
    module = Verbose()
    module.on_train_batch_end = lambda output, batch, index: outputs.append((output or {}).get("index"))
    callback = callback_of(teacher_inputs=lambda batch: (batch["pair"][0],))
    fit(module, tmp_path, callbacks=[callback], data=[{"pair": batch} for batch in DATA])
    assert outputs == [0, None, 2]
    assert callback.state_dict() == {"step": module.trainer.global_step} == {"step": 3}  # Lightning counts the skipped


class Adopted(Mixed):
    def __init__(self, distiller):
        super().__init__(distiller)
        self.adopted = distiller.teacher


class Remembered(Mixed):
    def __init__(self, teacher, distiller):
        super().__init__(distiller)
        self.save_hyperparameters("teacher")


class Without(Mixed):
    def configure_optimizers(self):
        return sgd(Net(4, seed=0))


class Manual(Plain):
    automatic_optimization = False


@pytest.mark.parametrize(
    ("module", "callbacks", "message"),
    [
        (lambda d: Adopted(d), list, "expected a teacher outside the module"),
        (lambda d: Remembered(d.teacher, d), list, "expected a teacher outside the hyperparameters"),
        (lambda d: Without(torch.nn.Identity()), list, "expected a Distiller among the submodules, got none"),
        (lambda d: Manual(), lambda: [callback_of()], "expected automatic optimisation"),
        (
            lambda d: Plain(),
            lambda: [DistillerCallback(Net(8, seed=1), {"hint": ADAPTED})],
            "expected terms without parameters",
        ),
    ],
)
def test_what_would_be_silent_is_an_error(module, callbacks, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fit(module(distiller_of()), tmp_path, callbacks=callbacks())


def test_a_failed_fit_gives_the_step_back(tmp_path):
    module = Plain()
    with pytest.raises(TypeError):
        fit(module, tmp_path, callbacks=[callback_of(teacher_inputs=lambda batch: ())])
    assert "training_step" not in vars(module)


def test_without_lightning_the_import_says_what_to_install(monkeypatch):
    for name in ("lightning", "lightning.pytorch"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "pydistill.hosts.lightning")
    with pytest.raises(ImportError, match=r"expected lightning, not installed here; pip install 'pydistill\[train\]'"):
        import_module("pydistill.hosts.lightning")
