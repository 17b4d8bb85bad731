"""LaTeX tables: nothing in a name is a command, everything that opens closes, and pdflatex takes them."""

import re
import shutil
import subprocess

import pytest
from made_up import ODD, ROOT, full_records

from dcodp.records import load_records
from dcodp.report.formats import LATEX, latex, latex_escape
from dcodp.report.layouts import TableLayout, load_layouts
from dcodp.report.query import measurements
from dcodp.report.tables import build_table, default_tables

OWN = r"\\(?:begin|end|[A-Za-z]+|.)"  # a command, or one escaped character


@pytest.fixture(scope="module")
def text() -> str:
    """Every table of the experiments and the default ones, narrow to very wide, from odd names too."""
    frame = measurements([*full_records(), *load_records(ROOT / "results" / "demo")])
    declared = [layout for layout in load_layouts(ROOT / "experiments") if isinstance(layout, TableLayout)]
    return latex([*default_tables(frame), *(build_table(layout, frame) for layout in declared)])


def faults(text: str) -> list[str]:
    """What would stop LaTeX or print something else than the text: unescaped characters, what opens and never closes,
    rows of another length than their heading."""
    found, stack = [], []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            stack.append(name)
        elif not stack or stack.pop() != name:
            found.append(f"\\end{{{name}}}")
    bare = re.sub(r"\{%$", "{", re.sub(OWN, " ", text), flags=re.MULTILINE)
    found += [f"open {name}" for name in stack] + [mark for mark in "%#_^~" if mark in re.sub(r"\$[^$\n]*\$", "", bare)]
    depth = [bare[:i].count("{") - bare[:i].count("}") for i in range(0, len(bare) + 1, 50)]
    found += ["braces"] if bare.count("{") != bare.count("}") or min(depth) < 0 else []
    found += ["dollars"] if any(line.count("$") % 2 for line in bare.splitlines()) else []
    found += [letter for letter in bare if ord(letter) > 127 and not letter.isalpha()]
    for body in re.findall(r"\\toprule\n(.*?)\\bottomrule", text, re.DOTALL):
        rows = [line for line in body.splitlines() if line != r"\midrule"]
        found += ["row"] if len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) > 1 else []
        found += [row for row in rows if not row.endswith(r" \\") or row.startswith(("[", "*"))]
    return found


def test_tables_have_no_faults(text):
    assert text.count(r"\begin{table}") > 10
    assert r"Größe\_100\% \& \#1 $-$ $<$b$>$\{x\}\textasciicircum{}2\textasciitilde{} \textbackslash{} \$5" in text
    assert faults(text) == []


@pytest.mark.parametrize(
    ("sound", "broken"),
    [
        (r"\%", "%"),
        (r"\_", "_"),
        (r"\#", "#"),
        (r"\&", "&"),
        (r"\$", "$"),
        (r"\{x", "{x"),
        (r"\end{tabular}", ""),
        (r"\end{minipage}", r"\end{table}"),
        ("$-$", "−"),
        (r"\textasciicircum{}", "^"),
        (r"yolov8n & ", "yolov8n "),
        ("{[}", "["),
    ],
)
def test_faults_are_seen(sound, broken):
    body = rf"yolov8n & {latex_escape(ODD)} & 1 \\" + "\n" + r"{[}a{]} & b & c \\"
    rows = "\n".join([r"\toprule", r"a & b & c \\", r"\midrule", body, r"\bottomrule"])
    whole = rf"\begin{{table}}\begin{{minipage}}\begin{{tabular}}{rows}\end{{tabular}}\end{{minipage}}\end{{table}}"
    whole = whole.replace(r"\toprule", "\n\\toprule").replace(r"\bottomrule", "\\bottomrule\n")
    assert faults(whole) == [] and sound in whole
    assert faults(whole.replace(sound, broken, 1)) != []


def test_escapes():
    assert latex_escape("a_b \\ 5 % ± ~^") == r"a\_b \textbackslash{} 5 \% $\pm$ \textasciitilde{}\textasciicircum{}"
    assert latex_escape("[x] *y* é ß Å") == r"{[}x{]} {*}y{*} é ß Å"
    assert latex_escape("a--b---c - d–e — f") == "a-{}-b-{}-{}-c - d--e --- f"
    assert latex_escape(" two\n lines\t") == "two lines"
    assert latex_escape("−1 … α|") == r"$-$1 \dots{} $\alpha$\textbar{}"


def test_the_papers_numbers_are_left_to_latex(text):
    assert r"\caption{VOC2007: dense, and fine-tuned" in text and not re.search(r"\\caption\{Table \d+\. ", text)
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(labels) == len(set(labels))


DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs}
\usepackage{graphicx}
\begin{document}
\input{tables}

%s
\end{document}
"""


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on the PATH")
def test_pdflatex_takes_every_table_and_every_escape(text, tmp_path):
    (tmp_path / "tables.tex").write_text(text, encoding="utf-8")
    (tmp_path / "all.tex").write_text(DOCUMENT % latex_escape(" ".join(LATEX)), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-no-shell-escape", "all.tex"]
    for _ in range(2):  # the second run sees the labels
        told = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    log = (tmp_path / "all.log").read_text(encoding="utf-8", errors="replace")
    assert told.returncode == 0, log[-3000:]
    assert re.findall(r"^!.*|Overfull.*|.*multiply defined.*|.*undefined.*", log, re.MULTILINE) == []
    assert (tmp_path / "all.pdf").read_bytes().startswith(b"%PDF")
