import pytest

pytest.importorskip("lightning", reason="needs pip install 'pydistill[train]'")
