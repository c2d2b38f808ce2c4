"""Distillation in Lightning: a ``LightningModule`` that owns a ``Distiller``, or a callback for one that does not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch import nn

from pydistill.distiller import Distilled, Distiller
from pydistill.schedule import Term

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    message = "pydistill.hosts.lightning: expected lightning, not installed here; pip install 'pydistill[train]'"
    raise ImportError(message) from error

__all__ = ["AdvanceDistillers", "DistillerCallback", "DistillerMixin"]


class AdvanceDistillers(Callback):
    """Calls ``advance()`` of every ``Distiller`` in the module after each training batch in which an optimiser stepped.

    That is once per optimiser step, also with ``accumulate_grad_batches``; a batch in which several optimisers step
    counts once. ``DistillerMixin`` brings it along; a module without the mixin that holds a ``Distiller`` passes it to
    the ``Trainer``. It runs before the checkpoints of the same batch are written.

    Raises:
        ValueError: at the start of a fit, for a module without a ``Distiller``, or whose checkpoints would contain a
            teacher because it is also a submodule or a hyperparameter.
    """

    _seen = 0  # trainer.global_step before the batch

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what would distil nothing or save the teacher."""
        distillers = self._distillers(pl_module)
        if not distillers:
            raise ValueError("AdvanceDistillers: expected a Distiller among the submodules, got none")
        for distiller in distillers:
            _check_hidden(distiller.teacher, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember the optimiser's steps."""
        self._seen = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance, if there are more of them."""
        if trainer.global_step > self._seen:
            for distiller in self._distillers(pl_module):
                distiller.advance()

    def _distillers(self, pl_module: LightningModule) -> list[Distiller]:
        return [module for module in pl_module.modules() if isinstance(module, Distiller)]


class DistillerMixin(LightningModule):
    """A ``LightningModule`` whose ``distiller`` is advanced and logged.

    ::

        class Lane(DistillerMixin):
            def __init__(self, student, teacher):
                super().__init__()
                self.distiller = Distiller(student, teacher, {...})

            def training_step(self, batch, batch_idx):
                images, labels = batch
                distilled = self.distill(images)
                return F.cross_entropy(distilled.output, labels) + distilled.loss

            def configure_optimizers(self):
                return torch.optim.SGD(self.distiller.parameters(), lr=0.01)

    The teacher follows the module's device; it is in no checkpoint, no optimiser and no gradient synchronisation. The
    distiller's step is in the checkpoint. Where the module defines ``configure_callbacks``, it adds those of
    ``super()``.
    """

    distiller: Distiller

    def configure_callbacks(self) -> list[Callback]:
        """What advances the distiller, and what the other base classes bring."""
        others = super().configure_callbacks()
        return [*(others if isinstance(others, Sequence) else [others]), AdvanceDistillers()]

    def distill(self, *args: Any, **kwargs: Any) -> Distilled:
        """``self.distiller(*args, **kwargs)``, with its weighted losses logged as ``distill/<term>``."""
        distilled: Distilled = self.distiller(*args, **kwargs)
        _log(self, distilled)
        return distilled


class DistillerCallback(AdvanceDistillers):
    """Distillation for a ``LightningModule`` that knows nothing of it: its ``training_step`` gets the terms added.

    ::

        callback = DistillerCallback(teacher, {"kd": Term(loss, "head", "head", weight=0.5)})
        Trainer(callbacks=[callback]).fit(module, data)

    Paths of student features start at the module. The step is part of the callback's state in the checkpoint; the
    teacher is in no checkpoint. After the fit the module is as it was.

    Args:
        teacher: any module, or None for self-distillation.
        terms: losses by name. Adapters and losses with parameters need ``DistillerMixin``, as the module's optimiser
            does not know them. A term with ``targets`` gets the batch.
        teacher_inputs: the teacher's arguments, a tuple or a dict of keywords, from the batch. By default the first
            element of a tuple or list, else the batch.

    Raises:
        ValueError: at the start of a fit, for terms with parameters, manual optimisation, a teacher that checkpoints
            would contain, or what ``Distiller`` refuses.
    """

    def __init__(
        self,
        teacher: nn.Module | None,
        terms: Mapping[str, Term],
        teacher_inputs: Callable[[Any], tuple[Any, ...] | dict[str, Any]] | None = None,
    ):
        super().__init__()
        self.teacher, self.terms = teacher, dict(terms)
        self.teacher_inputs = teacher_inputs or _first
        self._distiller: Distiller | None = None
        self._step = 0  # where the next fit starts
        self._own_step: Any = None  # the instance's own training_step, where it has one

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the terms around the module's ``training_step``."""
        if not pl_module.automatic_optimization:
            raise ValueError("DistillerCallback: expected automatic optimisation, got a module that steps by itself")
        _check_hidden(self.teacher, pl_module)
        if self.teacher is not None:
            self.teacher.to(pl_module.device)
        plain = pl_module.training_step
        distiller = Distiller(
            _TrainingStep(pl_module, plain), self.teacher, {name: _inside(term) for name, term in self.terms.items()}
        )
        if [*distiller.adapters.parameters(), *distiller.loss_modules.parameters()]:
            raise ValueError(
                "DistillerCallback: expected terms without parameters, got some; DistillerMixin takes them"
            )
        distiller.set_extra_state(torch.tensor(self._step))

        @wraps(plain)  # Lightning looks at the names of the arguments
        def training_step(batch: Any, *rest: Any) -> Any:
            distilled = distiller(batch, *rest, targets=batch, teacher_inputs=self.teacher_inputs(batch))
            _log(pl_module, distilled)
            return _with_loss(distilled)

        self._own_step = vars(pl_module).get("training_step")
        vars(pl_module)["training_step"] = training_step
        self._distiller = distiller

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the module its own ``training_step`` back."""
        if self._distiller is None:
            return
        self._step = self._distiller.step
        self._distiller.close()
        self._distiller = None
        del vars(pl_module)["training_step"]
        if self._own_step is not None:
            vars(pl_module)["training_step"] = self._own_step

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same after a fit that failed."""
        self.teardown(trainer, pl_module, "fit")

    def state_dict(self) -> dict[str, Any]:
        """The step, for the checkpoint."""
        return {"step": self._step if self._distiller is None else self._distiller.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the step."""
        self._step = state_dict["step"]

    def _distillers(self, pl_module: LightningModule) -> list[Distiller]:
        return [] if self._distiller is None else [self._distiller]


class _TrainingStep(nn.Module):
    """A ``training_step`` as the forward of a module, which is what a ``Distiller`` runs."""

    def __init__(self, module: LightningModule, step: Callable[..., Any]):
        super().__init__()
        self.module, self.step = module, step

    def forward(self, *args: Any) -> Any:
        return self.step(*args)


def _inside(term: Term) -> Term:
    paths = [f"module.{path}" if path else "module" for path in term.student_paths]
    return replace(term, student=paths[0] if isinstance(term.student, str) else paths)


def _first(batch: Any) -> tuple[Any, ...]:
    return (batch[0] if isinstance(batch, Sequence) else batch,)


def _with_loss(distilled: Distilled) -> Any:
    """What the module's ``training_step`` returned, with the terms in its loss."""
    output = distilled.output
    if output is None:  # the step is skipped
        return None
    return (
        {**output, "loss": output["loss"] + distilled.loss} if isinstance(output, Mapping) else output + distilled.loss
    )


def _log(module: LightningModule, distilled: Distilled) -> None:
    module.log_dict({f"distill/{name}": value.detach() for name, value in distilled.losses.items()})


def _check_hidden(teacher: nn.Module | None, module: LightningModule) -> None:
    if teacher is None:
        return
    saved = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    if any(id(tensor) in saved for tensor in (*teacher.parameters(), *teacher.buffers())):
        raise ValueError("Distiller: expected a teacher outside the module, got one that its checkpoints would contain")
    if any(value is teacher for value in module.hparams.values()):
        raise ValueError(
            "Distiller: expected a teacher outside the hyperparameters, got one that the checkpoints would contain; "
            "save_hyperparameters(ignore='teacher')"
        )
