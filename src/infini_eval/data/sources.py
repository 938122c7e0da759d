"""Where haystack text comes from: generated English, the passkey papers' filler, a folder, python-docs, the hub."""

from __future__ import annotations

import importlib
import itertools
import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infini_eval.data import english
from infini_eval.data.english import needle_haystack
from infini_eval.errors import DataError, first_line, in_one_line
from infini_eval.foreign import parse_json, shown

FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
TEXT_SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")
READ_CHARS = 1 << 20
BUILT_IN = ("english", "filler", "noise", "python-docs", "needles", "uuid-needles")


@dataclass(frozen=True)
class Source:
    """A haystack source by name; `repeats` where it says the same again and again by nature."""

    name: str
    seed: int = 0

    @property
    def repeats(self) -> bool:
        return self.name in ("filler", "noise")

    def parts(self) -> Iterator[str]:
        """The source's text, piece by piece; the same seed gives the same text on any machine."""
        if self.name == "english":
            return english.blocks(self.seed)
        if self.name == "filler":
            return itertools.repeat(FILLER * 500)
        if self.name == "noise":
            return itertools.repeat((FILLER.rstrip() + "\n") * 500)
        if self.name == "python-docs":
            return (text + "\n\n" for text in _documentation())
        if self.name in ("needles", "uuid-needles"):
            return needle_haystack(self.seed, "uuids" if self.name == "uuid-needles" else "numbers")
        if self.name.startswith("hub:"):
            return _hub(self.name.removeprefix("hub:"))
        path = Path(self.name).expanduser()
        if _exists(path):
            return _folder(path, self.seed)
        raise DataError(
            f"no haystack {self.name!r}",
            valid=f"{', '.join(BUILT_IN)}, a folder or file of text ({', '.join(TEXT_SUFFIXES)}), or hub:owner/name",
            next_step=f"pass --haystack_dir hub:{self.name} if you mean a hub data set" if "/" in self.name else None,
        )


def _folder(path: Path, seed: int) -> Iterator[str]:
    """The texts of a folder, files in an order drawn with the seed, each file read piece by piece."""
    files = [path] if path.is_file() else _text_files(path)
    if not files:
        raise DataError(f"{path} holds no text", valid=f"files ending in {', '.join(TEXT_SUFFIXES)}")
    random.Random(f"files/{seed}").shuffle(files)
    for file in files:
        try:
            yield from _file(file)
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file} cannot be read as UTF-8 text: {error}") from error
        yield "\n\n"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a folder above it is closed to us
        raise _unreadable(error) from error


def _text_files(folder: Path) -> list[Path]:
    """Every text below a folder; a folder that cannot be listed is an error, not an empty one."""

    def refuse(error: OSError) -> None:
        raise _unreadable(error) from error

    found = (Path(root, name) for root, _, names in os.walk(folder, onerror=refuse) for name in names)
    return sorted(file for file in found if file.suffix in TEXT_SUFFIXES and file.is_file())


def _unreadable(error: OSError) -> DataError:
    return DataError(
        f"the haystack folder {error.filename} cannot be read: {error.strerror}",
        next_step="give yourself the right to read it, or choose another --haystack_dir",
    )


def _file(file: Path) -> Iterator[str]:
    if file.suffix == ".parquet":
        yield from _parquet_texts(file)
    elif file.suffix == ".jsonl":
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                yield _json_text(file, number, line)
    else:
        with file.open(encoding="utf-8") as text:
            while part := text.read(READ_CHARS):
                yield part


def _json_text(file: Path, number: int, line: str) -> str:
    if not line.strip():
        return ""
    try:
        row = parse_json(line)
    except ValueError as error:
        raise DataError(f"{file}, line {number} is not JSON: {in_one_line(error, 200)}") from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        held = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise DataError(f"{file}, line {number} has no column text; it holds: {held}")
    return str(row["text"]) + "\n\n"


def _parquet_texts(file: Path) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read as parquet: {first_line(error)}") from error
    names = data.schema_arrow.names
    if names.count("text") != 1:
        raise DataError(f"{file} has no column text, or several; its columns: {', '.join(names)}")
    for batch in data.iter_batches(batch_size=64, columns=["text"]):
        for text in batch.column(0).to_pylist():
            if not isinstance(text, str | None):
                raise DataError(f"{file}: the column text holds {shown(text)}", valid="texts")
            yield (text or "") + "\n\n"


def _hub(name: str) -> Iterator[str]:
    """The texts of a hub data set's train split, streamed; `owner/name:configuration` where it has several."""
    for row in _hub_rows(*name.partition(":")[::2]):
        if not isinstance(row.get("text"), str):
            raise DataError(f"the hub data set {name} has no column text; its columns: {', '.join(row)}")
        yield row["text"] + "\n\n"


def _hub_rows(name: str, configuration: str) -> Iterator[dict[str, Any]]:
    try:
        from datasets import load_dataset

        yield from load_dataset(name, configuration or None, split="train", streaming=True)
    except Exception as error:  # the hub's client raises many kinds, also while streaming; all mean the same
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"the hub data set {name} cannot be had: {reason}",
            valid="hub:owner/name, or hub:owner/name:configuration",
            next_step="use a local folder of text, or --haystack_dir english",
        ) from error


DOCUMENTED_MODULES = tuple(
    """argparse ast asyncio bisect calendar cmd codecs collections configparser contextlib copy csv dataclasses datetime
    decimal difflib dis email enum fileinput fractions ftplib functools gettext glob gzip hashlib heapq html http.client
    http.cookiejar http.server imaplib inspect io ipaddress itertools json locale logging lzma mailbox math mimetypes
    multiprocessing netrc numbers operator optparse os pathlib pdb pickle pkgutil platform plistlib poplib pprint
    profile queue random re sched secrets selectors shelve shlex shutil signal smtplib socket socketserver sqlite3 ssl
    statistics string subprocess symtable tarfile tempfile textwrap threading timeit tokenize trace traceback types
    typing unittest unittest.mock urllib.parse urllib.request uuid warnings wave weakref webbrowser xml.dom.minidom
    xml.etree.ElementTree zipfile zoneinfo""".split()
)
SHORTEST_DOCSTRING = 120  # characters; shorter docstrings are signatures, not prose


def _documentation() -> Iterator[str]:
    """Yield the texts of the running interpreter's own documentation, each once: language topics and docstrings.

    Runs of blanks and ruled lines are taken out.
    """
    seen: set[str] = set()
    for text in _topics_and_docstrings():
        text = re.sub(r"[ \t]+", " ", re.sub(r"[-=*~^+.#]{4,}", "", text)).strip()
        if len(text) >= SHORTEST_DOCSTRING and text not in seen:
            seen.add(text)
            yield text


def _topics_and_docstrings() -> Iterator[str]:
    import pydoc_data.topics

    for _, topic in sorted(pydoc_data.topics.topics.items()):
        yield topic
    for name in DOCUMENTED_MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:  # an interpreter built without it (sqlite3, lzma, ...)
            continue
        yield from _docstrings(module, depth=2)


def _docstrings(owner: object, depth: int) -> Iterator[str]:
    text = getattr(owner, "__doc__", None)
    if isinstance(text, str):
        yield text
    if depth:
        for name, member in sorted(vars(owner).items()):
            if not name.startswith("_") and (isinstance(member, type) or callable(member)):
                yield from _docstrings(member, depth - 1 if isinstance(member, type) else 0)
