"""The training layer: any student, any teacher or none, any loss between their features."""

from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from pydistill.adapters import adapt, build_adapters
from pydistill.schedule import Term
from pydistill.taps import Taps, tensors

__all__ = ["Distilled", "Distiller"]

_FORGOTTEN_STEPS = 16
"""Parameter updates without ``advance()`` after which a schedule that waits for a step is taken for a mistake."""


class Distilled(NamedTuple):
    """What a call of the ``Distiller`` returns.

    Attributes:
        output: what the student returned.
        loss: the sum of ``losses``, float32, to be added to the task's loss. 0 while every term sleeps.
        losses: the weighted scalars of the active terms: ``{"term": ...}``, or ``{"term.key": ...}`` of a dict.
    """

    output: Any
    loss: Tensor
    losses: dict[str, Tensor]


class Distiller(nn.Module):
    """Runs the student, and the teacher where an active term needs it, and computes the terms of the current step.

    ::

        distiller = Distiller(student, teacher, {"kd": Term(loss, "head", "head", weight=0.5, start=1000)})
        optimizer = SGD(distiller.parameters())
        for images, labels in loader:
            distilled = distiller(images)
            (task_loss(distilled.output, labels) + distilled.loss).backward()
            optimizer.step()
            optimizer.zero_grad()
            distiller.advance()

    The student, the adapters and losses with parameters are submodules. The teacher is not: it is frozen, in eval mode,
    outside ``parameters()`` and ``state_dict()``, yet follows ``.to()``. ``step`` counts optimiser steps and is part of
    the state dict. A step never waits for the device. Under DDP wrap the distiller, not the student.

    Args:
        student: any module.
        teacher: any module that shares no parameter with the student, or None for self-distillation.
        terms: losses by name.

    Raises:
        TypeError: for terms that are not a dict of ``Term``.
        ValueError: for a path that names no module, no terms, terms that need a missing teacher, or a teacher that no
            term uses.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module | None = None, terms: Mapping[str, Term] | None = None):
        super().__init__()
        _check_terms(terms or {}, student, teacher)
        self.terms = dict(terms or {})
        self.student = student
        self._hidden_teacher = (teacher.eval().requires_grad_(False),) if teacher is not None else ()
        self.adapters = nn.ModuleDict({name: build_adapters(term.adapters, name) for name, term in self.terms.items()})
        modules = {name: term.loss for name, term in self.terms.items() if isinstance(term.loss, nn.Module)}
        self.loss_modules = nn.ModuleDict(modules)
        self._student_taps = Taps(student, (p for t in self.terms.values() for p in t.student_paths), "student")
        teacher_paths = (p for t in self.terms.values() for p in t.teacher_paths)
        self._teacher_taps = Taps(teacher, teacher_paths, "teacher") if teacher is not None else None
        self.step = 0
        self._closed = False
        self._scales: dict[str, Tensor] = {}  # weights on the device: a captured CUDA graph follows the ramp
        self._sums: dict[str, Tensor] = {}  # (sum of raw values, their number) since the last statistics()
        self._updates, self._version = 0, -1  # of the student's first parameter, since the last advance()

    @property
    def teacher(self) -> nn.Module | None:
        """The frozen teacher, which is not a submodule."""
        return self._hidden_teacher[0] if self._hidden_teacher else None

    def forward(self, *args: Any, targets: Any = None, teacher_inputs: Any = None, **kwargs: Any) -> Distilled:
        """Run the student on ``args`` and ``kwargs``, then the active terms.

        Args:
            *args: the student's arguments.
            targets: handed to the terms that ask for them, not to the student.
            teacher_inputs: the teacher's arguments, a tuple, or a dict of keywords; None: the student's.
            **kwargs: the student's keyword arguments.

        Raises:
            TypeError: for ``teacher_inputs`` of another type.
            RuntimeError: when a feature is not reached, has no gradient in training or was overwritten, when a loss
                has no gradient in training, or when the step is never advanced.
        """
        self._check_state()
        if not isinstance(teacher_inputs, tuple | Mapping | None):  # a tensor would be taken apart along its batch
            got = type(teacher_inputs).__name__
            raise TypeError(f"Distiller: expected a tuple or a dict as teacher_inputs, got {got}")
        active = {name: term for name, term in self.terms.items() if term.weight_at(self.step) > 0}
        with self._student_taps.record(path for term in active.values() for path in term.student_paths):
            output = self.student(*args, **kwargs)
        self._run_teacher(active, args, kwargs, teacher_inputs)
        losses: dict[str, Tensor] = {}
        for name, term in active.items():
            for key, raw in self._compute(name, term, targets).items():
                losses[key] = raw * self._scale(name, raw)
        self._student_taps.clear()
        if self._teacher_taps is not None:
            self._teacher_taps.clear()
        return Distilled(output, self._total(losses, active), losses)

    def advance(self) -> None:
        """Count one optimiser step. Call it after each ``optimizer.step()``, once per accumulated batch."""
        self._set_step(self.step + 1)

    def statistics(self) -> dict[str, float]:
        """Means of the unweighted terms over the training forwards of this process since the last call.

        This reads the device, once: call it every ``log_every`` steps. Terms that slept all the time are left out.
        """
        if not self._sums:
            return {}
        device = next(iter(self._sums.values())).device
        rows = torch.stack([total.to(device) for total in self._sums.values()]).tolist()
        for total in self._sums.values():
            total.zero_()
        return {name: value / count for name, (value, count) in zip(self._sums, rows) if count}

    def student_state_dict(self) -> dict[str, Any]:
        """The state of the student alone, with the keys of the plain module."""
        return self._student_taps.model.state_dict()

    def train(self, mode: bool = True) -> "Distiller":
        """Set the mode of everything but the teacher, which stays in eval mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def close(self) -> None:
        """Remove the hooks. The student is then as it was; the distiller cannot be called again."""
        self._closed = True
        self._student_taps.close()
        if self._teacher_taps is not None:
            self._teacher_taps.close()

    def __enter__(self) -> "Distiller":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def get_extra_state(self) -> Tensor:
        """The step, for ``state_dict()``."""
        return torch.tensor(self.step)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the step."""
        self._set_step(int(state))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Distiller":
        for module in (super(), *self._hidden_teacher):
            module._apply(fn, recurse)
        return self

    def _run_teacher(
        self, active: Mapping[str, Term], args: tuple[Any, ...], kwargs: dict[str, Any], inputs: Any
    ) -> None:
        paths = [path for term in active.values() for path in term.teacher_paths]
        if not paths or self.teacher is None or self._teacher_taps is None:
            return
        if isinstance(inputs, Mapping):
            args, kwargs = (), dict(inputs)
        elif inputs is not None:
            args, kwargs = inputs, {}
        if self.teacher.training:  # somebody has called its train()
            self.teacher.eval()
        with torch.no_grad(), self._teacher_taps.record(paths):
            self.teacher(*args, **kwargs)

    def _compute(self, name: str, term: Term, targets: Any) -> dict[str, Tensor]:
        """The raw scalars of one term, checked and counted."""
        arguments = self._arguments(name, term)
        device = next((tensor.device.type for tensor in tensors(arguments)), "cpu")
        if term.upcast:
            arguments = [tree_map_only(Tensor, _upcast, argument) for argument in arguments]
        loss = getattr(self.loss_modules, name, term.loss)
        with torch.autocast(device, enabled=False):
            result = loss(*arguments, targets) if term.targets else loss(*arguments)
        named = result if isinstance(result, dict) else {"": result}
        losses = {f"{name}.{key}" if key else name: value for key, value in named.items()}
        for key, raw in losses.items():
            if not isinstance(raw, Tensor) or raw.dim():
                got = list(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__
                raise ValueError(f"Distiller: expected a scalar tensor from the loss {key!r}, got {got}")
            self._check_gradient(f"a gradient in the loss {key!r}", raw)
            self._count(key, raw.detach())
        return {key: _upcast(raw) for key, raw in losses.items()}

    def _arguments(self, name: str, term: Term) -> list[Any]:
        """The features of one term, the student's adapted: a path gives its feature, a sequence of paths a list."""
        layers = self.adapters[name]
        assert isinstance(layers, nn.ModuleList)
        students = []
        for path, layer in zip(term.student_paths, layers):
            feature = self._student_taps[path]
            self._check_gradient(f"a gradient in the student's feature {path!r}", feature)
            students.append(tree_map_only(Tensor, partial(adapt, layer), feature))
        arguments: list[Any] = [students[0] if isinstance(term.student, str) else students]
        if self._teacher_taps is not None and term.teacher is not None:
            teachers = [self._teacher_taps[path] for path in term.teacher_paths]
            arguments.append(teachers[0] if isinstance(term.teacher, str) else teachers)
        return arguments

    def _total(self, losses: Mapping[str, Tensor], active: Mapping[str, Term]) -> Tensor:
        """The sum of the losses and of 0 times each parameter of a sleeping term, because DDP waits for all of them."""
        parts = list(losses.values())
        for name in self.terms:
            if name not in active:
                modules = [group[name] for group in (self.adapters, self.loss_modules) if name in group]
                parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
                parts += [0.0 * p.sum(dtype=torch.float32) for p in parameters]
        if parts:
            return torch.stack(parts).sum() if len(parts) > 1 else parts[0]
        return torch.zeros((), device=next((p.device for p in self.parameters()), None))

    def _scale(self, name: str, like: Tensor) -> Tensor:
        scale = self._scales.get(name)
        if scale is None or (scale.device, scale.dtype) != (like.device, like.dtype):
            weight = self.terms[name].weight_at(self.step)
            scale = self._scales[name] = torch.full((), weight, device=like.device, dtype=like.dtype)
        return scale

    def _set_step(self, step: int) -> None:
        for name, scale in self._scales.items():
            weight = self.terms[name].weight_at(step)
            if weight != self.terms[name].weight_at(self.step):
                scale.fill_(weight)
        self.step, self._updates = step, 0

    def _count(self, key: str, raw: Tensor) -> None:
        if not self.training:
            return
        row = torch.stack((raw.float(), torch.ones_like(raw, dtype=torch.float32)))
        self._sums[key] = self._sums[key].to(row.device).add_(row) if key in self._sums else row

    def _check_gradient(self, what: str, value: Any) -> None:
        if self.training and torch.is_grad_enabled() and not any(t.requires_grad for t in tensors(value)):
            raise RuntimeError(
                f"Distiller: expected {what} in training, got none; frozen layers, detach() and checkpoint() with "
                "use_reentrant=True cut it, and a loss with nothing to compare should return 0 * student.sum()"
            )

    def _check_state(self) -> None:
        if self._closed:
            raise RuntimeError("Distiller: expected an open distiller, got a call after close()")
        if getattr(self, "_is_replica", False):
            raise RuntimeError("Distiller: expected DistributedDataParallel, got DataParallel")
        if not self.training:
            return
        version = next((p._version for p in self.student.parameters() if p.requires_grad), 0)
        self._updates += version != self._version
        self._version = version
        waits = any(t.weight and (self.step < t.start + t.ramp or t.end is not None) for t in self.terms.values())
        if waits and self._updates > _FORGOTTEN_STEPS:
            raise RuntimeError(
                f"Distiller: expected advance() after each optimizer.step(), got {self._updates - 1} updates of the "
                f"student at step {self.step}"
            )


def _upcast(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _check_terms(terms: Mapping[str, Term], student: nn.Module, teacher: nn.Module | None) -> None:
    if not terms:
        raise ValueError("Distiller: expected at least one term, got none")
    if not isinstance(terms, Mapping):
        raise TypeError(f"Distiller: expected terms as a dict of Term by name, got {type(terms).__name__}")
    for name, term in terms.items():
        if not isinstance(term, Term):
            raise TypeError(f"Distiller: expected a Term under the name {name!r}, got {type(term).__name__}")
        if not name.isidentifier() or hasattr(nn.ModuleDict, name):
            raise ValueError(f"Distiller: expected term names that are plain identifiers, got {name!r}")
        if term.teacher is not None and teacher is None:
            raise ValueError(f"Distiller: expected a teacher for the term {name!r}, got None")
    if teacher is None:
        return
    if all(term.teacher is None for term in terms.values()):
        raise ValueError("Distiller: expected a term that uses the teacher, got none with teacher paths")
    if {id(p) for p in teacher.parameters()} & {id(p) for p in student.parameters()}:
        raise ValueError("Distiller: expected a teacher with parameters of its own, got some of the student's")
