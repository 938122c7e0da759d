"""Opening a run folder: new, continued, refused with the differences named, overwritten."""

from __future__ import annotations

import json
import os
import re

import pytest

from infini_eval.errors import ConfigError, RunFolderError
from infini_eval.records import RunManifest
from infini_eval.results.files import write_atomically
from infini_eval.results.manifest import (
    ResumeState,
    check_results_file,
    content,
    differences,
    open_run,
    read_manifest,
    read_progress,
    update_environment,
)
from infini_eval.results.samples import SampleWriter


def manifest(seed=42, world_size=1, **identity):
    return RunManifest(
        identity={"ckpt": "sha", "seed": seed, "depths": (0.0, 50.0), **identity},
        model={"name": "tiny"},
        environment={"world_size": world_size},
        samples_planned=3,
    )


def write_samples(folder, *keys, name="replica-00000", status="ok"):
    with SampleWriter(folder, name) as writer:
        for key in keys:
            writer.write({"sample_key": key, "status": status})


def test_a_new_folder_gets_its_manifest_first(tmp_path):
    state = open_run(tmp_path / "a" / "run", manifest())
    assert state == ResumeState()
    assert read_manifest(tmp_path / "a" / "run").identity["depths"] == [0.0, 50.0]


def test_the_same_run_continues_at_another_topology(tmp_path):
    open_run(tmp_path, manifest())
    write_samples(tmp_path, "a", "b")
    write_samples(tmp_path, "c", name="replica-00001", status="failed")
    write_samples(tmp_path, "b", name="replica-00002", status="failed")
    state = open_run(tmp_path, manifest(world_size=4))
    assert state.finished_keys == {"a", "b"}
    assert state.failed_keys == {"c"}
    assert state.previous.environment["world_size"] == 1
    environment = read_manifest(tmp_path).environment
    assert environment["world_size"] == 4
    assert environment["previous_attempts"] == [{"world_size": 1}]


def test_attempts_are_kept_flat_and_batch_sizes_are_carried_over(tmp_path):
    for world_size in (1, 2, 3):
        open_run(tmp_path, manifest(world_size=world_size))
        if world_size == 1:
            update_environment(tmp_path, batch_sizes={"1024": 8})
    environment = read_manifest(tmp_path).environment
    assert [attempt["world_size"] for attempt in environment["previous_attempts"]] == [1, 2]
    assert environment["batch_sizes"] == {"1024": 8}


def test_a_finished_run_keeps_its_manifest(tmp_path):
    open_run(tmp_path, manifest())
    update_environment(tmp_path, started="then", memory={"measured_bytes": 1}, seconds={"answering": 2})
    write_samples(tmp_path, "a", "b", "c")
    before = (tmp_path / "manifest.json").read_bytes()
    state = open_run(tmp_path, manifest(world_size=4))
    assert state.finished_keys == {"a", "b", "c"}
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_a_run_with_failed_samples_is_not_finished(tmp_path):
    open_run(tmp_path, manifest())
    write_samples(tmp_path, "a", "b")
    write_samples(tmp_path, "c", name="replica-00001", status="failed")
    open_run(tmp_path, manifest(world_size=4))
    assert read_manifest(tmp_path).environment["world_size"] == 4


def test_another_setting_is_refused_with_old_and_new_value(tmp_path):
    open_run(tmp_path, manifest(data={"sha": "1"}))
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(RunFolderError) as refused:
        open_run(tmp_path, manifest(seed=7, data={"sha": "2"}))
    assert "seed: 42 -> 7" in str(refused.value)
    assert 'data.sha: "1" -> "2"' in str(refused.value)
    assert "ckpt" not in str(refused.value)
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_a_run_whose_draws_were_made_otherwise_is_refused_with_the_reason(tmp_path):
    open_run(tmp_path, manifest(sampling={"temperature": 0.7}))
    with pytest.raises(RunFolderError, match="draws tokens in another way") as refused:
        open_run(tmp_path, manifest(sampling={"temperature": 0.7, "drawn_by": "dice"}))
    assert 'sampling.drawn_by: (absent) -> "dice"' in str(refused.value)


def test_differences_name_keys_that_come_and_go():
    assert differences({"a": 1, "b": {}}, {"b": {}, "c": None}) == ["a: 1 -> (absent)", "c: (absent) -> null"]


def test_overwrite_deletes_our_files_only(tmp_path):
    open_run(tmp_path, manifest())
    write_samples(tmp_path, "a")
    (tmp_path / "notes.md").write_text("mine")
    state = open_run(tmp_path, manifest(seed=7), overwrite=True)
    assert not state.finished_keys
    assert state.previous is None
    assert "2 files" in state.notes[0]
    assert (tmp_path / "notes.md").exists()
    assert read_manifest(tmp_path).identity["seed"] == 7


def test_samples_without_a_manifest_are_refused(tmp_path):
    write_samples(tmp_path, "a")
    with pytest.raises(RunFolderError, match=r"no manifest\.json"):
        open_run(tmp_path, manifest())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"identity": {}}'])
