"""Nets in other programs' files: written, held against the net, timed; and what layers and nets cost there.

`export` writes; `open_exported` and `eager` run; `compare` and `side_by_side` look at both; `export_checked` is all of
that. `latency_cost` is what `select(…, target="latency:0.5")` goes by, and `met_latency` prunes until it is measured;
`met_on` is both for one machine.
"""

from dcodp.export.checking import export_checked
from dcodp.export.equality import Equality, compare, require_equal
from dcodp.export.formats import FORMATS, Exported, SomeFailed, export
from dcodp.export.latency import Latency, side_by_side
from dcodp.export.meeting import Lost, Met, measuring, met_latency, met_on
from dcodp.export.net_costs import LatencyCost, latency_cost
from dcodp.export.runtimes import Machine, Runner, eager, open_exported

__all__ = [
    "FORMATS",
    "Equality",
    "Exported",
    "Latency",
    "LatencyCost",
    "Lost",
    "Machine",
    "Met",
    "Runner",
    "SomeFailed",
    "compare",
    "eager",
    "export",
    "export_checked",
    "latency_cost",
    "measuring",
    "met_latency",
    "met_on",
    "open_exported",
    "require_equal",
    "side_by_side",
]
