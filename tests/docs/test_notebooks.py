"""The notebooks run, and what they show is what running them gives: python tests/docs/test_notebooks.py --write saves it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
LIMIT_S = 500
# what differs from one run or machine to the next
VARIES = re.compile(r"infini_eval-\w+|[\d.]+ [kMG]B (?=planned|measured)")


def executed(path: Path) -> Any:
    """A notebook with the output of a run in its own folder; log lines (stderr) are no part of it."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    kept = dict(notebook["metadata"])
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=LIMIT_S, kernel_name="python3", resources=resources, record_timing=False).execute()
    notebook["metadata"] = nbformat.from_dict(kept)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def shown(notebook: Any) -> list[str]:
    """What each code cell shows as text."""
    cells = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    texts = ["\n".join(output.get("text") or output["data"]["text/plain"] for output in outputs) for outputs in cells]
    return [VARIES.sub("…", text) for text in texts]


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_saved_output_is_that_of_a_run(path: Path) -> None:
    import nbformat

    assert shown(executed(path)) == shown(nbformat.read(path, as_version=4))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_site_has_it(path: Path) -> None:
    assert (ROOT / "docs" / "notebooks" / path.name).resolve() == path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_no_path_of_a_machine_is_saved(path: Path) -> None:
    assert not re.search(r"/(home|root|work|Users)/", path.read_text())


def main() -> None:
    import nbformat

    if "--write" not in sys.argv:
        raise SystemExit(__doc__)
    for path in NOTEBOOKS:
        nbformat.write(executed(path), path)


if __name__ == "__main__":
    main()
