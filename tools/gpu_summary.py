"""What is worth committing of tools/gpu_check.py's file: on which machine each stage succeeded, and how much it ran.

Times are left to the summary of the benchmarks.
"""

import json
import re
from typing import Any

COUNTS = re.compile(r"(\d+) (passed|failed|skipped|errors?)\b")
CALLS = re.compile(r"(\d+) calls of (\d+) functions, (\d+) with other results")


def machine(stages: dict[str, Any]) -> dict[str, str]:
    """What the stages' first step printed of GPU, driver and versions; they must agree."""
    outputs = [step["output"] for stage in stages.values() for step in stage["steps"] if step["name"] == "gpu"]
    found = [json.loads(line) for line in re.findall(r"^machine (\{.*\})$", "\n".join(outputs), re.MULTILINE)]
    if not found or any(other != found[0] for other in found):
        raise ValueError(f"gpu_check: expected stages that ran on one GPU with the same versions, got {found}")
    return dict(found[0])


def tests(steps: list[dict[str, Any]]) -> dict[str, int]:
    """How many tests passed, failed (or could not run) and were skipped, from the last lines of pytest."""
    total = {"passed": 0, "failed": 0, "skipped": 0}
    for step in steps:
        last = step["output"].strip().rpartition("\n")[2]
        for number, what in COUNTS.findall(last):
            total["failed" if what.startswith("error") else what] += int(number)
    return total


def launches(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Which tool found nothing, and how many calls of how many compiled functions it watched."""
    tools = {step["name"]: step["code"] == 0 for step in steps if "check" in step["name"]}
    calls = [found for step in steps if step["name"] == "replay" for found in CALLS.findall(step["output"])]
    counted = {"calls": int(calls[0][0]), "functions": int(calls[0][1])} if calls else {}
    return {**counted, "tools": tools}


def summary(stages: dict[str, Any]) -> dict[str, Any]:
    """Machine, date, and of each stage whether it succeeded with the numbers above."""
    part: dict[str, Any] = {}
    for name, stage in stages.items():
        steps = [step for step in stage["steps"] if step["name"] != "gpu"]
        part[name] = {"ok": stage["ok"], "date": stage["finished"][:10]}
        if name == "test":
            part[name] |= tests(steps)
        elif name == "sanitize":
            part[name] |= launches(steps)
        else:
            part[name] |= {"steps": {step["name"]: step["code"] == 0 for step in steps}}
    dates = [stage["date"] for stage in part.values()]
    return {**machine(stages), "date": max(dates), "stages": part}
