"""What pyproject.toml cannot say: conf/ and experiments/ stand at the top of the repository, and inside of dcodp in a
wheel. An editable install finds them where they stand (dcodp.resources)."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = ("conf", "experiments")


class BuildWithFolders(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for name in FOLDERS:
                self._copied(name)

    def _copied(self, name: str) -> None:
        """Only the YAML files that are there now: build/ may hold those of an older build."""
        target = Path(self.build_lib, "dcodp", name)
        shutil.rmtree(target, ignore_errors=True)
        for path in Path(name).rglob("*.yaml"):
            copy = target / path.relative_to(name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)


setup(cmdclass={"build_py": BuildWithFolders})
