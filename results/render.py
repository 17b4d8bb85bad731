"""Whatever is rendered from the records, the measurements under results/ and the code, and committed: `make results`.

    python results/render.py              writes it: results/STUDY/tables and figures, the tables in the README files
                                          and docs/, what benchmarks/documents says of results/BENCHMARK.json
    python results/render.py --check      names what is stale (figures aside); exit status 1 if anything is

Nothing is computed, and a second time nothing changes. On a page a table stands between <!-- its name --> and
<!-- end -->; each has one place, on whichever page.
"""

import json
import re
import runpy
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dcodp.errors import InputError
from dcodp.files import write_atomically
from dcodp.records import load_records
from dcodp.report import figures
from dcodp.report.formats import RENDERERS, markdown_rows
from dcodp.report.labels import label
from dcodp.report.layouts import TableLayout, default_figures, load_layouts
from dcodp.report.query import measurements
from dcodp.report.tables import Table, build_table, default_tables

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
sys.path.append(str(ROOT / "benchmarks"))  # documents share parts
MEASURED = "results"  # the tables of everything that a study measured; other names are those of experiments/
STUDIES = {
    "demo": (MEASURED,),
    "shapes": (MEASURED, "shapes_detectors"),
    "coco": (MEASURED, "coco_before_finetuning"),
    "recovery_shapes": (MEASURED,),
    "teacher_bccd": (MEASURED,),
    "teacher_voc": (MEASURED,),
    "ablation_shapes": ("ablation_shapes", "aggregation_shapes"),
    "ablation_coco": ("ablation_coco",),
    "untrained": (MEASURED,),
    "bccd": (MEASURED,),
    "bccd_recovery": (MEASURED,),
    "bccd_allocation": (MEASURED,),
    "voc_recovery": (MEASURED,),
    "voc_resplit": (MEASURED,),
}
DRAWN = ("demo",)  # studies of which the default figures are kept
TABLES = {  # mark → (study, table)
    "demo table": ("demo", MEASURED),
    "shapes table": ("shapes", "shapes_detectors"),
    "coco table": ("coco", "coco_before_finetuning"),
    "untrained table": ("untrained", MEASURED),
    "bccd table": ("bccd", MEASURED),
    "ablation_shapes": ("ablation_shapes", "ablation_shapes"),
    "ablation_coco": ("ablation_coco", "ablation_coco"),
    "aggregation_shapes": ("ablation_shapes", "aggregation_shapes"),
}
WITH_NOTES = ("demo table",)  # elsewhere the text says what the notes say


def study_tables(study: str) -> dict[str, list[Table]]:
    """name → its tables, of one study."""
    frame = measurements(load_records(RESULTS / study))
    layouts = {layout.name: layout for layout in load_layouts(ROOT / "experiments")}
    tables = {}
    for name in STUDIES[study]:
        layout = layouts.get(name)
        tables[name] = [build_table(layout, frame)] if isinstance(layout, TableLayout) else default_tables(frame)
    return tables


def documents() -> dict[Path, str]:
    """Every rendered text with the file that is to hold it."""
    tables = {study: study_tables(study) for study in STUDIES}
    found = {
        RESULTS / study / "tables" / f"{name}.{ending}": render(tables[study][name])
        for study, names in STUDIES.items()
        for name in names
        for ending, render in RENDERERS.items()
    }
    texts = {path: path.read_text(encoding="utf-8") for path in pages()}
    return found | benchmark_documents() | placed(texts, blocks(tables))


def blocks(tables: Mapping[str, Mapping[str, Sequence[Table]]]) -> dict[str, str]:
    """mark → what stands there: the studies' tables, and what docs/made makes of measurements and of the code."""
    found = {mark: block(tables[study][name], mark in WITH_NOTES) for mark, (study, name) in TABLES.items()}
    found["studies"] = markdown_rows(studies(), right=range(1, 2))
    for path in sorted((ROOT / "docs" / "made").glob("*.py")):
        found |= runpy.run_path(str(path))["blocks"](ROOT)
    return found


