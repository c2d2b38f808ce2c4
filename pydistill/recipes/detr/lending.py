"""What a detector by queries says, and the queries that a teacher lends to its student."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from pydistill.losses.detr.prediction import SetPrediction


class Queries(NamedTuple):
    """What a decoder starts from, learned (Q, ...) or chosen for each picture (B, Q, ...).

    Which parts there are, and in which units, is the detector's; those of one kind understand each other's.

    Attributes:
        content: states before the first stage, (..., Q, D).
        position: embeddings that attention adds to the states, (..., Q, D), if the detector has them.
        reference: where a query looks first, (..., Q, k), if the detector does not find that by ``position``.
    """

    content: Tensor
    position: Tensor | None = None
    reference: Tensor | None = None

    def expanded(self, pictures: int, channels: int, *, position: int | None, reference: int | None) -> "Queries":
        """The same for each of ``pictures``, (B, Q, ...), without gradient.

        Args:
            pictures: B.
            channels: D of the borrower.
            position, reference: width that the borrower expects; None: it does not read that part.

        Raises:
            ValueError: for another D, another B, or a part that is missing or of another width.
        """
        return Queries(
            _expanded(self.content, "content", pictures, channels),
            None if position is None else _expanded(self.position, "position", pictures, position),
            None if reference is None else _expanded(self.reference, "reference", pictures, reference),
        )


def _expanded(part: Tensor | None, name: str, pictures: int, width: int) -> Tensor:
    of_each = part is not None and part.dim() == 3 and part.shape[0] == pictures
    if part is None or not (part.dim() == 2 or of_each) or part.shape[-1] != width:
        got = None if part is None else list(part.shape)
        raise ValueError(f"Queries: expected {name} of shape (Q, {width}) or ({pictures}, Q, {width}), got {got}")
    return part.detach().expand(pictures, -1, -1)


class Auxiliary(NamedTuple):
    """A prediction with a loss of its own.

    Attributes:
        prediction: all its stages.
        target_of_query: the target of each of its queries, (B, Q) int64, -1 for none; None: its loss matches them.
    """

    prediction: SetPrediction
    target_of_query: Tensor | None = None


class DetrOutput(NamedTuple):
    """What a detector says of B pictures.

    Attributes:
        prediction: of its own queries, with the maps of the feature term.
        queries: those queries, as it lends them.
        group: its prediction for the queries that it was lent, or None.
        auxiliary: what else has a loss: of RT-DETR one stage, the locations that its encoder selected as queries.
    """

    prediction: SetPrediction
    queries: Queries
    group: SetPrediction | None = None
    auxiliary: tuple[Auxiliary, ...] = ()


class Call(NamedTuple):
    """How a module was called, and what it returned."""

    keywords: dict[str, Any]
    result: Any


@contextmanager
def recorded(modules: Sequence[nn.Module]) -> Iterator[list[Call]]:
    """Calls of ``modules`` inside the block, in the order in which they return."""
    calls: list[Call] = []

    def hook(module: nn.Module, positional: tuple[Any, ...], keywords: dict[str, Any], result: Any) -> None:
        calls.append(Call(keywords, result))

    handles = [module.register_forward_hook(hook, with_kwargs=True) for module in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
