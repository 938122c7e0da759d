"""Opening a run folder: new, continued, refused with the differences named, overwritten."""

from __future__ import annotations

import json
import os

import pytest

from infini_eval.errors import RunFolderError
from infini_eval.records import RunManifest
from infini_eval.results.files import write_atomically
from infini_eval.results.manifest import ResumeState, differences, open_run, read_manifest, update_environment
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
