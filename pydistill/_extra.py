"""The optional packages of ``pip install 'pydistill[train]'``, asked for in one place."""

from importlib.util import find_spec

TRAIN = ("cv2", "jinja2", "lightning", "matplotlib", "rich", "scipy", "tensorboard")


def require_train(who: str) -> None:
    """Raises ImportError, with the command to run, where ``who`` would miss a package of the extra ``train``."""
    missing = [name for name in TRAIN if find_spec(name) is None]
    if missing:
        raise ImportError(f"{who}: expected {', '.join(missing)}, not installed here; pip install 'pydistill[train]'")