def pages() -> list[Path]:
    """The files that hold what is rendered among what is written."""
    return [ROOT / "README.md", RESULTS / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def marks(text: str) -> list[str]:
    return [mark for mark in re.findall(r"<!-- (.*?) -->", text) if mark != "end"]


def placed(texts: Mapping[Path, str], blocks: Mapping[str, str]) -> dict[Path, str]:
    """The pages with every block in its place. Raises InputError for a block or a mark that has not exactly one."""
    wanted = Counter(mark for text in texts.values() for mark in marks(text))
    wrong = [mark for mark in {**blocks, **wanted} if wanted[mark] != 1 or mark not in blocks]
    if wrong:
        told = ", ".join(f"{mark} ({wanted[mark]} times{'' if mark in blocks else ', unknown'})" for mark in wrong)
        raise InputError(f"each block has one place on one page; these have not: {told}")
    return {path: filled(text, {mark: blocks[mark] for mark in marks(text)}) for path, text in texts.items()}


def block(tables: Sequence[Table], notes: bool) -> str:
    """The rows in Markdown without the title, with the notes below them if asked."""
    parts = RENDERERS["md"](tables).split("\n\n")
    return "\n\n".join(parts[1:3] if notes else parts[1:2]).strip()


def filled(text: str, blocks: Mapping[str, str]) -> str:
    """The text with every block between its markers. Raises InputError where there are none."""
    for name, content in blocks.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not mark or not end:
            raise InputError(f"there is no place for the table {name}; write <!-- {name} --> and <!-- end --> there")
        text = f"{before}{mark}{content}\n{end}{after}"
    return text


# --- measurements of benchmarks ---


def benchmark_documents() -> dict[Path, str]:
    """results/BENCHMARK.md, and its .csv where there is one, of every BENCHMARK.json."""
    found = {}
    for path in sorted((ROOT / "benchmarks" / "documents").glob("*.py")):
        says, data = runpy.run_path(str(path)), measured(f"{path.stem}.json")
        found[RESULTS / f"{path.stem}.md"] = says["document"](data)
        if "csv_text" in says:
            found[RESULTS / f"{path.stem}.csv"] = says["csv_text"](data)
    return found


def measured(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


# --- studies ---


def studies() -> Iterator[list[str]]:
    """The rows of results/README.md: what each study holds."""
    yield ["folder", "records", "detectors", "tested on", "seeds"]
    for study in STUDIES:
        rows = measurements(load_records(RESULTS / study)).to_dict("records")
        found = (
            {label("model", row["model"]) for row in rows},
            {f"{label('dataset', row['dataset'])}, {row['images']} images" for row in rows},
            {str(row["seed"]) for row in rows},
        )
        yield [f"`{study}`", str(len({row["run_id"] for row in rows})), *(", ".join(sorted(v)) for v in found)]


def draw_figures() -> None:
    for study in DRAWN:
        frame = measurements(load_records(RESULTS / study))
        for layout in (layout for dataset in sorted(set(frame["dataset"])) for layout in default_figures(dataset)):
            figure = figures.draw(layout, frame)
            if figure is not None:
                _, pdf = figures.save(figure, RESULTS / study / "figures", layout.name)
                pdf.unlink()  # the PNG is what is shown


def stale() -> list[Path]:
    """Files that do not hold what they should."""
    return [path for path, text in documents().items() if not path.is_file() or path.read_text("utf-8") != text]


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        old = stale()
        sys.exit(f"stale: {', '.join(map(str, old))}; run make results" if old else None)
    for path, text in documents().items():
        if not path.is_file() or path.read_text("utf-8") != text:
            write_atomically(path, text)
            print(path.relative_to(ROOT))
    draw_figures()


if __name__ == "__main__":
    main()
