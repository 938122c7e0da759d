"""Many runs as the files that the browser of results reads: made when asked for, or all written into a folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from infini_eval.errors import ConfigError, InfiniEvalError
from infini_eval.reports.analyze import analyze_any
from infini_eval.reports.compare import compare_scores, pair, read_scores
from infini_eval.reports.judged import compare_questions
from infini_eval.reports.model import AnalysedRun, DepthRun, to_json
from infini_eval.reports.page import LISTED as LISTED_HERE
from infini_eval.reports.page import LONGEST, WEB, index, one_file, served_page, web_files
from infini_eval.reports.payload import RunFiles, RunRow, as_json, run_row, unread_row
from infini_eval.reports.track import rows_of
from infini_eval.results.files import write_atomically
from infini_eval.results.manifest import MANIFEST
from infini_eval.results.reader import find_runs

LISTED = 200_000  # samples of a run; of more an even selection
KEPT = 4  # analysed runs that are kept in memory
NAMED = 500  # samples that only one run of a comparison answers rightly, by name
MOST_PAIRS = 400  # comparisons that a folder holds ready: 20 runs, each with each
_WATCHED = (MANIFEST, "diagnosis.json", "samples.parquet", "samples", "judges")


@dataclass(frozen=True)
class _Known:
    """What the list says of a run, as of the state of its files."""

    state: tuple[int, ...]
    row: RunRow
    track: tuple[dict[str, Any], ...]


class Site:
    """The runs at and below some folders as the files of the browser.

    Args:
        roots: run folders, folders of run folders, JSON files of judged answers.
        failed_as_wrong: count failed samples as wrong.
        said: told what is being read.
    """

    def __init__(
        self, roots: Sequence[Path], *, failed_as_wrong: bool = False, said: Callable[[str], None] = lambda line: None
    ) -> None:
        self.roots, self.failed_as_wrong, self.said = tuple(roots), failed_as_wrong, said
        self.folders: dict[str, Path] = {}
        self._known: dict[str, _Known] = {}
        self._open: dict[str, tuple[tuple[int, ...], RunFiles]] = {}
        self.pairs: list[tuple[str, str]] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Look at the folders again: read runs that are new or have changed."""
        self.folders = _named(self.roots)
        changed = [name for name, folder in self.folders.items() if self._state(name) != _state(folder)]
        for number, name in enumerate(changed, 1):
            self.said(f"reading run {number} of {len(changed)}: {self.folders[name]}")
            self._known[name] = self._read(name)

    @property
    def rows(self) -> list[RunRow]:
        return [self._known[name].row for name in self.folders]

    def page(self) -> str:
        """index.html: the application, and the list of runs in it."""
        return served_page(self.rows, {"index.json": self._index()})

    def content(self, path: str) -> Any:
        """The content of a file, JSON-ready; None where there is no such file."""
        kind, *rest = path.split("/")
        if kind == "runs" and len(rest) == 2 and rest[0] in self.folders:
            return self._files(rest[0]).content(rest[1])
        if kind == "compare" and len(rest) == 2 and rest[1].endswith(".json"):
            a, b = rest[0], rest[1].removesuffix(".json")
            return self._compared(a, b) if a in self.folders and b in self.folders else None
        return None

    def excerpt(self, name: str, limit: int) -> dict[str, Any]:
        """The files of a run with at most so many samples, by their path."""
        files = self._files(name)
        return RunFiles(files.run, files.row, limit, LONGEST).all()

    def write(self, folder: Path) -> int:
        """Write everything into a folder for any web server; returns how many files.

        ConfigError where the folder holds something else.
        """
        _make_room(folder)
        self.pairs = list(permutations([row.id for row in self.rows if not row.problem], 2))[:MOST_PAIRS]
        written = 0
        for name in web_files():
            write_atomically(folder / "web" / name, (WEB / name).read_bytes())
            written += 1
        for path, content in self._everything():
            write_atomically(folder / path, as_json(content))
            written += 1
        write_atomically(folder / "index.html", self.page().encode())
        return written + 1

    def _everything(self) -> Iterator[tuple[str, Any]]:
        for name in [row.id for row in self.rows if not row.problem]:
            self.said(f"writing {self.folders[name]}")
            yield from self._files(name).all().items()
        for a, b in self.pairs or ():
            yield f"compare/{a}/{b}.json", self._compared(a, b)

    def _index(self) -> dict[str, Any]:
        track = [row for name in self.folders for row in self._known[name].track]
        track.sort(key=lambda row: (row["series"], row["context_length"] or 0, row["step"]))
        return index(self.rows, track=track or None, pairs=self.pairs)

    def _state(self, name: str) -> tuple[int, ...] | None:
        return self._known[name].state if name in self._known else None

    def _read(self, name: str) -> _Known:
        folder = self.folders[name]
        state = _state(folder)
        try:
            run = self._analysed(folder)
        except InfiniEvalError as error:
            return _Known(state, unread_row(name, name, error.problem), ())
        row = run_row(run, name, name)
        track = rows_of(run) if isinstance(run, DepthRun) else []
        self._keep(name, state, RunFiles(run, row, LISTED))
        return _Known(state, row, tuple({**to_json(one), "run": name} for one in track))

    def _analysed(self, folder: Path) -> AnalysedRun:
        return analyze_any(folder, ascii_only=True, failed_as_wrong=self.failed_as_wrong)

    def _files(self, name: str) -> RunFiles:
        state = self._known[name].state
        kept = self._open.get(name)
        if kept is None or kept[0] != state:
            self._keep(name, state, RunFiles(self._analysed(self.folders[name]), self._known[name].row, LISTED))
        return self._open[name][1]

    def _keep(self, name: str, state: tuple[int, ...], files: RunFiles) -> None:
        self._open[name] = (state, files)
        while len(self._open) > KEPT:
            del self._open[next(iter(self._open))]

    def _compared(self, a: str, b: str) -> dict[str, Any]:
        """Run b against run a, or why they cannot be compared."""
        found: dict[str, Any] = {"comparison": None, "questions": None, "problem": None}
        kinds = {self._known[name].row.kind for name in (a, b)}
        try:
            if kinds == {"questions"}:
                return found | {"questions": compare_questions([self.folders[a], self.folders[b]])}
            if kinds != {"depths"}:
                return found | {"problem": "a judged run is not compared with one that a scorer has read"}
            return found | _compared_depths(self.folders[a], self.folders[b])
        except InfiniEvalError as error:
            return found | {"problem": error.problem}


