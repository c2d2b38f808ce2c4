"""Prints the JSON of a benchmark run as a Markdown table: minimum times side by side and their ratios to ours.

python -m pydistill.benchmarks.summary build/benchmarks.json > benchmarks/results/<machine>.md
"""

import json
import sys
from pathlib import Path
from typing import Any

QUIET = 0.2  # load average above which a run does not count


def rows(run: dict[str, Any]) -> list[list[str]]:
    """Cells of each benchmark."""
    table = []
    for b in run["benchmarks"]:
        info = b["extra_info"]
        ours = info["minimum_ms"]["ours"]
        peers = {k: v for k, v in info["minimum_ms"].items() if k != "ours"}
        moved = info["bytes_moved"] / 1e6
        peaks = ", ".join(f"{k} {v:.3g}" for k, v in info.get("memory_mb", {}).items())
        table.append(
            [
                b["name"].removeprefix("test_"),
                str(info["threads"]),
                f"{ours:.3g}",
                ", ".join(f"{k} {v:.3g} ({v / ours:.2f}x)" for k, v in peers.items()),
                f"{moved:.3g} MB, {moved / ours:.3g} GB/s"
                + (f"; allocated at the peak, in MB: {peaks}" if peaks else ""),
            ]
        )
    return table


def main(path: str) -> None:
    """Prints the table of one file."""
    run = json.loads(Path(path).read_text())
    cpu = run["machine_info"]["cpu"]
    load = run["machine"]["load_before"]
    print(
        f"# {run['machine']['device'] if run['machine']['device'] != 'cpu' else cpu['brand_raw']}, {cpu['count']} cores\n"
    )
    print(f"{run['datetime'][:10]}, torch {run['machine']['torch']}, Python {run['machine_info']['python_version']}.")
    print(f"Load before: {load}" + ("" if load < QUIET else " (not idle: do not quote)") + ".")
    print("`make bench`, then `python -m pydistill.benchmarks.summary build/benchmarks.json`.")
    print("Milliseconds, minimum of interleaved rounds; in brackets the peer's time over ours.\n")
    print("| benchmark | threads | ours | peers | must move |\n|---|---|---|---|---|")
    for row in rows(run):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main(sys.argv[1])
