"""The append-only file: one line a sample, valid after every failure."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
from datetime import date

import pytest

from infini_eval.errors import RunFolderError
from infini_eval.records import NeedlePosition, Response, Sample, SampleRecord, Score
from infini_eval.results.writer import SampleWriter, replica_name


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_record_is_one_line_at_once(tmp_path):
    sample = Sample(
        "1", "long prompt", "42", 50.0, 1024, columns={"note": "a\nb", "ratio": math.nan, "day": date(2025, 8, 12)}
    )
    response = Response("42", [4, 2], 1024, "stop", 0.5)
    record = SampleRecord(
        sample, response, {"exact_digits": Score(1.0, "42")}, "exact_digits", NeedlePosition(1, 2), "…"
    )
    with SampleWriter(tmp_path, replica_name(3)) as writer:
        writer.write(record)
        written = lines(tmp_path / "samples" / "replica-00003.jsonl")
        assert written == [json.loads(json.dumps(written[0]))]
        assert writer.written == 1
    assert written[0]["note"] == "a\nb"
    assert written[0]["ratio"] is None
    assert written[0]["day"] == "2025-08-12"
    assert "prompt" not in written[0]
    assert written[0]["sample_key"] == sample.key


def test_it_appends_and_heals_its_own_torn_line(tmp_path):
    path = tmp_path / "samples" / "r.jsonl"
    with SampleWriter(tmp_path, "r") as writer:
        writer.write({"sample_key": "a"})
    with path.open("a") as file:
        file.write('{"sample_key": "to')
    with SampleWriter(tmp_path, "r") as writer:
        writer.write({"sample_key": "b"})
    assert [row["sample_key"] for row in lines(path)] == ["a", "b"]


def test_disk_full_in_the_middle_of_a_line_leaves_whole_lines(tmp_path, monkeypatch):
    real_write = os.write
    with SampleWriter(tmp_path, "r") as writer:
        writer.write({"sample_key": "a"})

        def nearly_full(descriptor, data):
            if nearly_full.called:
                raise OSError(errno.ENOSPC, "No space left on device")
            nearly_full.called = True
            return real_write(descriptor, data[:5])

        nearly_full.called = False
        monkeypatch.setattr(os, "write", nearly_full)
        with pytest.raises(RunFolderError, match="No space left on device"):
            writer.write({"sample_key": "b"})
        monkeypatch.undo()
        writer.write({"sample_key": "c"})
    assert [row["sample_key"] for row in lines(writer.path)] == ["a", "c"]


def test_a_real_limit_on_file_size_is_reported(tmp_path):
    """The same through the kernel: RLIMIT_FSIZE takes a part of a line, then refuses."""
    script = """
import sys
from infini_eval.errors import RunFolderError
from infini_eval.results.writer import SampleWriter
with SampleWriter(sys.argv[1], "r") as writer:
    try:
        for number in range(1000):
            writer.write({"sample_key": str(number), "filler": "x" * 50})
    except RunFolderError as error:
        print(error)
"""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, preexec_fn=limit)
    assert "File too large" in done.stdout, done.stderr
    path = tmp_path / "samples" / "r.jsonl"
    assert [row["sample_key"] for row in lines(path)] == [str(number) for number in range(len(lines(path)))]
    assert len(lines(path)) > 5


def test_an_unwritable_place_is_an_error_before_any_sample(tmp_path):
    (tmp_path / "samples").write_text("a file")
    with pytest.raises(RunFolderError, match="samples"):
        SampleWriter(tmp_path, "r")


def test_a_killed_process_loses_at_most_its_last_line(tmp_path):
    script = """
import os, signal, sys
from infini_eval.results.writer import SampleWriter
writer = SampleWriter(sys.argv[1], "r")
for number in range(20):
    writer.write({"sample_key": str(number)})
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert len(lines(tmp_path / "samples" / "r.jsonl")) == 20
