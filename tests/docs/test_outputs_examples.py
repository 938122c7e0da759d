"""The outputs that the examples show are those of today's formats: they are read, and give the reports beside them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from infini_eval.reports import needle_tests
from infini_eval.reports.judged import summarise
from infini_eval.tasks.aa_lcr.answers import read_generations

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = sorted((ROOT / "examples").glob("*/outputs_example"))
SCHEMA = json.loads((ROOT / "docs/summary.schema.json").read_text())


def test_every_example_of_a_document_shows_its_output() -> None:
    assert [folder.parent.name for folder in FOLDERS] == ["aa-lcr", "infinite-context-length", "llama4-scout"]


@pytest.mark.parametrize("name", ["aa-lcr", "infinite-context-length"])
def test_summaries_follow_the_schema(name: str) -> None:
    jsonschema.validate(json.loads((ROOT / "examples" / name / "outputs_example/summary.json").read_text()), SCHEMA)


def test_the_table_of_tests_is_that_of_its_files() -> None:
    folder = ROOT / "examples/llama4-scout/outputs_example"
    assert (folder / "tests.md").read_text() == needle_tests.render(needle_tests.needle_tests(folder)) + "\n"


def test_answers_give_the_metrics_that_the_report_shows() -> None:
    folder = ROOT / "examples/aa-lcr/outputs_example"
    found = summarise(read_generations(folder / "generations.json"), [])
    assert found.metrics == json.loads((folder / "summary.json").read_text())["metrics"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_no_path_of_a_machine_stands_in_them(folder: Path) -> None:
    texts = [path.read_text() for path in folder.iterdir() if path.suffix != ".png"]
    assert not [text for text in texts if "/home/" in text or "/root/" in text or "/tmp/" in text]
