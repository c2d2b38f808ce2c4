"""The optional packages of ``pip install 'pydistill[train]'`` and ``[bench]``, asked for in one place."""

from importlib.util import find_spec

TRAIN = ("cv2", "jinja2", "lightning", "matplotlib", "rich", "scipy", "tensorboard")
BENCH = ("matplotlib", "pytest", "pytest_benchmark", "scipy")


def require_train(who: str) -> None:
    """Raises ImportError, with the command to run, where ``who`` would miss a package of the extra ``train``."""
    _require(TRAIN, "train", who)


def require_bench(who: str) -> None:
    """The same for the extra ``bench``."""
    _require(BENCH, "bench", who)


def _require(packages: tuple[str, ...], extra: str, who: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ImportError(f"{who}: expected {', '.join(missing)}, not installed here; pip install 'pydistill[{extra}]'")
