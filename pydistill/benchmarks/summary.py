"""Benchmark runs in their reviewed form: times beside floors, what the machine can do, and whether it was idle.

    python -m pydistill.benchmarks.summary build/benchmarks.json --name "AMD EPYC, 2 cores" -o results/epyc.json
    python -m pydistill.benchmarks.summary compare old.json new.json

The first reads one or several files of pytest-benchmark, of the same machine, and writes ``epyc.json`` with ``epyc.md``
beside it. The second prints the ratios of peers to ours that differ by more than a tenth between two summaries: for a
person to look at, since times of a shared machine fail no build.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydistill.benchmarks.table import markdown

QUIET_CORES = 0.05  # of each core, that others may use
MOVED = 1.1  # ratio of ratios that is worth a look
SAME = ("device", "torch", "cores")  # of runs that make one summary

Json = dict[str, Any]


def summarise(runs: Sequence[Json], name: str = "") -> Json:
    """One summary of the runs of one machine; of a case that several have, the last counts."""
    runs = [run for run in runs if run["benchmarks"]]
    if not runs:
        raise ValueError("summary: expected runs with a case, got none")
    machine = merged_machine(runs, name)
    rows = {key(b): row(b, machine) for run in runs for b in run["benchmarks"]}
    reasons = disturbances(runs, rows)
    others = [run["machine"]["others_before"] for run in runs] + [r["others_cpu"] for r in rows.values()]
    machine |= {"others_cpu": short(max(others)), "valid": not reasons, "reasons": reasons}
    return {"machine": machine, "rows": rows}


def merged_machine(runs: Sequence[Json], name: str) -> Json:
    """What the machine is and can do at best, over all runs."""
    found = [run["machine"] for run in runs]
    for what in SAME:
        if len({str(machine[what]) for machine in found}) > 1:
            raise ValueError(f"summary: expected runs with one {what}, got {[machine[what] for machine in found]}")
    probes: dict[str, list[dict[str, float]]] = {}
    for machine in found:
        for threads, probe in machine["probes"].items():
            probes.setdefault(threads, []).append(probe)
    return {
        "name": name or device_name(runs[0]),
        "device": found[0]["device"],
        "cores": found[0]["cores"],
        "date": max(run["datetime"] for run in runs)[:10],
        "torch": found[0]["torch"],
        "python": runs[0]["machine_info"]["python_version"],
        "load_before": short(max(machine["load_before"] for machine in found)),
        "load_after": short(max(machine["load_after"] for machine in found)),
        "copy_gb_s": {n: short(max(p["copy_gb_s"] for p in some)) for n, some in probes.items()},
        "operations_gflop_s": {n: short(max(p["operations_gflop_s"] for p in some)) for n, some in probes.items()},
        "latency_us": short(min(p["latency_us"] for some in probes.values() for p in some)),
    }


def device_name(run: Json) -> str:
    """The GPU's or the CPU's own name."""
    machine = run["machine"]
    cpu = run["machine_info"]["cpu"].get("brand_raw", run["machine_info"]["machine"])
    return f"{cpu}, {machine['cores']} cores" if machine["device"] == "cpu" else str(machine["device"])


def key(benchmark: Json) -> str:
    """``softmax_kl/softmax_kl_half[torch.float16]``, and ``@2`` behind it with two threads."""
    suite = Path(benchmark["fullname"].split("::")[0]).stem.removeprefix("test_")
    threads = benchmark["extra_info"]["threads"]
    return f"{suite}/{benchmark['name'].removeprefix('test_')}" + (f"@{threads}" if threads > 1 else "")


def row(benchmark: Json, machine: Json) -> Json:
    """The row of one case."""
    info = benchmark["extra_info"]
    suite, case = key(benchmark).split("/", 1)
    on_gpu = machine["device"] != "cpu"
    floor = floor_ms(info, machine)
    return {
        "op": suite,
        "case": case,
        "scale": info["scale"],
        "threads": info["threads"],
        "minimum_ms": shortened(info["minimum_ms"]),
        "median_ms": shortened(info["median_ms"]),
        **({"wall_ms": shortened(info["wall_ms"])} if on_gpu else {}),
        "bytes_moved": info["bytes_moved"],
        "operations": info["operations"],
        "floor_ms": short(floor),
        "share_of_floor": short(floor / info["minimum_ms"]["ours"]),
        "memory_mb": shortened(info["memory_mb"]),
        "others_cpu": short(info["others_cpu"]),
    }


def floor_ms(info: Json, machine: Json) -> float:
    """The case's own floor, else what copying its bytes, computing its operations or a call of torch takes at least."""
    if "floor" in info["minimum_ms"]:
        return float(info["minimum_ms"]["floor"])
    threads = str(info["threads"])
    copying = info["bytes_moved"] / machine["copy_gb_s"][threads] / 1e6
    computing = (info["operations"] or 0) / machine["operations_gflop_s"][threads] / 1e6
    return float(max(copying, computing, machine["latency_us"] / 1e3))


