"""What is wrong with the files of a data set: raised at once, or left out with one warning."""

import warnings
from typing import Literal

Malformed = Literal["raise", "skip"]


class Faults:
    """Raises faults, or counts them for one warning.

    Args:
        reader: name of the reader, first word of the messages.
        malformed: ``raise``, or ``skip`` for what is to be left out.
    """

    def __init__(self, reader: str, malformed: Malformed):
        if malformed not in ("raise", "skip"):
            raise ValueError(f"{reader}: expected malformed to be raise or skip, got {malformed!r}")
        self.reader, self.malformed = reader, malformed
        self.count, self.first = 0, ""

    def add(self, message: str, kind: type[Exception] = ValueError) -> None:
        """Raises, or notes that the caller leaves something out.

        Args:
            message: what was expected and what was found, with file and line.
            kind: exception to raise.
        """
        if self.malformed == "raise":
            raise kind(f"{self.reader}: {message}")
        self.count, self.first = self.count + 1, self.first or message

    def warn(self) -> None:
        """Warns if something was left out: how much, and the first of it."""
        if self.count:
            warnings.warn(f"{self.reader}: left out {self.count}; the first: {self.first}", stacklevel=3)
