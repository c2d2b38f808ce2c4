"""How a valid call of each op looks: what tools/fuzz.py spoils and tools/record_launches.py records."""

from fuzz_cases import bev, dense, detr, lanes
from fuzz_cases.values import Cases

VALID: Cases = {**lanes.VALID, **dense.VALID, **detr.VALID, **bev.VALID}
