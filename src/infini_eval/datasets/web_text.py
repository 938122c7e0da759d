"""Text from a web address, with the standard library alone: plain text as it is, HTML without its tags."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from html.parser import HTMLParser
from urllib.parse import urlsplit

Fetch = Callable[[str], str]  # address -> text; raises WebTextError
TIMEOUT_S = 60.0
LARGEST = 64 * 1024**2
_UNSEEN = {"script", "style", "noscript", "template", "head"}
_BREAKS = {"p", "br", "div", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "section", "article", "table"}


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
