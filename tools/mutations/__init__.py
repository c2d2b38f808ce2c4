"""One-line mistakes in csrc/math, each with the test that must see it: what `make mutate` tries one by one."""

from mutations.assigners import ASSIGNERS
from mutations.bev import BEV
from mutations.boxes import BOXES
from mutations.lanes import LANES
from mutations.mutation import Mutation as Mutation
from mutations.queries import QUERIES
from mutations.rows import ROWS

MUTATIONS = [*LANES, *ROWS, *BOXES, *ASSIGNERS, *QUERIES, *BEV]

# Files of csrc/math without a formula: memory, and where the rows of a launch are.
WITHOUT = {"feature_map.h", "workspace.h", "zeros.h"}
