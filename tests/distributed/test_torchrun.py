"""What `infini-eval launch` says of processes that failed, without processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infini_eval.distributed.torchrun import _tell
from infini_eval.errors import EXIT_INTERRUPTED


def failed(folder: Path, statuses: dict[int, int], messages: dict[int, str]):
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    for rank, text in messages.items():
        extra = {"py_callstack": text, "timestamp": "1"}
        (folder / f"{rank}.json").write_text(json.dumps({"message": {"message": text, "extraInfo": extra}}))
    return ChildFailedError(
        "script.py",
        {
            rank: ProcessFailure(rank, 100 + rank, status, str(folder / f"{rank}.json"))
            for rank, status in statuses.items()
        },
    )


@pytest.mark.parametrize(
    ("statuses", "messages", "status", "said"),
    [
        ({0: -15, 1: 2}, {1: "error: mended so"}, 2, "error: mended so\n"),
        ({0: 2, 1: 2}, {0: "error: it\n  where: rank 1", 1: "error: it"}, 2, "error: it\n  where: rank 1\n"),
        ({1: 75}, {}, EXIT_INTERRUPTED, ""),
        ({1: 7}, {}, 7, "error: the process of rank 1 ended with status 7; see what it wrote above\n"),
    ],
    ids=["only one knows", "all know", "interrupted", "no message"],
)
def test_the_first_error_and_its_status(tmp_path, capsys, statuses, messages, status, said):
    assert _tell(failed(tmp_path, statuses, messages)) == status
    assert capsys.readouterr().err == said


def test_a_killed_process_is_named_with_the_usual_cause(tmp_path, capsys):
    assert _tell(failed(tmp_path, {3: -9}, {})) == 1
    message = capsys.readouterr().err
    assert "rank 3 was ended by SIGKILL" in message and "memory" in message
