"""The running interpreter's own documentation as haystack text: language topics and standard-library docstrings."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator

MODULES = tuple(
    """argparse ast asyncio bisect calendar cmd codecs collections configparser contextlib copy csv dataclasses datetime
    decimal difflib dis email enum fileinput fractions ftplib functools gettext glob gzip hashlib heapq html http.client
    http.cookiejar http.server imaplib inspect io ipaddress itertools json locale logging lzma mailbox math mimetypes
    multiprocessing netrc numbers operator optparse os pathlib pdb pickle pkgutil platform plistlib poplib pprint
    profile queue random re sched secrets selectors shelve shlex shutil signal smtplib socket socketserver sqlite3 ssl
    statistics string subprocess symtable tarfile tempfile textwrap threading timeit tokenize trace traceback types
    typing unittest unittest.mock urllib.parse urllib.request uuid warnings wave weakref webbrowser xml.dom.minidom
    xml.etree.ElementTree zipfile zoneinfo""".split()
)
SHORTEST = 120  # characters; shorter docstrings are signatures, not prose


def texts() -> Iterator[str]:
    """Each text once, runs of blanks and ruled lines taken out."""
    seen: set[str] = set()
    for text in _raw():
        text = re.sub(r"[ \t]+", " ", re.sub(r"[-=*~^+.#]{4,}", "", text)).strip()
        if len(text) >= SHORTEST and text not in seen:
            seen.add(text)
            yield text


def _raw() -> Iterator[str]:
    import pydoc_data.topics

    for _, topic in sorted(pydoc_data.topics.topics.items()):
        yield topic
    for name in MODULES:
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
