"""Tables as Markdown, CSV and LaTeX (booktabs). CSV holds raw values, the other two what a reader wants to see."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence

from dcodp.report.layouts import Column
from dcodp.report.query import Measurement
from dcodp.report.tables import Table

SCALES: dict[str, tuple[float, int]] = {  # format → (factor, decimals)
    "ap": (100, 1),
    "share": (100, 1),
    "millions": (1e-6, 3),
    "giga": (1e-9, 2),
    "ms": (1, 1),
    "count": (1, 0),
}
GREEK = ("alpha", "beta", "gamma", "delta", "varepsilon", "theta", "lambda", "mu", "pi", "sigma", "tau", "omega")
NUMBERED = re.compile(r"^Table \d+\. ")  # the paper's number, where LaTeX sets its own
STATES = {"missing": "missing", "none": "—", "mixed": "mixed"}


def cell_text(cell: Measurement, column: Column) -> str:
    """ "34.8", "34.8 ± 0.3" over seeds, "missing", "—" or "mixed"."""
    if cell.mean is None:
        return STATES[cell.state]
    factor, decimals = SCALES[column.format]
    text = f"{cell.mean * factor:.{decimals}f}"
    counted = column.format in ("millions", "giga", "share", "count")
    if cell.spread is None or (counted and cell.spread == 0):  # "± 0.000" would say nothing about a count
        return text
    return f"{text} ± {cell.spread * factor:.{decimals}f}"


def texts(table: Table) -> list[list[str]]:
    """The rows as shown, labels first."""
    return [
        [*row.labels, *(cell_text(cell, column) for cell, column in zip(row.cells, table.columns, strict=True))]
        for row in table.rows
    ]


def markdown(tables: Sequence[Table]) -> str:
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    head = [*table.headers, *(column.label for column in table.columns)]
    figures = range(len(table.headers), len(head))
    rows = markdown_rows(([_plain(text) for text in row] for row in (head, *texts(table))), right=figures)
    notes = (f"- {_plain(note)}" for note in table.footnotes)
    return "\n".join([f"### {_plain(table.title)}", "", rows, "", *notes, ""])


def markdown_rows(rows: Iterable[Sequence[str]], right: range) -> str:
    """The first row is the head; `right`: numbers of the columns that are set to the right."""
    head, *others = rows
    rule = ["---:" if i in right else "---" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *others))


def _plain(text: str) -> str:
    """Nothing in it is markup, nor the edge of a cell."""
    return re.sub(r"[\\|<*`]", r"\\\g<0>", text)


def csv_text(tables: Sequence[Table]) -> str:
    """One header for all: table, labels, then value, spread and number of seeds per column, in the records' own names
    and units (AP and shares from 0 to 1, plain counts, milliseconds). Where there is no value the field is empty and
    n is 0; `missing` names the columns that were not measured."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    if tables:
        names = [csv_name(column) for column in tables[0].columns]
        values = [f"{name}{end}" for name in names for end in ("", "_spread", "_n")]
        writer.writerow(["table", *tables[0].headers, *values, "missing", "run_ids"])
    for table in tables:
        for row in table.rows:
            values = [v for cell in row.cells for v in (cell.mean, cell.spread, cell.n)]
            lacking = [csv_name(c) for cell, c in zip(row.cells, table.columns, strict=True) if cell.state == "missing"]
            writer.writerow([table.title, *row.labels, *values, " ".join(lacking), " ".join(row.run_ids)])
    return stream.getvalue()


def csv_name(column: Column) -> str:
    """ "map50", or "pruned/map50" for a column that shows one stage whatever the row."""
    return f"{column.stage}/{column.value}" if column.stage else column.value


LATEX = {
    "\\": r"\textbackslash{}",
    **{mark: "\\" + mark for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{"[": "{[}", "]": "{]}", "*": "{*}"},  # at the start of a row they would be read as an option of the \\ before it
    "|": r"\textbar{}",
    **{"±": r"$\pm$", "×": r"$\times$", "−": "$-$", "·": r"$\cdot$", "≈": r"$\approx$", "≠": r"$\neq$"},
    **{"≤": r"$\leq$", "≥": r"$\geq$", "<": r"$<$", ">": r"$>$", "→": r"$\rightarrow$", "∞": r"$\infty$"},
    **{"—": "---", "–": "--", "…": r"\dots{}"},
    **dict(zip("αβγδεθλμπστω", map(r"$\{}$".format, GREEK), strict=True)),
    **{"µ": r"$\mu$", "Δ": r"$\Delta$", "Σ": r"$\Sigma$"},
}
WIDE, VERY_WIDE = 72, 16  # characters beyond which headings stand upright, columns beyond which all stands sideways


def latex_escape(text: str) -> str:
    """Special characters as LaTeX prints them as they are. Letters stay, as UTF-8 (those of other scripts than Latin
    and Greek need LuaLaTeX and a font that has them)."""
    pieces = re.split("(?<=-)(?=-)", " ".join(text.split()))  # two hyphens are no dash
    return "{}".join("".join(LATEX.get(letter, letter) for letter in piece) for piece in pieces)


def latex(tables: Sequence[Table]) -> str:
    r"""Needs \usepackage{booktabs}, and \usepackage{graphicx} for wide tables."""
    return "\n".join(_latex(table) for table in tables)


def _latex(table: Table) -> str:
    count = len(table.headers) + len(table.columns)
    caption = latex_escape(NUMBERED.sub("", table.title))
    inside = [
        r"\setlength{\belowcaptionskip}{1ex}",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{label_name(table.name)}}}",
        *(_shrunk(_tabular(table, upright=True)) if _characters(table) > WIDE else _tabular(table)),
        *_under(" ".join(map(latex_escape, table.footnotes))),
    ]
    if count > VERY_WIDE:
        inside = [r"\rotatebox{90}{\begin{minipage}{\textheight}", r"\centering", *inside, r"\end{minipage}}"]
    place = "[p]" if count > VERY_WIDE else ""
    return "\n".join([rf"\begin{{table}}{place}", r"\centering", *inside, r"\end{table}", ""])


def _tabular(table: Table, upright: bool = False) -> list[str]:
    """The lines of the table itself; `upright` turns the headings of its figures by a quarter."""
    heads = [latex_escape(column.label) for column in table.columns]
    heads = [rf"\rotatebox{{90}}{{{head}}}" for head in heads] if upright else heads
    return [
        rf"\begin{{tabular}}{{{'l' * len(table.headers)}{'r' * len(table.columns)}}}",
        r"\toprule",
        " & ".join([*map(latex_escape, table.headers), *heads]) + r" \\",
        r"\midrule",
        *(" & ".join(map(latex_escape, row)) + r" \\" for row in texts(table)),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _characters(table: Table) -> int:
    """Of one line, with headings that lie and the space of about two letters between columns."""
    labels = zip(table.headers, *(row.labels for row in table.rows), strict=True)
    widths = [*(max(map(len, column)) for column in labels), *(len(column.label) for column in table.columns)]
    return sum(widths) + 2 * len(widths)


def _shrunk(lines: list[str]) -> list[str]:
    """To the width of the text where they are wider."""
    fit = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    return [r"\setlength{\tabcolsep}{3pt}", fit, *lines[:-1], lines[-1] + "}"]


def _under(notes: str) -> list[str]:
    return [rf"\par\smallskip\begin{{minipage}}{{\linewidth}}\footnotesize {notes}\end{{minipage}}"] if notes else []


def label_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


RENDERERS: dict[str, Callable[[Sequence[Table]], str]] = {"md": markdown, "csv": csv_text, "tex": latex}
