"""manifest.json: what a run is; and opening a run folder, which starts it, continues it or refuses it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infini_eval.errors import ConfigError, RunFolderError
from infini_eval.foreign import read_json, shown
from infini_eval.keys import hide_keys
from infini_eval.records import SCHEMA_VERSION, RunManifest
from infini_eval.results.files import SAMPLES, make_folder, os_error, remove_temporaries, to_jsonable, write_json
from infini_eval.results.lock import LOCK
from infini_eval.results.samples import iter_samples, truncate_torn_lines

MANIFEST = "manifest.json"
CARRIED_OVER = ("batch_sizes",)  # what a run has learnt and its next attempt uses again
ANOTHER_FOLDER = "choose another --save_path, or --overwrite to discard what is there"
EXPLAINED = {
    "sampling.drawn_by": "at a temperature above 0 this version draws tokens in another way than the one that began this"
    " run: answers of both would not belong together",
}
OURS = (MANIFEST, "samples.parquet", "summary.json", "report.txt", "report.html")
OWN_FOLDERS = (SAMPLES, "replies", "plots", "judges")
OURS_BY_PATTERN = (f"{SAMPLES}/*.jsonl", "plots/*.png", "plots/*.csv")


def open_run(
    folder: str | Path, manifest: RunManifest, overwrite: bool = False, planned: Container[str] | None = None
) -> ResumeState:
    """Start a run in an empty folder, or continue it where the identity is the same; either writes manifest.json.

    A finished run keeps its manifest as it is: nothing will be measured anew. Only one process calls this, holding the
    folder's lock. Raises RunFolderError naming each setting that differs from
    the run already there (old and new value), or where the folder cannot be used. `overwrite` discards the old run.
    `planned` are the keys of the run's samples: records of others do not count.
    """
    folder = Path(folder)
    make_folder(folder / SAMPLES)
    remove_temporaries(folder)
    notes: list[str] = []
    if overwrite:
        notes += _discard(folder)
    previous = read_manifest(folder) if (folder / MANIFEST).exists() else None
    if previous is None:
        _refuse_orphans(folder)
    else:
        _refuse_differences(folder, previous, manifest)
        notes += truncate_torn_lines(folder)
    finished, failed, unreadable = read_progress(folder, planned)
    notes += unreadable
    if previous is None or len(finished) < manifest.samples_planned:
        write_manifest(folder, _next_attempt(manifest, previous))
    return ResumeState(frozenset(finished), frozenset(failed), previous, tuple(notes))


def read_manifest(folder: str | Path) -> RunManifest:
    """The manifest of a run; RunFolderError where it is missing, unreadable or of a newer version."""
    path = Path(folder) / MANIFEST
    try:
        data, problems = content(path)
    except RunFolderError as error:
        raise RunFolderError(f"{str(path)!r} is not a manifest: {error.problem}", next_step=ANOTHER_FOLDER) from None
    if problems:
        raise RunFolderError(f"{str(path)!r} is not a manifest: {problems[0]}", next_step=ANOTHER_FOLDER)
    try:
        manifest = RunManifest.from_json(data)
    except KeyError as error:
        raise RunFolderError(f"{str(path)!r} is not a manifest: it has no {error}", next_step=ANOTHER_FOLDER) from error
    if manifest.schema_version > SCHEMA_VERSION:
        raise RunFolderError(
            f"{str(path)!r} has schema version {manifest.schema_version}",
            valid=f"up to {SCHEMA_VERSION}",
            next_step="use the version of infini_eval that wrote it, or a newer one",
        )
    return manifest


def content(path: Path) -> tuple[dict[str, Any], list[str]]:
    """What a manifest holds, without values that are not of their kind, and a sentence on each of these.

    Raises:
        RunFolderError: it is no JSON file.
    """
    from infini_eval.results.schemas import checked_manifest

    return checked_manifest(read_json(path, RunFolderError))


def write_manifest(folder: str | Path, manifest: RunManifest) -> None:
    """Write manifest.json atomically."""
    write_json(Path(folder) / MANIFEST, manifest.to_json())


def update_environment(folder: str | Path, **changes: Any) -> RunManifest:
    """Change entries of the manifest's environment, such as `batch_sizes` found by probing; the identity stays."""
    manifest = read_manifest(folder)
    manifest = replace(manifest, environment={**manifest.environment, **to_jsonable(changes)})
    write_manifest(folder, manifest)
    return manifest


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line a setting that differs, as "sampling.seed: 1 -> 2"; nested mappings are compared key by key."""
    before, after = dict(_flat(to_jsonable(old))), dict(_flat(to_jsonable(new)))
    keys = [*before, *(key for key in after if key not in before)]
    absent = "(absent)"
    return [
        f"{key}: {before.get(key, absent)} -> {after.get(key, absent)}"
        for key in keys
        if before.get(key, absent) != after.get(key, absent)
    ]


def _flat(data: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    elif prefix:
        yield prefix, hide_keys(json.dumps(data))


def _refuse_differences(folder: Path, previous: RunManifest, manifest: RunManifest) -> None:
    changed = differences(previous.identity, manifest.identity)
    if changed:
        listed = "\n".join(f"    {line}" for line in changed)
        why = "".join(f"\n  {text}" for key, text in EXPLAINED.items() if any(x.startswith(f"{key}:") for x in changed))
        raise RunFolderError(
            f"{str(folder)!r} holds a run with other settings (there -> asked):\n{listed}{why}",
            valid="the settings of the run that is there, which would continue it",
            next_step=ANOTHER_FOLDER,
        )


def _refuse_orphans(folder: Path) -> None:
    if any(path.stat().st_size for path in (folder / SAMPLES).glob("*.jsonl")):
        raise RunFolderError(
            f"{str(folder)!r} holds samples but no {MANIFEST}, so nothing says which run they belong to",
            next_step=ANOTHER_FOLDER,
        )


def _next_attempt(manifest: RunManifest, previous: RunManifest | None) -> RunManifest:
    """The new manifest, with the environments of earlier attempts and what they have learnt."""
    if previous is None:
        return manifest
    old = dict(previous.environment)
    attempts = [*old.pop("previous_attempts", []), old]
    carried = {key: old[key] for key in CARRIED_OVER if key in old}
    return replace(manifest, environment={**carried, **manifest.environment, "previous_attempts": attempts})


def _is_of_a_run(folder: Path) -> bool:
    try:
        found, _ = content(folder / MANIFEST)
    except RunFolderError:
        return False
    return "schema_version" in found and isinstance(found.get("identity"), dict)


def check_results_file(path: str, folder: str | Path) -> None:
    """Refuse a results file that would take the place of one of the run's own; ConfigError."""
    real, run = Path(path).resolve(), Path(folder).resolve()
    taken = real in {run, *(run / name for name in (*OURS, LOCK))} or real.parent in {run / one for one in OWN_FOLDERS}
    if not path.strip() or taken:
        raise ConfigError(
            f"--results_file {shown(path)} is a file of the run itself", valid="a file of another name, or elsewhere"
        )


