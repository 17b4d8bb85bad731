"""What `pip install dcodp` alone does not bring, and the one line that says how to get it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dcodp.errors import InputError

# extra of pyproject.toml → what it brings, as imported
BROUGHT_BY = {
    "suite": (
        *("PIL", "cv2", "filelock", "hotcoco", "hydra", "hydra_plugins", "jinja2", "joblib", "lightning"),
        *("matplotlib", "omegaconf", "pandas", "pycocotools", "submitit", "typer", "ultralytics", "wandb", "yaml"),
    ),
    "export": ("onnx", "onnxruntime", "openvino"),
    "mobile": ("ncnn", "pnnx"),
    "ray": ("ray",),
}


@contextmanager
def told_if_missing() -> Iterator[None]:
    """An import that fails within because an extra is not installed becomes an InputError that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        for extra, modules in BROUGHT_BY.items():
            if missing in modules:
                raise InputError(f"{missing} is not installed here; use pip install dcodp[{extra}]") from error
        raise
