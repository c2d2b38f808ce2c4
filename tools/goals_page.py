"""docs/goals.md: each goal of tools/goals.py beside what the summaries say."""

from collections.abc import Sequence

from goals import (
    EAGER,
    FLOOR,
    GOALS,
    GPU_BANDWIDTH,
    GPU_COMPILED,
    GPU_EAGER,
    GPU_GOALS,
    GPU_TRANSFORMERS,
    LARGE,
    Goal,
    reason,
)
from summaries import Summary, digits, factor, milliseconds, peer_name, table

OPENING = """\
# Goals

What the kernels were to reach, set before they were written, and whether they do. This page is made by
`python tools/readme.py` from the reviewed summaries in `benchmarks/results`; [Benchmarks](benchmarks.md) says how they
are measured. A factor is the other's time over ours; "of the floor" is the floor's time over ours.
"""
EVERY = (
    f"At least {EAGER:g} times as fast as eager PyTorch, and either within {FLOOR:g} times of the floor or faster\n"
    "than `torch.compile`, one thread"
)


def misses(goal: Goal, summary: Summary, key: str) -> list[str]:
    """What of a goal a row does not reach."""
    row, found = summary.rows[key], []
    for peer, least in goal.faster.items():
        times = summary.times(key, peer)
        if times is None:
            found.append(f"{peer_name(peer)} did not run")
        elif times < least:
            found.append(f"{factor(times)} {peer_name(peer)}")
    if goal.floor and 1 / row["share_of_floor"] > goal.floor:
        found.append(f"{factor(1 / row['share_of_floor'])} the floor")
    memory = row.get("memory_mb", {})
    if goal.memory and memory["ours"] > goal.memory:
        found.append(f"{digits(memory['ours'])} MB")
    if goal.share and goal.share[0] in memory:
        peer, part, gradients = goal.share
        if memory["ours"] - gradients > part * (memory[peer] - gradients):
            found.append(f"{digits(memory['ours'])} MB, {peer_name(peer)} {digits(memory[peer])}")
    return found


def asked(goal: Goal) -> str:
    """The goal in words."""
    said = [f"{factor(times)} {peer_name(peer)}" for peer, times in goal.faster.items()]
    said += [f"{factor(goal.floor)} the floor at most"] if goal.floor else []
    return ", ".join(said)


def cpu_misses(summary: Summary, key: str) -> list[str]:
    """What of the goals of every operator on a CPU a row does not reach."""
    compiled, eager, share = (
        summary.times(key, "compiled"),
        summary.times(key, "eager"),
        summary.rows[key]["share_of_floor"],
    )
    found = []
    if share < 1 / FLOOR and (compiled or 0) < 1:
        found.append(f"{factor(1 / share)} the floor" + (f", {factor(compiled)} `torch.compile`" if compiled else ""))
    if eager is not None and eager < EAGER:
        found.append(f"{factor(eager)} eager PyTorch")
    return found


def verdict(key: str, found: Sequence[str]) -> str:
    """The last cell of a row."""
    if not found:
        return "met"
    return f"missed, {'; '.join(found)}: {reason(key) or 'NO REASON WRITTEN'}"


def numbers(summary: Summary, key: str) -> list[str]:
    """Ours, peers and floor of a row, as cells."""
    row = summary.rows[key]
    peers = [p for p in row["minimum_ms"] if p not in ("ours", "floor")]
    others = ", ".join(f"{peer_name(p)} {factor(summary.times(key, p))}" for p in peers)
    return [milliseconds(summary.ours(key)), others, milliseconds(row["floor_ms"]), f"{row['share_of_floor']:.0%}"]


def own_goals(summary: Summary) -> list[list[str]]:
    """A row for each row of each goal of ``GOALS``."""
    lines = []
    for goal in GOALS:
        for key in goal.rows:
            known = key in summary.rows
            cells = numbers(summary, key) if known else [""] * 4
            met = verdict(key, misses(goal, summary, key)) if known else "not measured"
            lines.append([f"{goal.label}: `{key}`", asked(goal), *cells, met])
    return lines


def common_goals(summary: Summary) -> list[list[str]]:
    """A row for each case that has an eager form."""
    keys = [key for key in summary.rows if summary.times(key, "eager") is not None and summary.rows[key]["scale"] == 1]
    return [[f"`{key}`", *numbers(summary, key), verdict(key, cpu_misses(summary, key))] for key in keys]


def gpu_goals(summary: Summary) -> list[list[str]]:
    """A row for each case on a GPU: bandwidth where it is large, else eager PyTorch and torch.compile."""
    lines = []
    for key, row in summary.rows.items():
        found = []
        if row["scale"] >= LARGE:
            share = row["bytes_moved"] / summary.ours(key) / 1e6 / max(summary.machine["copy_gb_s"].values())
            found = [f"{share:.0%} of the copy bandwidth"] if share < GPU_BANDWIDTH else []
        else:
            least = {"eager": GPU_EAGER, "compiled": GPU_COMPILED, "torch_linear_assignment": 2.0}
            least |= {"transformers": GPU_TRANSFORMERS} if key == "detr_step/detector" else {}
            for kind in ("minimum_ms", "wall_ms"):
                times = {p: row[kind][p] / row[kind]["ours"] for p in least if p in row.get(kind, {})}
                slow = [f"{factor(t)} {peer_name(p)}" for p, t in times.items() if t < least[p]]
                found += [f"{text} ({kind.removesuffix('_ms')})" for text in slow]
        lines.append([f"`{key}`", *numbers(summary, key), verdict(key, found)])
    return lines


def page(found: Sequence[Summary]) -> str:
    """docs/goals.md."""
    cpu, gpu = ([s for s in found if s.gpu == on_gpu] for on_gpu in (False, True))
    head = ["ours", "others' time over ours", "floor", "of the floor", ""]
    text = OPENING
    if not cpu:
        text += "\nNo summary is committed yet.\n"
    for summary in cpu:
        every, own = common_goals(summary), own_goals(summary)
        text += f"\n## {summary.machine['name']}\n\ntorch {summary.machine['torch']}, {summary.machine['date']}.\n"
        text += f"\n### Every operator\n\n{EVERY}: {met(every)}.\n\n{table(['case', *head], every)}\n"
        text += f"\n### Operators and steps that have their own\n\n{met(own)}.\n\n{table(['', 'goal', *head], own)}\n"
    text += "\n## On a GPU\n\n"
    if not gpu:
        text += table(["goal", ""], [[goal, "not measured yet: no GPU so far"] for goal in GPU_GOALS]) + "\n"
    for summary in gpu:
        lines = gpu_goals(summary)
        goals = "\n".join(f"- {goal}" for goal in GPU_GOALS)
        text += (
            f"{summary.machine['name']}, torch {summary.machine['torch']}, {summary.machine['date']}: {met(lines)}.\n\n"
        )
        text += f"{goals}\n\n{table(['case', *head], lines)}\n"
    return text


def met(lines: Sequence[Sequence[str]]) -> str:
    """How many of the rows reach their goals."""
    measured = [line for line in lines if line[-1] != "not measured"]
    return f"{sum(line[-1] == 'met' for line in measured)} of {len(measured)} rows are met"
