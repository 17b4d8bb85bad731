"""The ground that everything stands on: whole files, leases, digests, tensors on disk, strict loading.

Nothing else in the project writes files in place. `writing`, `leases` and `digests` need no torch, `tensors` and
`loading` do.
"""

from dcodp.files.digests import digest, file_digest
from dcodp.files.leases import Busy, leased
from dcodp.files.refused import is_full, refusal, unwritable
from dcodp.files.writing import read_json, replacing, replacing_folder, write_atomically

__all__ = [
    "Busy",
    "digest",
    "file_digest",
    "is_full",
    "leased",
    "read_json",
    "refusal",
    "replacing",
    "replacing_folder",
    "unwritable",
    "write_atomically",
]
