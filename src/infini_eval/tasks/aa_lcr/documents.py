"""AA-LCR's documents: from the zip (nothing is unpacked) or a folder, found by their real names; else from the web."""

from __future__ import annotations

import contextlib
import os
import unicodedata
import urllib.error
import urllib.request
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from infini_eval.errors import DataError

LARGEST = 64 * 1024**2  # bytes of one document; the largest real ones have about one
TOP = "lcr"
Key = tuple[str, str, str]  # category, document set, file name
Fetch = Callable[[str], str]  # address -> text; raises WebTextError
TIMEOUT_S = 60.0
_UNSEEN = {"script", "style", "noscript", "template", "head"}
_BREAKS = {"p", "br", "div", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "section", "article", "table"}


class DocumentMissing(Exception):
    """A document that cannot be had; the text says why."""


class Archive:
    """The documents of a data set's folder. `notes` say what was passed over."""

    def __init__(self, folder: Path) -> None:
        self.notes: list[str] = []
        self._readers: dict[Key, list[Callable[[], bytes]]] = defaultdict(list)
        unpacked, zips = _unpacked(folder), _zips(folder)
        for path in zips:
            self._add_zip(path)
        if not self._readers and unpacked is not None:
            self._add_folder(unpacked, folder)
        self.source = "zip" if zips and self._readers else "folder" if self._readers else "none"

    def read(self, category: str, document_set: str, name: str) -> str:
        """The text of one document; DocumentMissing where there is none, or it cannot be read whole."""
        readers = self._readers.get((real_name(category), real_name(document_set), real_name(name)))
        if not readers:
            raise DocumentMissing("not among the documents")
        if len(readers) > 1:
            raise DocumentMissing(f"{len(readers)} documents have this name")
        try:
            data = readers[0]()
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise DocumentMissing(f"damaged: {error}") from None
        except (NotImplementedError, RuntimeError) as error:  # zipfile: unknown compression, encryption
            raise DocumentMissing(f"cannot be unpacked: {error}") from None
        return decoded(data)

    def _add_zip(self, path: Path) -> None:
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{path} cannot be read: {error}", next_step="download it again") from None
        unsafe = []
        for info in archive.infolist():
            if info.is_dir() or _is_rubbish(info.filename):
                continue
            if _leads_out(info.filename):
                unsafe.append(info.filename)
                continue
            key = _key(PurePosixPath(info.filename).parts)
            if key is not None:
                self._readers[key].append(_member_reader(archive, info))
        self._note_unsafe(path.name, unsafe)

    def _add_folder(self, root: Path, data: Path) -> None:
        unsafe = []
        for path in _files(root):
            if not _inside(path, data):
                unsafe.append(str(path.relative_to(root)))
                continue
            key = _key((TOP, *path.relative_to(root).parts))
            if key is not None:
                self._readers[key].append(_file_reader(path))
        self._note_unsafe(str(root), unsafe)

    def _note_unsafe(self, source: str, names: list[str]) -> None:
        if names:
            self.notes.append(
                f"{source}: {len(names)} name(s) lead out of the data and were passed over ({names[0]!r})"
            )


def real_name(name: str) -> str:
    """A name as it was meant: UTF-8 that was read as cp437 is mended, accents are composed (NFC), outer spaces go."""
    with contextlib.suppress(UnicodeError):  # not such a name
        name = name.encode("cp437").decode("utf-8")
    return unicodedata.normalize("NFC", name).strip()


def decoded(data: bytes) -> str:
    """A document's bytes as text; DocumentMissing where they are not text, or nothing."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentMissing(f"not UTF-8 text (byte {error.start})") from None
    if not text.strip():
        raise DocumentMissing("empty")
    return text


def _zips(folder: Path) -> list[Path]:
    return sorted((folder / "extracted_text").glob("*.zip")) or sorted(folder.glob("*.zip"))


def _unpacked(folder: Path) -> Path | None:
    """The folder lcr/, wherever a manual unzip may have put it."""
    for base in (folder / "extracted_text", folder):
        found = [base / TOP, *sorted(base.glob(f"*/{TOP}"))]
        for path in found:
            if path.is_dir():
                return path
    return None


def _files(root: Path) -> Iterator[Path]:
    for at, folders, names in os.walk(root):
        folders.sort()
        yield from (Path(at) / name for name in sorted(names) if not _is_rubbish(name))


def _key(parts: tuple[str, ...]) -> Key | None:
    """Category, set and file of a path that holds lcr/<category>/<set>/<file>."""
    if TOP not in parts[:-3]:
        return None
    at = parts.index(TOP)
    if len(parts) != at + 4:
        return None
    return real_name(parts[at + 1]), real_name(parts[at + 2]), real_name(parts[at + 3])


def _is_rubbish(name: str) -> bool:
    """What Finder leaves in archives."""
    return name.startswith("__MACOSX/") or PurePosixPath(name).name.startswith(("._", ".DS_Store"))


def _leads_out(name: str) -> bool:
    return name.startswith("/") or "\\" in name or ":" in name[:2] or ".." in PurePosixPath(name).parts


def _inside(path: Path, data: Path) -> bool:
    """Whether a file, links followed, lies in the data set's folder, or among the blobs of its hub cache."""
    real, roots = path.resolve(), [data.resolve()]
    if data.parent.name == "snapshots":
        roots.append((data.parent.parent / "blobs").resolve())
    return any(real.is_relative_to(root) for root in roots)


def _member_reader(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        with archive.open(info) as member:
            return _bounded(member.read(LARGEST + 1))  # the size in the archive's directory may be a lie

    return read


def _file_reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        with path.open("rb") as file:
            return _bounded(file.read(LARGEST + 1))

    return read


def _bounded(data: bytes) -> bytes:
    if len(data) > LARGEST:
        raise DocumentMissing(f"larger than {LARGEST:,} bytes, as no document is")
    return data


class WebTextError(Exception):
    """An address that gave no text; the message says why."""


def fetch_text(url: str) -> str:
    """The text behind an http or https address."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise WebTextError("not an http or https address")
    request = urllib.request.Request(url, headers={"User-Agent": "infini-eval", "Accept": "text/plain, text/html"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            kind, charset = reply.headers.get_content_type(), reply.headers.get_content_charset() or "utf-8"
            data = reply.read(LARGEST + 1)
    except urllib.error.HTTPError as error:
        raise WebTextError(f"status {error.code}") from None
    except (OSError, ValueError) as error:
        raise WebTextError(f"cannot be reached: {getattr(error, 'reason', error)}") from None
    if not kind.startswith("text/") or len(data) > LARGEST:
        raise WebTextError(f"{kind} of {len(data):,} bytes: only text can be read")
    try:
        text = data.decode(charset)
    except (UnicodeDecodeError, LookupError):
        raise WebTextError(f"not text in {charset}") from None
    return html_text(text) if kind == "text/html" else text


def html_text(page: str) -> str:
    """The words of a page, block by block."""
    reader = _Words()
    reader.feed(page)
    lines = (" ".join(line.split()) for line in "".join(reader.parts).splitlines())
    return "\n".join(line for line in lines if line)


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._hidden += tag in _UNSEEN
        if tag in _BREAKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in _UNSEEN))
        if tag in _BREAKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)
