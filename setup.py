"""For tools that still call setup.py, and for the one thing that pyproject.toml cannot say: wheels hold the demo checkpoint."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

DEMO = Path(__file__).parent / "checkpoints" / "infini-demo"


class BuildWithDemo(build_py):
    """Copies checkpoints/infini-demo into the package that is built; a clone keeps it where it is, once."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode and (DEMO / "latest.txt").is_file():
            place = Path(self.build_lib) / "infini_eval" / "demo" / DEMO.name
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(DEMO, place)


setup(cmdclass={"build_py": BuildWithDemo})
