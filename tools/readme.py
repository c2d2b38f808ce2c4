"""Writes what was measured, and what ran where, into the README and the manual, from the reviewed summaries.

    python tools/readme.py [--check]

Between `<!-- measured:begin -->` and `<!-- measured:end -->` stand the tables of ``TABLES``, between the marks of `ran`
what `make gpu-check` found; docs/goals.md is whole. ``--check`` writes nothing. The exit status is 1 where a row of
``TABLES`` or of a goal is not in the summaries, where a missed goal has no reason (tools/goals.py), and of a check
where something differs.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any

from goals import GOALS
from goals_page import common_goals, met, own_goals, page
from summaries import ROOT, Summary, factor, gpu_checks, milliseconds, peer_name, summaries, table

BOTH, FORWARD = "forward and backward, one thread", "forward, one thread unless said"
Rows = Sequence[tuple[str, str]]  # key of a summary, label
TABLES: dict[str, dict[str, Rows]] = {
    "README.md": {
        BOTH: [
            (
                "attention_distillation_loss/features[same-0.6]",
                "`attention_distillation_loss`, (8, 128, 36, 100) from the same",
            ),
            (
                "attention_distillation_loss/features[upsampled-0.6]",
                "`attention_distillation_loss`, (8, 64, 72, 200) from (8, 128, 36, 100)",
            ),
            ("softmax_kl/rows", "`softmax_kl`, 106744 x 17, T = 10"),
            ("softmax_kl/few_weighted_rows", "`softmax_kl`, the same with weights on 2% of the rows"),
            ("softmax_kl/call_overhead", "`softmax_kl`, 64 x 17: the overhead of a call"),
            ("quality_focal_loss/classes[80]", "`quality_focal_loss`, (2, 22400, 80)"),
            ("keypoint_feature_loss/map[nchw-256]", "`keypoint_feature_loss`, (4, 256, 180, 180), 40 boxes each"),
            ("keypoint_relation_loss/map[nchw-512]", "`keypoint_relation_loss`, the same with 512 channels"),
            ("response_loss/heads", "`response_loss`, 10 and 66 channels of the same"),
            ("sad_step/step", "SAD: `LaneLoss` and `SADLoss`"),
            ("ld_step/step", "`LDLoss`, all terms, 2 images, 22400 anchors, 80 classes"),
            ("detr_step/detector", "`DETRDistillLoss` without a teacher, 6 stages, 8 images, 300 queries, 20 boxes"),
            ("detr_step/distilled", "`DETRDistillLoss` with a teacher, as released"),
            ("bev_step/step", "`UniDistillLoss`, all terms"),
        ],
        FORWARD: [
            ("assign_atss/assign_and_region", "`assign_atss` and region, 2 images, 22400 anchors, 20 boxes"),
            ("hungarian_match/images[300-20-deformable_detr]", "`hungarian_match`, 8 images, 300 queries, 20 targets"),
            (
                "hungarian_match/images[900-100-deformable_detr]",
                "`hungarian_match`, 8 images, 900 queries, 100 targets",
            ),
            ("gaussian_region/boxes", "`gaussian_region`, 4 samples, 180 x 180, 40 boxes each"),
            ("linear_sum_assignment/one[300x20]", "`linear_sum_assignment`, one of 300 x 20"),
            (
                "linear_sum_assignment/of_96_on_two_threads[300x20]@2",
                "`linear_sum_assignment`, 96 of 300 x 20, two threads",
            ),
        ],
    },
    "docs/dense.md": {
        BOTH: [
            ("ld_step/step", "the step"),
            ("quality_focal_loss/classes[80]", "quality focal loss, 80 classes"),
            ("quality_focal_loss/classes[10]", "the same, 10 classes"),
            ("sigmoid_focal_loss/classes", "sigmoid focal loss, 80 classes"),
            ("distribution_focal_loss/sides[1.0]", "distribution focal loss, all rows"),
            ("distribution_focal_loss/sides[0.01]", "the same, 1% of them"),
        ],
    },
    "docs/detr.md": {
        "one thread": [
            ("detr_step/detector", "the detector's own terms"),
            ("detr_step/distilled", "all terms but relation, as released"),
            ("hungarian_match/images[300-20-deformable_detr]", "matching alone, 300 queries, 20 boxes"),
            ("hungarian_match/images[300-20-detr]", "the same with DETR's softmax costs"),
            ("hungarian_match/images[900-100-deformable_detr]", "matching alone, 900 queries, 100 boxes"),
            ("hungarian_match/images[900-100-detr]", "the same with DETR's softmax costs"),
        ],
    },
    "docs/bev.md": {
        BOTH: [
            ("keypoint_feature_loss/map[nchw-256]", "`keypoint_feature_loss`, 256 channels"),
            ("keypoint_feature_loss/map[last-512]", "the same, 512 channels, channels last"),
            ("keypoint_relation_loss/map[nchw-512]", "`keypoint_relation_loss`, 512 channels"),
            ("keypoint_relation_loss/map[last-256]", "the same, 256 channels, channels last"),
            ("response_loss/heads", "`response_loss`, 10 and 66 channels"),
            ("gaussian_region/boxes", "`gaussian_region`, forward"),
            ("bev_step/step", "`UniDistillLoss`, all terms"),
        ],
    },
}
PLAIN = ("ours", "eager", "compiled", "floor")  # contenders with a column of their own; peers by name share one

NOT_HERE = "does not apply"
WHEEL = "docs/installation.md#one-wheel-every-torch"
RAN = [  # what, on a CPU, the stage of `make gpu-check` that does it on a GPU
    ("operators: conformance and golden vectors", "yes, levels v3 and v4", "test"),
    ("graph capture and replay, of operators and of whole steps", NOT_HERE, "test"),
    ("device code in the CUDA shim (ASan, UBSan)", "yes, but for bfloat16", None),
    ("compile with warnings as errors", "nvcc 13.0; in `.ci/run` for sm_90, to PTX", "build"),
    ("compute-sanitizer: memcheck, racecheck, initcheck, synccheck", NOT_HERE, "sanitize"),
    (
        "one wheel under torch 2.6.0, 2.13.0, 2.14.1",
        f"[2208 tests passed in each]({WHEEL}), before the operators of LD",
        "torch-versions",
    ),
    ("demo; tables of lanes, dense detection, DETR and bird's-eye view", "yes", "reproduce"),
]


def measured(name: str, found: Sequence[Summary]) -> str:
    """The tables of one page, one set a machine."""
    parts = []
    for summary in found:
        parts.append(about(summary, name))
        parts += [rows_table(summary, heading, rows) for heading, rows in TABLES[name].items()]
    if name == "README.md":
        parts.append(goal_count(found))
    else:
        parts.append("[Goals](goals.md) has every operator, and what was missed with its reason.")
    return "\n\n".join(parts)


def about(summary: Summary, name: str) -> str:
    """On what, and how to read it."""
    m = summary.machine
    clock = "GPU time between events" if summary.gpu else "minima"
    manual = "" if name.startswith("docs/") else "docs/"
    return (
        f"{m['name']}, torch {m['torch']}, Python {m['python']}, float32, {m['date']}. Contenders take turns in\n"
        f"one process; the times are {clock}. A factor is the other's time over ours; a floor is what the bytes cost\n"
        f'that have to move, and "of the floor" its time over ours: [how it is measured]({manual}benchmarks.md).'
    )


def rows_table(summary: Summary, heading: str, rows: Rows) -> str:
    """One table; a row that the summary lacks is left out; ``faults`` names it."""
    lines = []
    for key, label in rows:
        if key in summary.rows:
            times = summary.rows[key]["minimum_ms"]
            peers = [f"{peer_name(p)} {factor(summary.times(key, p))}" for p in times if p not in PLAIN]
            share = f"{summary.rows[key]['share_of_floor']:.0%}"
            ours, eager, compiled = summary.ours(key), summary.times(key, "eager"), summary.times(key, "compiled")
            lines.append([label, milliseconds(ours), factor(eager), factor(compiled), ", ".join(peers), share])
    return table([heading, "ours", "eager PyTorch", "`torch.compile`", "others", "of the floor"], lines)


def goal_count(found: Sequence[Summary]) -> str:
    """One sentence on the goals, for the README."""
    cpus = [s for s in found if not s.gpu]
    said = "; ".join(f"on {s.machine['name']}, {met(common_goals(s) + own_goals(s))}" for s in cpus)
    return (
        f"Of the goals set before, {said}. [docs/goals.md](docs/goals.md) has\n"
        "each, and why some are missed; all times are in [benchmarks/results](benchmarks/results)."
    )


def ran(checks: Sequence[dict[str, Any]]) -> str:
    """The table of what ran where."""
    names = [f"{check['gpu']} ({check['date']}, driver {check['driver']})" for check in checks] or ["GPU"]
    lines = []
    for what, cpu, stage in RAN:
        cells = [stage_cell(check, stage) for check in checks or [{"stages": {}}]]
        lines.append([what, cpu, *cells])
    return table(["", "CPU (x86-64, two cores)", *names], lines)


def stage_cell(check: dict[str, Any], stage: str | None) -> str:
    """What one GPU says of one stage."""
    if stage is None:
        return NOT_HERE
    if stage not in check["stages"]:
        return "not run yet"
    said = check["stages"][stage]
    counts = [f"{said[count]} {count}" for count in ("passed", "failed", "skipped", "calls") if count in said]
    return ", ".join(["yes" if said["ok"] else "FAILED", *counts])


def replaced(text: str, block: str, content: str) -> str:
    """``text`` with ``content`` between the marks of ``block``."""
    marks = re.compile(rf"(<!-- {block}:begin[^>]*-->\n).*?(\n<!-- {block}:end -->)", re.DOTALL)
    if len(marks.findall(text)) != 1:
        raise SystemExit(f"readme: expected one block {block}, got {len(marks.findall(text))}")
    return marks.sub(lambda m: m[1] + content + m[2], text)


def pages(found: Sequence[Summary], checks: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Every page that is written here, whole. Without a summary the tables of times stay as they are."""
    texts = {name: (ROOT / name).read_text() for name in TABLES}
    if found:
        texts = {name: replaced(text, "measured", measured(name, found)) for name, text in texts.items()}
    texts["README.md"] = replaced(texts["README.md"], "ran", ran(checks))
    return {**texts, "docs/goals.md": page(found)}


def faults(found: Sequence[Summary], texts: dict[str, str]) -> list[str]:
    """What keeps the tables from being whole."""
    wanted = {key for tables in TABLES.values() for rows in tables.values() for key, _ in rows}
    wanted |= {key for goal in GOALS for key in goal.rows}
    cpus = [s for s in found if not s.gpu]
    absent = sorted(wanted - {key for s in cpus for key in s.rows}) if cpus else []
    unexplained = [line for line in texts["docs/goals.md"].splitlines() if "NO REASON WRITTEN" in line]
    return [f"no summary of a CPU has {key}" for key in absent] + [f"tools/goals.py: {line}" for line in unexplained]


def main(arguments: Sequence[str]) -> int:
    """Writes or checks; the exit status is 0 where all is whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    found = summaries()
    texts = pages(found, gpu_checks())
    wrong = faults(found, texts)
    for name, text in texts.items():
        file = ROOT / name
        if options.check and (not file.exists() or file.read_text() != text):
            wrong.append(f"{name} is not what the summaries say: python tools/readme.py")
        elif not options.check:
            file.write_text(text)
    print("\n".join(wrong) or f"{len(texts)} pages, nothing wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
