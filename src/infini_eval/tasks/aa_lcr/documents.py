"""AA-LCR's documents: from the zip (nothing is unpacked) or a folder, found by their real names; else from the web."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import os
import socket
import ssl
import threading
import unicodedata
import urllib.error
import urllib.request
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from infini_eval.errors import DataError, in_one_line
from infini_eval.foreign import shown, valid_text

LARGEST = 64 * 1024**2  # bytes of one document; the largest real ones have about one
LARGEST_TOGETHER = 1024**3  # of all documents; the real ones have about a quarter of one
MOST_MEMBERS = 100_000
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
        self._left, self._lock = LARGEST_TOGETHER, threading.Lock()
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
        except (NotImplementedError, RuntimeError, ValueError) as error:  # zipfile: unknown compression, encryption
            raise DocumentMissing(f"cannot be unpacked: {error}") from None
        with self._lock:  # documents are read on several threads
            self._left -= len(data)
            if self._left < 0:
                raise DataError(f"the documents have more than {LARGEST_TOGETHER:,} bytes together, as no data set has")
        return decoded(data)

    def _add_zip(self, path: Path) -> None:
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:  # also an unknown version
            raise DataError(
                f"{path} cannot be read: {in_one_line(error, 200)}", next_step="download it again"
            ) from None
        if len(archive.infolist()) > MOST_MEMBERS:
            raise DataError(f"{path} holds {len(archive.infolist()):,} files", valid=f"up to {MOST_MEMBERS:,}")
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
                f"{source}: {len(names)} name(s) lead out of the data and were passed over ({shown(names[0])})"
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
        yield from (Path(at, name) for name in sorted(names) if not _is_rubbish(name) and Path(at, name).is_file())


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


def fetch_text(url: str, *, private: bool = False) -> str:
    """The text behind an http or https address, redirections followed.

    Args:
        private: also addresses of this machine and its network. A list of documents comes from others, and must not make
            this machine ask its neighbours, or the service that gives a cloud's machines their credentials.

    Raises:
        WebTextError: it gives no text, not within TIMEOUT_S, or its address is private.
    """
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            raise WebTextError("not an http or https address")
        request = urllib.request.Request(url, headers={"User-Agent": "infini-eval", "Accept": "text/plain, text/html"})
        with _opener(private).open(request, timeout=TIMEOUT_S) as reply:
            kind, charset = reply.headers.get_content_type(), reply.headers.get_content_charset() or "utf-8"
            data = reply.read(LARGEST + 1)
            if reply.length and len(data) <= LARGEST:  # what its head has promised and did not come
                raise WebTextError(f"cut off {reply.length:,} bytes before its end")
    except urllib.error.HTTPError as error:
        raise WebTextError(f"status {error.code}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise WebTextError(f"cannot be reached: {in_one_line(getattr(error, 'reason', error), 200)}") from None
    if not kind.startswith("text/") or len(data) > LARGEST:
        raise WebTextError(f"{shown(kind)} of {len(data):,} bytes: only text can be read")
    try:
        text = valid_text(data.decode(charset))
    except (UnicodeError, LookupError, ValueError):
        raise WebTextError(f"not text in {shown(charset)}") from None
    return html_text(text) if kind == "text/html" else text


def _opener(private: bool) -> urllib.request.OpenerDirector:
    """Opens http and https only, to public addresses unless `private`; every redirection is checked as well.

    Behind a proxy it is the proxy that connects; then only addresses that stand in the text are checked.
    """
    proxied = bool(urllib.request.getproxies())

    class Plain(http.client.HTTPConnection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._create_connection = _connection(private or proxied)

    class Encrypted(http.client.HTTPSConnection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._create_connection = _connection(private or proxied)

    class Http(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            _check_literal(request, private)
            return self.do_open(Plain, request)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> Any:
            _check_literal(request, private)
            return self.do_open(Encrypted, request, context=ssl.create_default_context())

    opener = urllib.request.OpenerDirector()
    kinds = (
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
    )
    for handler in (urllib.request.ProxyHandler(), Http(), Https(), *(kind() for kind in kinds)):
        opener.add_handler(handler)
    return opener


def _check_literal(request: urllib.request.Request, private: bool) -> None:
    """Refuse a private address that is written as numbers; where a proxy connects, nobody else would."""
    host = (urlsplit(request.full_url).hostname or "").strip("[]")
    with contextlib.suppress(ValueError):
        _check_public(str(ipaddress.ip_address(host)), private)


def _check_public(address: str, private: bool) -> None:
    if not private and not ipaddress.ip_address(address.partition("%")[0]).is_global:
        raise OSError(f"{address} is a private address (--option urls=any asks there too)")


def _connection(private: bool) -> Callable[..., socket.socket]:
    """Connects to the address that was checked, not to one that the name has a moment later; cut off after TIMEOUT_S."""

    def connect(address: tuple[str, int], timeout: float, source: Any = None) -> socket.socket:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        for _, _, _, _, place in found:
            _check_public(str(place[0]), private)
        host, port = found[0][4][:2]
        opened = socket.create_connection((str(host), int(port)), TIMEOUT_S, source)
        end = threading.Timer(TIMEOUT_S, _cut, [opened])  # the timeout of a socket is one of silence
        end.daemon = True
        end.start()
        return opened

    return connect


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # mostly it is closed by now
        connection.shutdown(socket.SHUT_RDWR)


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
