"""DETRDistillLoss in a distributed training."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.conformance import relative_error
from tests.losses import detr_ddp_worker

ROOT = Path(__file__).parents[2]


def test_two_processes_equal_one_with_the_joint_batch(tmp_path):
    """Of every class loss; one process has two images with boxes, the other a single image without."""
    result = tmp_path / "gradients.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command += ["-m", "tests.losses.detr_ddp_worker", str(result)]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr

    students = detr_ddp_worker.Students()
    want = detr_ddp_worker.gradients(students, students, [0, 2, 1])
    for name, value in torch.load(result).items():
        assert relative_error(value, want[name]) < 1e-9, name
