"""How many random cases a test draws."""

from pydistill import _C

CASES = 50 if _C.cpu.__name__.endswith("shim") else 1000  # under sanitizers each takes many times as long
