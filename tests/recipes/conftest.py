import pytest

for package in ("lightning", "pycocotools"):
    pytest.importorskip(package, reason="needs pip install 'pydistill[train]'")