def disturbances(runs: Sequence[Json], rows: dict[str, Json]) -> list[str]:
    """Why these runs should not be quoted: who else was at work, and when."""
    reasons = []
    for machine in (run["machine"] for run in runs):
        if machine["others_before"] > QUIET_CORES * machine["cores"]:
            reasons.append(f"others used {machine['others_before']:.2g} cores before the first case")
        if machine["others_on_gpu"]:
            reasons.append(f"{machine['others_on_gpu']} other processes were on the GPU")
    cores = runs[0]["machine"]["cores"]
    disturbed = {name: r["others_cpu"] for name, r in rows.items() if r["others_cpu"] > QUIET_CORES * cores}
    return reasons + [f"others used {used:.2g} cores during {name}" for name, used in disturbed.items()]


def short(number: float) -> float:
    """Four digits of it."""
    return float(f"{number:.4g}")


def shortened(numbers: dict[str, float]) -> dict[str, float]:
    """Four digits of each."""
    return {name: short(number) for name, number in numbers.items()}


def compare(old: Json, new: Json) -> list[str]:
    """Lines on what differs between two summaries: validity, cases that one lacks, and ratios to ours that moved."""
    lines = [f"the {name} run does not count" for name, s in (("old", old), ("new", new)) if not s["machine"]["valid"]]
    before, after = old["rows"], new["rows"]
    lines += [f"{name}: only in the old" for name in before if name not in after]
    lines += [f"{name}: only in the new" for name in after if name not in before]
    for name in (name for name in before if name in after):
        a, b = before[name]["minimum_ms"], after[name]["minimum_ms"]
        for peer in (peer for peer in a if peer != "ours" and peer in b):
            was, now = a[peer] / a["ours"], b[peer] / b["ours"]
            if not 1 / MOVED <= now / was <= MOVED:
                lines.append(f"{name}: {peer} over ours was {was:.2f}, is {now:.2f}")
    return lines


def main(arguments: Sequence[str]) -> None:
    """Writes a summary, or prints how two differ."""
    if arguments[:1] == ["compare"]:
        parser = argparse.ArgumentParser(prog="summary compare", description="ratios that differ by more than a tenth")
        parser.add_argument("old", type=Path)
        parser.add_argument("new", type=Path)
        files = parser.parse_args(arguments[1:])
        print("\n".join(compare(*(json.loads(file.read_text()) for file in (files.old, files.new)))) or "no difference")
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="JSON files of pytest-benchmark")
    parser.add_argument("--name", default="", help="of the machine; by default what it says itself")
    parser.add_argument("-o", "--output", type=Path, help="JSON file; the table is written beside it as .md")
    options = parser.parse_args(arguments)
    summary = summarise([json.loads(file.read_text()) for file in options.runs], options.name)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(summary, indent=1) + "\n")
        options.output.with_suffix(".md").write_text(markdown(summary))
    else:
        print(markdown(summary), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
