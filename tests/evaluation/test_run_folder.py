"""What a run notes in its manifest: written by rank 0 alone, and only while it holds the folder's lock."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from infini_eval.distributed.launch import launch
from infini_eval.errors import OutOfMemory, RunFolderError
from infini_eval.evaluation.run_folder import RunFolder
from infini_eval.records import RunManifest
from infini_eval.results.lock import LOCK
from infini_eval.results.manifest import read_manifest
from infini_eval.testing.distributed import run_distributed_test
from infini_eval.testing.limits import PROCESS_S

MANIFEST = RunManifest({}, {}, {"started": "now"}, 16)


def environment(folder: Path) -> dict:
    return dict(read_manifest(folder).environment)


def test_notes_go_into_the_environment(tmp_path: Path) -> None:
    with launch("cpu") as world, RunFolder(str(tmp_path / "run"), MANIFEST, world) as folder:
        assert not folder.state.finished_keys
        folder.note(seconds={"answering": 1.5})
    assert environment(tmp_path / "run") == {"started": "now", "seconds": {"answering": 1.5}}


def test_a_run_that_lost_its_lock_writes_nothing_more(tmp_path: Path) -> None:
    with launch("cpu") as world, RunFolder(str(tmp_path), MANIFEST, world) as folder:
        lock = json.loads((tmp_path / LOCK).read_text())
        (tmp_path / LOCK).write_text(json.dumps(lock | {"token": "another run's"}))
        with pytest.raises(RunFolderError, match="has lost the lock"):
            folder.note(seconds={})
    assert environment(tmp_path) == {"started": "now"}


def runs_out_of_memory(path: str, rank: int) -> None:
    """Rank `rank` cannot answer 8 rows; every rank leaves a file behind for each time that it writes the manifest."""
    from infini_eval.results import manifest

    own, write = int(os.environ["RANK"]), manifest.write_manifest

    def writing(*arguments) -> None:
        Path(path, f"written-by-{own}").touch()
        write(*arguments)

    manifest.write_manifest = writing
    with (
        launch("cpu") as world,
        RunFolder(f"{path}/run", MANIFEST, world) as folder,
    ):
        if world.rank > 0:  # the one who started the ranks ends them all as soon as one has left
            world.on_exit(lambda: until_gone(Path(path, "run", LOCK)))
        if world.rank == rank:
            folder.note_largest_batch(4)
            raise OutOfMemory("no room for 8 rows")
        world.barrier("never")


def until_gone(path: Path) -> None:
    deadline = time.monotonic() + PROCESS_S
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.distributed
@pytest.mark.parametrize("rank", [0, 1])
def test_every_rank_can_ask_for_smaller_batches_and_rank_0_writes_it_down(tmp_path: Path, rank: int) -> None:
    with pytest.raises(AssertionError, match="ended with status 2"):
        run_distributed_test(runs_out_of_memory, 2, None, args=(str(tmp_path), rank))
    assert environment(tmp_path / "run")["batch_sizes"] == {"largest": 4}
    assert [path.name for path in tmp_path.glob("written-by-*")] == ["written-by-0"]
    assert not (tmp_path / "run" / LOCK).exists()