def _discard(folder: Path) -> list[str]:
    """Delete the files that a run writes, and nothing else; RunFolderError where no manifest of ours says that one did."""
    to_delete = [folder / name for name in OURS if (folder / name).is_file()]
    for pattern in OURS_BY_PATTERN:
        if not (folder / pattern).parent.is_symlink():  # it leads to files that are not the run's
            to_delete += sorted(folder.glob(pattern))
    if to_delete and not _is_of_a_run(folder):
        raise RunFolderError(
            f"{str(folder)!r} holds {to_delete[0].relative_to(folder)} but no {MANIFEST} of ours: "
            "--overwrite deletes runs only",
            next_step="choose another --save_path, or remove the files yourself",
        )
    for path in to_delete:
        try:
            path.unlink()
        except OSError as error:
            raise os_error(path, error, "delete") from error
    return [f"--overwrite: {len(to_delete)} files of the run before are deleted"] if to_delete else []


@dataclass(frozen=True)
class ResumeState:
    """Where a run stands: keys of finished samples, keys of samples that failed (tried again), notes to log.

    `previous` is the manifest of the attempt before, None for a new run.
    """

    finished_keys: frozenset[str] = frozenset()
    failed_keys: frozenset[str] = frozenset()
    previous: RunManifest | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For the trip from rank 0 to the others."""
        return {
            "finished_keys": sorted(self.finished_keys),
            "failed_keys": sorted(self.failed_keys),
            "previous": self.previous.to_json() if self.previous else None,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ResumeState:
        return cls(
            finished_keys=frozenset(data["finished_keys"]),
            failed_keys=frozenset(data["failed_keys"]),
            previous=RunManifest.from_json(data["previous"]) if data["previous"] else None,
            notes=tuple(data["notes"]),
        )


def read_progress(folder: str | Path, planned: Container[str] | None = None) -> tuple[set[str], set[str], list[str]]:
    """Keys of finished samples, keys of samples that only failed, and a note for each file with lines that do not count.

    planned: keys of the run's samples; a record of another belongs to another run.
    """
    finished: set[str] = set()
    failed: set[str] = set()
    bad: dict[str, list[int]] = defaultdict(list)
    foreign: dict[str, list[int]] = defaultdict(list)
    for path, number, record, _, _ in iter_samples(folder):
        if record is None:
            bad[path.name].append(number)
        elif planned is not None and record["sample_key"] not in planned:
            foreign[path.name].append(number)
        else:
            (failed if record.get("status") == "failed" else finished).add(record["sample_key"])
    notes = [
        f"{SAMPLES}/{name}: {_lines(numbers)} not a record; a sample of which there is no other is computed again"
        for name, numbers in bad.items()
    ]
    notes += [
        f"{SAMPLES}/{name}: {_lines(numbers)} of no sample of this run, and left out"
        for name, numbers in foreign.items()
    ]
    return finished, failed - finished, notes


def _lines(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"line {numbers[0]} is"
    return f"{len(numbers)} lines ({', '.join(map(str, numbers[:5]))}{', …' * (len(numbers) > 5)}) are"
