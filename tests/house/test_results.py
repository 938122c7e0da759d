"""README's result table: each row has its command, on the page and in the script, and the commands can be typed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/results.md").read_text()


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results_of_readme", ROOT / "scripts/results.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


RESULTS = load()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_the_rows_of_the_script() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| context |")) + 2
    shown = [tuple(cells(line)[:2]) for line in lines[start : start + len(RESULTS.ROWS) + 1] if line.startswith("|")]
    assert shown == [(row.context, row.lies) for row in RESULTS.ROWS.values()]


@pytest.mark.parametrize("name", RESULTS.ROWS)
def test_each_row_has_its_command(name: str) -> None:
    row = RESULTS.ROWS[name]
    assert f"| {row.context}, {row.lies} | `python scripts/results.py {name}` |" in PAGE
    for command, *flags in RESULTS.commands(name):
        module = importlib.import_module(f"infini_eval.cli.{command}")
        args = made_parser(module).parse_args(flags)
        assert not hasattr(args, "eval_dataset_path") or args.eval_dataset_path.startswith(
            ("examples/", "data/results")
        )


def made_parser(module: ModuleType):
    from infini_eval.cli.flags import make_parser

    parser = make_parser()
    module.add_arguments(parser)
    return parser


def test_shipped_data_are_there() -> None:
    folders = [row.data for row in RESULTS.ROWS.values() if not row.data.startswith("--")]
    assert folders and all((ROOT / folder).is_dir() for folder in folders)


def test_lines_are_read_from_the_summaries(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(RESULTS, "ROOT", tmp_path)
    stats = {"average_accuracy": 99.04, "average_ci_low": 96.6, "average_ci_high": 99.74}
    cross = {"cross_segment_avg": 0.0, "cross_segment_ci": [0.0, 2.08], "cross_segment_count": 180}
    for memory in ("on", "ablate"):
        folder = tmp_path / RESULTS.run_folder("1k-border", memory)
        folder.mkdir(parents=True)
        summary = {"summary_stats": stats, "total_samples": 210, "segment_analysis": cross}
        (folder / "summary.json").write_text(json.dumps(summary))
    expected = "| 1k | on a segment border | **99.0 %** [96.6, 99.7], n = 210 | 0 % [0, 2.1], n = 180 |"
    assert RESULTS.line("1k-border") == expected