def test_a_broken_manifest_is_named(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(RunFolderError, match="is not a manifest"):
        open_run(tmp_path, manifest())


def test_a_newer_manifest_is_refused(tmp_path):
    open_run(tmp_path, manifest())
    data = json.loads((tmp_path / "manifest.json").read_text()) | {"schema_version": 99}
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(RunFolderError, match="schema version 99"):
        open_run(tmp_path, manifest())


def test_torn_and_unreadable_lines_are_reported_and_computed_again(tmp_path):
    open_run(tmp_path, manifest())
    write_samples(tmp_path, "a", "b")
    path = tmp_path / "samples" / "replica-00000.jsonl"
    whole = path.read_bytes() + b"not json\n"
    path.write_bytes(whole + b'{"sample_key": "c", "sta')
    state = open_run(tmp_path, manifest())
    assert path.read_bytes() == whole
    assert state.finished_keys == {"a", "b"}
    assert "torn last line (24 bytes)" in state.notes[0]
    assert "line 3 is not a record" in state.notes[1]


def test_a_file_that_is_one_torn_line_becomes_empty(tmp_path):
    open_run(tmp_path, manifest())
    path = tmp_path / "samples" / "replica-00000.jsonl"
    path.write_bytes(b"x" * 200_000)
    assert open_run(tmp_path, manifest()).finished_keys == frozenset()
    assert path.read_bytes() == b""


def test_resume_state_survives_json():
    state = ResumeState(frozenset({"a"}), frozenset({"b"}), manifest(), ("note",))
    back = ResumeState.from_json(json.loads(json.dumps(state.to_json())))
    assert back.finished_keys == {"a"}
    assert back.previous.samples_planned == 3
    assert back.notes == ("note",)


def test_a_file_in_the_way_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="file"):
        open_run(tmp_path / "file" / "run", manifest())


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "manifest.json"
    write_atomically(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match="No space left on device"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": None}, "schema_version"),
        ({"schema_version": [1]}, "schema_version"),
        ({"identity": 5}, "identity"),
        ({"model": "x"}, "model"),
        ({"environment": [1]}, "environment"),
        ({"samples_planned": 10**400}, "samples_planned"),
        ({"samples_planned": -1}, "samples_planned"),
        ({"model": {"segment_length": "x" * 9_999}}, "model.segment_length"),
        ({"environment": {"started": 5}}, "environment.started"),
        ({"environment": {"batch_sizes": {"largest": {}}}}, "environment.batch_sizes"),
    ],
    ids=str,
)
def test_a_value_of_the_wrong_kind_is_refused_by_who_continues_and_left_out_by_who_reads(tmp_path, change, said):
    open_run(tmp_path, manifest())
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RunFolderError, match=re.escape(said)) as caught:
        read_manifest(tmp_path)
    assert len(str(caught.value)) < 800
    data, (problem,) = content(path)
    assert problem.startswith(f"{said} is ")
    section, _, key = said.partition(".")
    assert key not in data[section] if key else section not in data


@pytest.mark.parametrize("text", ["[" * 100_000, "\xff", "5", "null", "", '{"schema_version": ' + "9" * 5_000 + "}"])
def test_a_file_that_is_no_manifest_is_one_error(tmp_path, text):
    open_run(tmp_path, manifest())
    (tmp_path / "manifest.json").write_text(text, encoding="latin1")
    with pytest.raises(RunFolderError) as caught:
        read_manifest(tmp_path)
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize("there", ["summary.json", "plots/mine.png", "samples/mine.jsonl"])
def test_overwrite_deletes_nothing_where_no_run_was(tmp_path, there):
    mine = tmp_path / there
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    for manifest_text in (None, "{}", "broken"):
        if manifest_text is not None:
            (tmp_path / "manifest.json").write_text(manifest_text)
        with pytest.raises(RunFolderError, match="--overwrite deletes runs only"):
            open_run(tmp_path, manifest(), overwrite=True)
    assert mine.read_text() == "mine"


def test_overwrite_follows_no_link(tmp_path):
    run, mine = tmp_path / "run", tmp_path / "mine" / "holiday.png"
    open_run(run, manifest())
    mine.parent.mkdir()
    mine.touch()
    (run / "plots").symlink_to(mine.parent)
    open_run(run, manifest(), overwrite=True)
    assert mine.exists()


@pytest.mark.parametrize("name", ["manifest.json", "samples/x.json", "replies/x", "run.lock", "summary.json", ".", ""])
def test_the_results_file_takes_no_place_of_the_runs_own(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="a file of the run itself"):
        check_results_file(name and f"run/{name}", "run")
    check_results_file("run/mine.json", "run")
    check_results_file("manifest.json", "run")


def test_many_lines_that_are_no_records_are_one_note(tmp_path):
    open_run(tmp_path, manifest())
    (tmp_path / "samples" / "replica-00000.jsonl").write_bytes(
        b"x\n" * 1_000 + b'{"sample_key": "a", "depth_percent": {}}\n'
    )
    finished, failed, notes = read_progress(tmp_path)
    assert (finished, failed, len(notes)) == (set(), set(), 1)
    assert "1001 lines (1, 2, 3, 4, 5, …)" in notes[0]


def test_records_of_another_run_are_no_progress_of_this_one(tmp_path):
    open_run(tmp_path, manifest())
    with SampleWriter(tmp_path, "replica-00000") as writer:
        for key in ("theirs", "mine", "theirs too"):
            writer.write({"sample_key": key, "status": "ok"})
    state = open_run(tmp_path, manifest(), planned={"mine", "another"})
    assert state.finished_keys == {"mine"}
    assert state.notes == ("samples/replica-00000.jsonl: 2 lines (1, 3) are of no sample of this run, and left out",)
