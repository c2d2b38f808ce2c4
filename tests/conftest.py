import os

import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores: threads that wait for each other spin
    torch.set_num_threads(1)
