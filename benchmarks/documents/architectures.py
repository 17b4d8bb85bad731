"""What benchmarks/architectures.py measured, in Markdown and as CSV."""

import csv
import io
import math
import re
from collections import Counter
from typing import Any

HEADER = ("architecture", "px", "M parameters", "trace s", "groups", "channels", "removed at 0.3", "removed at 0.5",
          "error", "rounding", "swapped", "channels that stay, and why", "torch-pruning")  # fmt: skip


def document(measured: dict[str, Any]) -> str:
    what = measured["provenance"]
    versions = ", ".join(f"{k} {v}" for k, v in what["libraries"].items() if k.startswith(("torch", "ultra")))
    lines = ["# Architectures: pruned exactly, side by side with torch-pruning", ""]
    lines += [f"- {line}" for line in summary(measured)]
    lines += [
        "",
        f"`python benchmarks/architectures.py`, {what['threads']} thread of {what['hardware']}, {versions}. Ours: "
        "float64; “error” is the largest difference between the pruned net and the dense net whose removed channels "
        "are zero, relative to the largest output; “rounding” is what moving every parameter of that dense net by half "
        "of its last bit does, and an error may be 16 times as large; “swapped” is what exchanging two input channels "
        "of one layer would change. torch-pruning: ratio 0.5 with the settings of its own examples, which leave the "
        f"heads of detectors alone, limits {what['peer_limits']} for each net. Every frozen layer’s reason is in "
        "architectures.json.",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|" + "---|" * len(HEADER),
        *("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in _rows(measured)),
    ]
    return "\n".join(lines) + "\n"


def csv_text(measured: dict[str, Any]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([HEADER, *_rows(measured)])
    return stream.getvalue()


def _rows(measured: dict[str, Any]) -> list[tuple[str, ...]]:
    return [cells(name, row) for name, row in measured["architectures"].items()]


def number(value: Any) -> float:
    return math.inf if isinstance(value, str) else float(value)


def at(row: dict[str, Any], key: str) -> list[float]:
    """One value per ratio."""
    return [number(found[key]) for found in row["ours"]["ratios"].values()]


def cells(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    found, other = row["ours"], row["peer"]
    told = other["problem"] or f"{other['removed']:.1%} removed in {other['seconds']:.1f} s"
    if found["failure"]:
        return (name, str(row["size"]), *["–"] * 10, told)
    return (
        name,
        str(row["size"]),
        f"{found['parameters'] / 1e6:.1f}",
        f"{found['trace_seconds']:.2f}",
        str(found["groups"]),
        str(found["channels"]),
        *(f"{share:.1%}" for share in at(row, "parameters_removed")),
        f"{max(at(row, 'error')):.0e}",
        f"{max(at(row, 'rounding')):.0e}",
        "other shapes" if math.isinf(min(at(row, "swapped"))) else f"{min(at(row, 'swapped')):.0e}",
        reasons(found["frozen"]),
        told,
    )


def reasons(frozen: list[dict[str, Any]], shown: int = 2) -> str:
    """How many filters stay, with the most frequent reasons, without the places where they were found."""
    counts: Counter[str] = Counter()
    for layer in frozen:
        counts[re.sub(r" \([^()]*\)$", "", layer["reason"])] += layer["channels"]
    told = [f"{count}: {reason}" for reason, count in counts.most_common(shown)]
    return "; ".join(told) + ("; …" if len(counts) > shown else "")


def summary(measured: dict[str, Any]) -> list[str]:
    what, rows = measured["provenance"], measured["architectures"]
    good = [row for row in rows.values() if not row["ours"]["failure"]]
    detectors = [row for row in rows.values() if row["convolutional_detector"] and not row["ours"]["failure"]]
    asked = [row for row in rows.values() if row["peer"]["problem"] not in ("not asked", "not installed")]
    peer_good = [row for row in asked if row["peer"]["problem"] is None]
    failures = len(rows) - len(good)
    lines = [
        f"{len(rows)} architectures; ours: {failures} failures; torch-pruning: {len(peer_good)} pruned and running of "
        f"the {len(asked)} that it was asked for"
    ]
    if good:
        usual = what["allowed_error"]
        worst, least = max(max(at(r, "error")) for r in good), min(min(at(r, "swapped")) for r in good)
        below, above = sum(max(at(r, "error")) <= usual for r in good), max(good, key=lambda r: max(at(r, "error")))
        lines.append(f"error at most {usual:.0e} in {below} of {len(good)}, at most {worst:.1e} in all "
                     f"(where rounding alone does {max(at(above, 'rounding')):.1e})")  # fmt: skip
        lines.append(f"smallest effect of a swapped pair {least:.1e} (needed: {what['needed_effect']:.0e})")
    if detectors:
        least, ratio = min(at(r, "parameters_removed")[-1] for r in detectors), list(detectors[0]["ours"]["ratios"])[-1]
        lines.append(f"convolutional detectors: at least {least:.1%} of the parameters removed at {ratio}")
    return lines
