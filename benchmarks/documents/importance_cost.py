"""What benchmarks/importance.py measured, in Markdown."""

from typing import Any

Row = dict[str, Any]  # of one model
ABOUT = """Generated images. The fastest run counts, from the first image to the last score. Memory is the process's
peak (on a GPU: what was allocated). The second table puts DCODP beside CHIP's published way, on random
maps of the same sizes as the convolutions': its definition takes C + 1 singular value decompositions of every C × hw
map; its code also copies the batch of 128 images for every channel of every image, and runs the images through the net
once for every layer."""
HEADER = ("criterion", "s", "of them after the images", "× forward", "peak MiB")


def document(rows: dict[str, Row]) -> str:
    tables = "\n\n".join("\n".join(lines_of(name, row)) for name, row in rows.items())
    return f"# What scoring costs\n\n{ABOUT}\n\n{tables}\n"


def lines_of(name: str, row: Row) -> list[str]:
    """One model in Markdown."""
    plain, images, cells = row["forward"], row["images"], []
    for criterion, run in {"forward passes alone": plain, **row["criteria"]}.items():
        memory = "unknown" if run["mebibytes"] is None else f"{run['mebibytes']:.0f}"
        after = "" if run is plain else f"{run['after_images']:.2f}"
        cells.append((criterion, f"{run['seconds']:.2f}", after, f"{run['seconds'] / plain['seconds']:.2f}", memory))
    weights = f"weights {row['weights']}" if row["weights"] else "untrained"
    lines = [
        f"## {name}",
        "",
        f"{images} images of {row['size']} px, {row['batch']} in a batch, {row['groups']} coupling groups, {weights}; "
        f"{row['hardware']}, {row['threads']} thread{'s' if row['threads'] > 1 else ''}. `{row['command']}`",
        "",
    ]
    lines += [f"| {' | '.join(line)} |" for line in (HEADER, ["---", *["---:"] * 4], *cells)]
    return [*lines, "", *comparison(row)] if "dcodp" in row["criteria"] else lines


def comparison(row: Row) -> list[str]:
    """DCODP's scoring beside CHIP's published way, seconds per image, like with like."""
    theirs, images = row["published"], row["images"]
    forward, own = row["forward"]["seconds"] / images, row["criteria"]["dcodp"]["seconds"] / images
    bare, run = theirs["decompositions"], theirs["decompositions"] + theirs["copies"]
    scored = max(own - forward, 1e-9)
    cells = [
        ("scoring alone; published: its decompositions alone", bare, scored),
        ("the same, with one forward pass each", bare + forward, own),
        ("scoring alone; published: with the copies its code makes", run, scored),
        ("all that its code does: a forward pass per layer as well", run + theirs["layers"] * forward, own),
    ]
    check = theirs["check"]
    return [
        "| seconds per image | CHIP as published | dcodp | ratio |",
        "| --- | ---: | ---: | ---: |",
        *(f"| {what} | {a:.2f} | {b:.3f} | {a / b:.0f} |" for what, a, b in cells),
        "",
        f"CHIP's figures are extrapolated from measured parts ({theirs['layers']} layers). A layer of "
        f"{'×'.join(map(str, check['shape']))} computed in full took {check['found']:.3f} s, foreseen were "
        f"{check['foreseen']:.3f} s.",
    ]
