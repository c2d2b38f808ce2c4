"""The table of a summary, as Markdown and as plain text."""

from collections.abc import Sequence
from typing import Any

HEAD = ("case", "ours, ms", "peers, ms", "floor, ms", "of floor", "GB/s", "peak, MB")
LEGEND = """\
Milliseconds are the minimum of interleaved rounds; in brackets the peer's time over ours. "of floor" is the floor's
time over ours, GB/s the bytes that must move over our time, "peak" what one call allocates, its results included: ours,
then the peers. `@2` behind a case means two threads."""


def cells(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """One tuple a row, as ``HEAD`` names them."""
    table: list[tuple[str, ...]] = []
    for name, row in summary["rows"].items():
        times, memory, ours = row["minimum_ms"], row["memory_mb"], row["minimum_ms"]["ours"]
        peers = [f"{peer} {t:.3g} ({t / ours:.2f}x)" for peer, t in times.items() if peer not in ("ours", "floor")]
        wall = f" (wall {row['wall_ms']['ours']:.3g})" if "wall_ms" in row else ""
        table.append(
            (
                name,
                f"{ours:.3g}{wall}",
                ", ".join(peers),
                f"{row['floor_ms']:.3g}",
                f"{100 * row['share_of_floor']:.0f}%",
                f"{row['bytes_moved'] / ours / 1e6:.3g}",
                ", ".join(f"{peak:.3g}" for peer, peak in memory.items() if peer != "floor"),
            )
        )
    return table


def validity(machine: dict[str, Any], shown: int = 3) -> str:
    """One line: idle, or not to be quoted and why."""
    if machine["valid"]:
        return "The machine was idle."
    reasons = machine["reasons"]
    more = f"; and {len(reasons) - shown} more" if len(reasons) > shown else ""
    return f"NOT IDLE, DO NOT QUOTE: {'; '.join(reasons[:shown])}{more}."


def facts(machine: dict[str, Any]) -> str:
    """What was measured on, and what it can do."""
    rates = [
        f"{n} thread{'s' * (n != '1')}: copies {machine['copy_gb_s'][n]:.3g} GB/s, "
        f"float32 torch.mm {machine['operations_gflop_s'][n]:.3g} Gop/s"
        for n in machine["copy_gb_s"]
    ]
    return (
        f"{machine['date']}, torch {machine['torch']}, Python {machine['python']}. {'; '.join(rates)}; "
        f"smallest call {machine['latency_us']:.3g} us. Load {machine['load_before']:.2f} before, "
        f"{machine['load_after']:.2f} after; others used at most {machine['others_cpu']:.2g} cores."
    )


def markdown(summary: dict[str, Any]) -> str:
    """A page."""
    rows = [HEAD, ("---",) * len(HEAD), *cells(summary)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    machine = summary["machine"]
    return f"# {machine['name']}\n\n{facts(machine)} {validity(machine)}\n\n{LEGEND}\n\n{table}\n"


def plain(summary: dict[str, Any]) -> str:
    """A table for a terminal."""
    machine = summary["machine"]
    return f"{aligned([HEAD, *cells(summary)])}\n\n{machine['name']}. {facts(machine)}\n{validity(machine)}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
