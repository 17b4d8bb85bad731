"""The processor that times were measured on."""

from __future__ import annotations

import json
import platform
from pathlib import Path

VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}  # the widest first: they decide what kernels are used


def cpu_name(about: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the system tells it, and its vector unit: rented machines often share one name."""
    lines = about.read_text().splitlines() if about.exists() else []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    flags = (said.get("flags") or said.get("Features") or "").split()
    name = said.get("model name") or platform.processor() or platform.machine()
    vectors = next((vectors for flag, vectors in VECTORS.items() if flag in flags), None)
    return f"{name} ({vectors})" if vectors else name


def is_of_another(table: Path) -> bool:
    """Whether a file of layer times was measured on another processor than this one; what names none was not."""
    try:
        named = json.loads(table.read_text(encoding="utf-8"))["machine"]["processor"]
    except (OSError, ValueError, KeyError, TypeError):  # whoever needs the times says what is wrong with them
        return False
    return named not in ("", cpu_name())
