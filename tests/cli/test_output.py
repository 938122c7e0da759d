"""What every command does at its end: output that is lost, mistakes of ours, foreign text on a terminal, impossible flags."""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from infini_eval.cli import output
from infini_eval.cli.main import guarded, main
from support.limits import PROCESS_S


def failing(error: Exception):
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


def ended(argv: list[str], capsys) -> tuple[int, str]:
    """Exit status and message of a command that ends with an error."""
    try:
        status = main(argv)
    except SystemExit as left:
        status = left.code
    said = capsys.readouterr()
    assert said.out == ""
    return status, said.err


def test_a_mistake_of_ours_is_one_message_and_a_saved_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("SOME_API_KEY", "planted-key-1234")
    assert guarded(failing(RuntimeError("broke at planted-key-1234\nmore")), argparse.Namespace()) == 1
    said = capsys.readouterr().err
    (saved,) = tmp_path.iterdir()
    assert said.startswith("error: RuntimeError: broke at [key]\n") and said.count("\n") == 2
    assert "please report" in said and str(saved) in said
    assert "Traceback" in saved.read_text() and "planted-key" not in saved.read_text()


def test_a_mistake_of_ours_in_a_thread_is_told_the_same_way(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run(args: argparse.Namespace) -> int:
        thread = threading.Thread(target=failing(RuntimeError("broke")), args=(args,))
        thread.start()
        thread.join()
        return 0

    assert guarded(run, argparse.Namespace()) == 0
    said = capsys.readouterr().err
    assert said.startswith("error: RuntimeError: broke\n") and "Traceback" not in said
    assert len(list(tmp_path.iterdir())) == 1


def test_without_a_place_for_the_traceback_it_is_shown(monkeypatch, capsys):
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    assert guarded(failing(KeyError("x")), argparse.Namespace()) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "please report" in said


def test_a_path_that_the_system_refuses_is_the_users_to_mend(capsys):
    assert guarded(failing(OSError(36, "File name too long", "x" * 500)), argparse.Namespace()) == 2
    said = capsys.readouterr().err
    assert "File name too long" in said and len(said) < 300


@pytest.mark.parametrize(
    ("sink", "status", "said"),
    [("/dev/full", 1, "error: standard output cannot be written: No space left"), ("closed", 0, ""), ("head", 0, "")],
)
def test_output_that_nobody_takes(sink, status, said):
    command = [sys.executable, "-m", "infini_eval", "help"]
    if sink == "/dev/full":
        with Path(sink).open("w") as full:
            done = subprocess.run(
                command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=PROCESS_S, check=False
            )
    elif sink == "closed":
        shell = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
        done = subprocess.run(shell, stderr=subprocess.PIPE, text=True, timeout=PROCESS_S, check=False)
    else:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=PROCESS_S, check=False)
        os.close(writer)
    assert (done.returncode, done.stderr[: len(said)]) == (status, said)
    assert done.stderr.count("\n") == bool(said)


def test_foreign_text_cannot_act_on_the_terminal(capsys):
    def run(args: argparse.Namespace) -> int:
        print("a\x1b[31m\rb\u202e\tc\nd\ud800 é")
        return 0

    assert guarded(run, argparse.Namespace()) == 0
    assert capsys.readouterr().out == "a\\x1b[31m\\rb\\u202e\tc\nd\\ud800 é\n"


def test_what_an_encoding_lacks_is_written_out():
    raw = io.BytesIO()
    stream = output.SafeStream(io.TextIOWrapper(raw, encoding="ascii"))
    print("✓ é", file=stream, flush=True)
    assert raw.getvalue() == b"\\u2713 \\xe9\n"


RUN = ["run", "--task", "qa", "--model", "fake:x", "--save_path", "s", "--eval_dataset_path", "d"]
PLAN = ["plan", "--model", "llama-3.1-8b", "--context", "1k"]
MAKE = ["generate", "--tokenizer_path", "t", "--save_path", "s"]
IMPOSSIBLE = [
    (RUN, "--fake-seconds", "nan"),
    (RUN, "--fake-seconds", "inf"),
    (RUN, "--fake-seconds", "-1"),
    (RUN, "--fake-failure-rate", "2"),
    (RUN, "--fake-near-miss-rate", "nan"),
    (RUN, "--depths", "0:1e9:1e-9"),
    (RUN, "--depths", "0:inf:1"),
    (RUN, "--depths", "0:nan:1"),
    (RUN, "--depths", "nan"),
    (RUN, "--temperature", "nan"),
    (RUN, "--temperature", "inf"),
    (RUN, "--temperature", "1e-300"),
    (RUN, "--top-p", "0"),
    (RUN, "--request-timeout", "nan"),
    (RUN, "--request-timeout", "1e300"),
    (RUN, "--progress-every", "1e300"),
    (RUN, "--prefix-cache-gb", "nan"),
    (RUN, "--attempts", "9" * 30),
    (RUN, "--concurrency", "9" * 9),
    (RUN, "--seed", "9" * 5000),
    (RUN, "--num_samples", "9" * 5000),
    (RUN, "--context_length", "9" * 5000 + "k"),
    (RUN, "--context-window", "9" * 40),
    (RUN, "--dp", "9" * 12),
    (RUN, "--save_path", "a\0b"),
    (RUN, "--tokenizer", "a\udcff"),
    (RUN, "--scorer", "x" * 10_000),
    (PLAN, "--context", "9" * 40),
    (PLAN, "--gpus", "9" * 30 + "xH100-80GB"),
    (PLAN, "--gpus", f"gpu-{'9' * 400}GB"),
    (PLAN, "--batch", "9" * 30),
    (PLAN, "--tp", "9" * 12),
    (PLAN, "--utilisation", "nan"),
    (MAKE, "--depths", "linear:" + "9" * 5000),
    (MAKE, "--depths", "sigmoid:9999999999"),
    (MAKE, "--depth_percent", "nan"),
    (MAKE, "--num_prompts", "9" * 30),
    (MAKE, "--char-count", "9" * 30),
    (MAKE, "--workers", "9" * 9),
]


@pytest.mark.parametrize(("command", "flag", "value"), IMPOSSIBLE, ids=[f"{f} {v[:12]!a}" for _, f, v in IMPOSSIBLE])
def test_a_value_that_no_flag_can_have_is_one_short_message(command, flag, value, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, said = ended([*command, flag, value], capsys)
    assert status == 2 and said.startswith("error: ")
    assert len(said) < 1_000
    assert not list(Path().iterdir())
