"""`infini-eval analyze` and the guide's script: output, files, exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infini_eval.cli.main import main
from infini_eval.errors import RunFolderError
from infini_eval.testing.fake_runs import FakeRun, write_fake_run
from support.limits import PROCESS_S

SCRIPT = Path(__file__).resolve().parents[2] / "examples/infinite-context-length/scripts/analyze_passkey_results.py"
RUN = FakeRun(depths=(0, 50, 100), per_cell=4)


def test_report_of_one_run(tmp_path, capsys):
    assert main(["analyze", str(write_fake_run(tmp_path / "passkey_1k", RUN))]) == 0
    out = capsys.readouterr().out
    assert out.startswith("=" * 70 + "\nPASSKEY RETRIEVAL ANALYSIS - 0.7M INFINI-ATTENTION MODEL\n" + "=" * 70)
    assert f"Detailed summary saved to: {tmp_path / 'passkey_1k' / 'summary.json'}" in out
    assert (tmp_path / "passkey_1k" / "report.txt").exists()


def test_json_only_is_pure_json(tmp_path, capsys):
    assert main(["analyze", str(write_fake_run(tmp_path, RUN)), "--json-only"]) == 0
    assert json.loads(capsys.readouterr().out)["total_samples"] == 12


def test_several_runs_are_found_below_a_folder(tmp_path, capsys):
    for name in ("b_10", "b_9"):
        write_fake_run(tmp_path / name, RUN)
    assert main(["analyze", str(tmp_path), "--json_only"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [Path(run["folder"]).name for run in runs] == ["b_9", "b_10"]
    assert (tmp_path / "b_10" / "summary.json").exists()
    assert not (tmp_path / "summary.json").exists()
    assert main(["analyze", str(tmp_path), "--quiet"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_half_written_run_among_others_is_skipped_and_said(tmp_path, capsys):
    write_fake_run(tmp_path / "a", RUN)
    write_fake_run(tmp_path / "b", RUN, keep=0)
    assert main(["analyze", str(tmp_path), "--json-only"]) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["runs"]) == 1
    assert "skipped" in captured.err
    assert "0 of 12 planned" in captured.err
    assert main(["analyze", str(tmp_path / "a"), str(tmp_path / "b"), "--quiet"]) == 2


@pytest.mark.parametrize("content", [None, "empty", "pickle"])
def test_nothing_to_report_is_status_2_with_a_next_step(tmp_path, capsys, content):
    folder = tmp_path / "results"
    if content:
        folder.mkdir()
    if content == "pickle":
        (folder / "x.pkl").write_bytes(b"")
    assert main(["analyze", str(folder)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "next:" in captured.err


def test_the_guide_s_script_runs_from_anywhere_and_in_ascii_where_needed(tmp_path):
    write_fake_run(tmp_path / "run", RUN)
    command = [sys.executable, str(SCRIPT), "run", "--quiet"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(SCRIPT.parents[3] / "src")},
        timeout=PROCESS_S,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode("ascii").startswith("1024 tokens: ")


def test_the_guide_s_loop_over_several_runs(tmp_path):
    for name in ("passkey_1k", "passkey_16k"):
        write_fake_run(tmp_path / "results" / name, RUN)
    loop = f'for dir in ./results/passkey_*; do echo "=== $dir ==="; {sys.executable} {SCRIPT} "$dir" --quiet; done'
    env = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[3] / "src"), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        ["bash", "-ec", loop], cwd=tmp_path, capture_output=True, text=True, env=env, timeout=PROCESS_S
    )
    lines = done.stdout.splitlines()
    assert lines[::2] == ["=== ./results/passkey_16k ===", "=== ./results/passkey_1k ==="]
    assert all("(n=12)" in line for line in lines[1::2])


def test_html_writes_page_and_plots(tmp_path, capsys):
    assert main(["analyze", str(write_fake_run(tmp_path, RUN)), "--html"]) == 0
    assert f"Page saved to: {tmp_path / 'report.html'}" in capsys.readouterr().out
    assert (tmp_path / "plots" / "accuracy_by_depth.png").exists()


def test_a_folder_that_cannot_be_written_still_gives_its_report(tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise RunFolderError("cannot write here")

    monkeypatch.setattr("infini_eval.reports.summary.write_atomically", refuse)
    assert main(["analyze", str(write_fake_run(tmp_path, RUN))]) == 0
    captured = capsys.readouterr()
    assert "SUMMARY STATISTICS" in captured.out
    assert "warning: cannot write here" in captured.err


def lengths(root: Path, *tokens: int, **changes) -> Path:
    """One run a length below `root`, as the full benchmark leaves them."""
    for length in tokens:
        write_fake_run(root / str(length), FakeRun(lengths=(length,), depths=(0, 50, 100), per_cell=4, **changes))
    return root


def test_runs_of_several_lengths_are_one_report_printed_once(tmp_path, capsys):
    assert main(["analyze", str(lengths(tmp_path, 512, 1024, 4096))]) == 0
    out = capsys.readouterr().out
    assert out.count("ANALYSIS - ") == 1
    assert out.count("ALL CONTEXT LENGTHS") == 1
    assert "EFFECTIVE CONTEXT LENGTH" in out and "Depth  50%" not in out
    assert f"Detailed summary saved to: {tmp_path / 'summary.json'}" in out
    whole = json.loads((tmp_path / "summary.json").read_text())
    assert [block["context_length"] for block in whole["by_context_length"]] == [512, 1024, 4096]
    assert (tmp_path / "512" / "summary.json").exists()
    assert "Depth  50%" in (tmp_path / "report.txt").read_text()
    assert main(["analyze", str(tmp_path)]) == 0, "its own reports are no runs"


def test_one_page_for_the_joined_run(tmp_path, capsys):
    assert main(["analyze", str(lengths(tmp_path, 512, 1024)), "--html"]) == 0
    assert [path.parent for path in tmp_path.rglob("report.html")] == [tmp_path]
    assert f"Page saved to: {tmp_path / 'report.html'}" in capsys.readouterr().out


def test_quiet_joined_is_a_line_a_length(tmp_path, capsys):
    assert main(["analyze", str(lengths(tmp_path, 512, 1024)), "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["512", "1024"]
    assert lines[2].startswith("effective context length of this task (passkey): ")


def test_runs_that_differ_otherwise_say_what(tmp_path, capsys):
    lengths(tmp_path, 512)
    lengths(tmp_path, 1024, model={"memory": "ablate"})
    assert main(["analyze", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("ANALYSIS - ") == 2
    assert (
        "Not joined into one table: the runs differ in more than length and depth\n  memory: on (512); ablate (1024)"
        in out
    )


def test_folders_given_by_name_are_joined_into_output(tmp_path, capsys):
    runs = [str(lengths(tmp_path, 512, 1024) / name) for name in ("512", "1024")]
    assert main(["analyze", *runs, "--output", str(tmp_path / "both")]) == 0
    assert json.loads((tmp_path / "both" / "summary.json").read_text())["total_samples"] == 24
    assert "ALL CONTEXT LENGTHS" in capsys.readouterr().out


def test_output_without_anything_to_join_is_said(tmp_path, capsys):
    assert main(["analyze", str(write_fake_run(tmp_path / "a", RUN)), "--output", str(tmp_path / "b")]) == 2
    assert "--output" in capsys.readouterr().err


def test_json_of_many_runs_is_a_short_list(tmp_path, capsys):
    assert main(["analyze", str(lengths(tmp_path, 512, 1024)), "--json-only"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out)
    assert [len(run["by_context_length"]) for run in found["runs"]] == [1, 1]
    assert [line["context_length"] for line in found["joined"]["by_context_length"]] == [512, 1024]
    assert found["joined"]["summary"] == str(tmp_path / "summary.json")
    assert len(out.splitlines()) < 120
