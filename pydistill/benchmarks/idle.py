"""Whether the machine is ours alone: CPU time and GPUs that other processes use."""

import os
import subprocess
import time
from pathlib import Path

PROC = Path("/proc")
TICK = 1 / os.sysconf("SC_CLK_TCK")


class Watch:
    """CPU time that others use from now on."""

    def __init__(self) -> None:
        self.begin, self.before = time.monotonic(), _others()

    def cores(self) -> float:
        """How many cores others, on this machine or its host, have kept busy on average.

        A clock tick for each core, and one, are taken off: the kernel counts whole ticks.
        """
        used = _others() - self.before - TICK * ((os.cpu_count() or 1) + 1)
        return max(0.0, used) / max(time.monotonic() - self.begin, TICK)


def _others() -> float:
    """Seconds of CPU that are not this process's or its descendants', since some moment in the past."""
    kinds = [int(x) for x in (PROC / "stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _, _, interrupts, more_interrupts, stolen = kinds[:8]
    return (user + nice + system + interrupts + more_interrupts + stolen) * TICK - _own()


def _own() -> float:
    """Seconds of CPU of this process, of its living descendants and of those that they waited for."""
    used, children = {}, dict[int, list[int]]()
    for file in PROC.glob("[0-9]*/stat"):
        try:
            numbers = file.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        process, parent = int(file.parent.name), int(numbers[1])
        used[process] = sum(int(x) for x in numbers[11:15]) * TICK
        children.setdefault(parent, []).append(process)
    found, total = [os.getpid()], 0.0
    while found:
        process = found.pop()
        total += used.get(process, 0.0)
        found += children.get(process, [])
    return total


def gpu_processes() -> int:
    """How many processes compute on the GPUs, this one included once it does; 0 where nvidia-smi is missing."""
    query = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return len(answer.split())
