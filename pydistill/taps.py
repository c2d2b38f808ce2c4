"""Features of a model, read by module path."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

__all__ = ["Taps"]


class Taps:
    """Records what the modules at ``paths`` return during a forward.

    ::

        taps = Taps(model, ["encoder.stage2", "head.conv[*]"])
        with taps.record():
            model(images)
        feature, all_calls = taps["encoder.stage2"], taps["head.conv[*]"]

    A path is a name of ``model.named_modules()``; ``""`` is the model itself. A module called several times in one
    forward (a head shared by levels) needs ``path[i]`` for call i or ``path[*]`` for the list of all.
    Hooks exist only while recording, so that a copied or saved model carries none. Compiled models are the exception:
    what is compiled without hooks never calls them, so theirs stay until ``close()``, idle outside of ``record()``.

    Args:
        model: any module, compiled or not. Compile before tapping.
        paths: what to record.
        role: the model's name in messages.

    Raises:
        ValueError: when a path names no module.
    """

    def __init__(self, model: nn.Module, paths: Iterable[str], role: str = "model") -> None:
        self.model: nn.Module = getattr(model, "_orig_mod", model)  # what torch.compile has wrapped
        self.paths = tuple(dict.fromkeys(paths))
        self.role = role
        self._wanted: frozenset[str] = frozenset()
        self._calls: dict[str, list[tuple[Any, list[int]]]] = {}
        self._handles: list[RemovableHandle] = []
        modules = [self._module(path) for path in self.paths]
        self._stay = model is not self.model or any(_is_compiled(module) for module in self.model.modules())
        if self._stay and modules:
            self._install()

    @contextmanager
    def record(self, paths: Iterable[str] | None = None) -> Iterator[None]:
        """Record ``paths`` (all, unless told) within the block; features of an earlier block are dropped."""
        self.clear()
        self._wanted = frozenset(_split(path)[0] for path in (self.paths if paths is None else paths))
        if not self._stay:
            self._install()
        try:
            yield
        finally:
            self._wanted = frozenset()
            if not self._stay:
                self.close()

    def __getitem__(self, path: str) -> Any:
        """What the module at ``path`` returned.

        Raises:
            RuntimeError: when it was not called, was called several times and ``path`` does not say which call is
                meant, or when what it returned was changed in place since.
        """
        name, select = _split(path)
        calls = self._calls.get(name, [])
        if not calls or (select not in (None, "*") and int(select) >= len(calls)):
            raise RuntimeError(
                f"Taps: expected tap {path!r} of the {self.role} to be reached in the forward, got {len(calls)} calls; "
                "a model that ran compiled before it was tapped needs torch.compiler.reset()"
            )
        if select is None and len(calls) > 1:
            raise RuntimeError(
                f"Taps: expected one call of tap {path!r} of the {self.role}, got {len(calls)}; "
                f"tap '{name}[*]' for the list or '{name}[0]' for the first"
            )
        chosen = calls if select == "*" else [calls[int(select or 0)]]
        if any(versions and versions != _versions(output) for output, versions in chosen):
            raise RuntimeError(
                f"Taps: expected the output of tap {path!r} of the {self.role} unchanged, got one that a later layer "
                "has overwritten in place; tap that layer, or give it inplace=False"
            )
        return [output for output, _ in chosen] if select == "*" else chosen[0][0]

    def clear(self) -> None:
        """Forget the recorded features, and with them their memory."""
        self._calls = {}

    def close(self) -> None:
        """Remove every hook."""
        while self._handles:
            self._handles.pop().remove()

    def _install(self) -> None:
        for name in dict.fromkeys(_split(path)[0] for path in self.paths):
            self._handles.append(self._module(name).register_forward_hook(_Hook(self, name)))

    def _module(self, path: str) -> nn.Module:
        name = _split(path)[0]
        try:
            return self.model.get_submodule(name)
        except AttributeError:
            names = [known for known, _ in self.model.named_modules() if known]
            near = get_close_matches(name, names, n=5, cutoff=0.4) or names[:5]
            raise ValueError(
                f"Taps: expected the path of a module of the {self.role}, got {path!r}; near matches: {near}"
            ) from None


class _Hook:
    """A class, not a closure: deep copies and pickles of a compiled model then hold a hook of their own ``Taps``."""

    def __init__(self, taps: Taps, name: str) -> None:
        self.taps, self.name = taps, name

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.name in self.taps._wanted:
            versions = [] if torch.compiler.is_compiling() else _versions(output)
            self.taps._calls.setdefault(self.name, []).append((output, versions))


def tensors(tree: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and dicts."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _versions(output: Any) -> list[int]:
    return [leaf._version for leaf in tensors(output) if not leaf.is_inference()]


def _split(path: str) -> tuple[str, str | None]:
    """``"head.conv[2]"`` -> ``("head.conv", "2")``."""
    match = re.fullmatch(r"(.*?)(?:\[(\*|\d+)\])?", path, re.DOTALL)
    assert match is not None  # the pattern matches every string
    return match[1], match[2]


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