def comparison_page(roots: Sequence[Path]) -> str:
    """Some runs and their comparisons, each with each, as one file that opens from disk and shows the comparison."""
    site = Site(roots)
    names = [row.id for row in site.rows]
    files: dict[str, Any] = {}
    for row in site.rows:
        files |= site.excerpt(row.id, LISTED_HERE // len(names))
    for a, b in list(permutations(names, 2))[:MOST_PAIRS]:
        files[f"compare/{a}/{b}.json"] = site.content(f"compare/{a}/{b}.json")
    return one_file(site.rows, files, {}, open=f"#/compare?runs={','.join(names)}")


def _compared_depths(a: Path, b: Path) -> dict[str, Any]:
    """The comparison and the keys of samples that only one of the runs answers rightly, NAMED of each at the most."""
    import numpy as np

    first, second = read_scores(a), read_scores(b)
    made = compare_scores([first, second]).comparisons[0]
    at_a, at_b, _ = pair(first, second)
    right_a, right_b = first.scored.correct[at_a] >= 1, second.scored.correct[at_b] >= 1
    only = {"only_a": right_a & ~right_b, "only_b": right_b & ~right_a}
    keys = {name: [first.keys[at] for at in at_a[np.flatnonzero(mask)[:NAMED]]] for name, mask in only.items()}
    return {"comparison": to_json(made), **keys}


def _named(roots: Sequence[Path]) -> dict[str, Path]:
    """The runs at and below the roots, each once, by a name that can stand in an address: where they lie below their root."""
    found: dict[str, Path] = {}
    there: set[Path] = set()
    for root in roots:
        for folder in [root] if root.is_file() else find_runs(root):
            if folder.resolve() in there:
                continue
            there.add(folder.resolve())
            base = root.resolve().name
            below = base if folder == root else str(folder.relative_to(root))
            names = [
                _plain(below),
                _plain(f"{base}/{below}"),
                *(f"{_plain(below)}-{at}" for at in range(2, len(found) + 3)),
            ]
            found[next(name for name in names if name not in found)] = folder
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"


def _state(folder: Path) -> tuple[int, ...]:
    """Sizes and times of the files that a run is read from: they change when it goes on."""
    if folder.is_file():
        return (folder.stat().st_mtime_ns,)
    paths = [folder, *(folder / name for name in _WATCHED)]
    files = [*paths, *sorted((folder / "samples").glob("*")), *sorted((folder / "judges").glob("*/samples/*"))]
    stats = [path.stat() for path in files if path.exists()]
    return tuple(number for stat in stats for number in (stat.st_mtime_ns, stat.st_size))


def _make_room(folder: Path) -> None:
    """Empty a folder that an earlier call wrote; ConfigError for one that holds anything else."""
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / "web" / "app.js").is_file():
            raise ConfigError(
                f"{folder} holds other files", valid="a new folder, or one that an earlier --bundle wrote"
            )
        for name in ("runs", "compare", "web"):
            shutil.rmtree(folder / name, ignore_errors=True)
    elif folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file", valid="a folder")
