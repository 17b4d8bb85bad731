"""One self-describing record per run, and what keeps it trustworthy. JSON only; nothing here needs torch.

results/runs/<run_id>/record.json     what was run, on what, and what came out
                      metrics.jsonl   one line per epoch
                      running.json    only while a process works on the run: which; .lease beside it is its heartbeat
                      progress.json   how far it is
results/jobs/<name>/record.json       how the computation of what runs share went, where a sweep made it a job
results/records.json                  the records of a study, kept in one file in place of runs/ (studies.py)
results/sweeps/<name>.json            the cells that a sweep was asked for
"""

from dcodp.records.folder import RunFolder, no_runs, run_folder, shared_folder
from dcodp.records.metrics import append_metrics, read_metrics
from dcodp.records.provenance import collect_provenance, timed
from dcodp.records.record import (
    METRICS,
    STAGES,
    STATUSES,
    Record,
    is_done,
    keeping,
    one_line,
    plain,
    read_record,
    record_of,
    recording,
    stages_from,
    write_record,
)
from dcodp.records.running import claim, is_alive, now, read_progress, read_running, tell_progress
from dcodp.records.studies import folders, load_jobs, load_records, observe, read_study, write_metrics, write_study
from dcodp.records.sweeps import Sweep, SweepCell, read_sweeps, write_sweep

__all__ = [
    "METRICS",
    "STAGES",
    "STATUSES",
    "Record",
    "RunFolder",
    "Sweep",
    "SweepCell",
    "append_metrics",
    "claim",
    "collect_provenance",
    "folders",
    "is_alive",
    "is_done",
    "keeping",
    "load_jobs",
    "load_records",
    "no_runs",
    "now",
    "observe",
    "one_line",
    "plain",
    "read_metrics",
    "read_progress",
    "read_record",
    "read_running",
    "read_study",
    "read_sweeps",
    "record_of",
    "recording",
    "run_folder",
    "shared_folder",
    "stages_from",
    "tell_progress",
    "timed",
    "write_metrics",
    "write_record",
    "write_study",
    "write_sweep",
]
