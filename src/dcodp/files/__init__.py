"""The ground that everything stands on: whole files, digests, tensors on disk, strict loading.

Nothing else in the project writes files in place. `writing` and `digests` need no torch; `tensors` and `loading` do.
"""

from dcodp.files.digests import digest, file_digest
from dcodp.files.writing import read_json, replacing, replacing_folder, unwritable, write_atomically

__all__ = ["digest", "file_digest", "read_json", "replacing", "replacing_folder", "unwritable", "write_atomically"]
