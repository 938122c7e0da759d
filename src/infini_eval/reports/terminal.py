"""What a terminal may be given: no control characters, and only ASCII where it cannot show more."""

from __future__ import annotations

import os
import sys

_ASCII = str.maketrans({"█": "#", "✓": "+", "⚠": "!", "✗": "x", "—": "-", "≥": ">=", "≤": "<="})


def terminal_shows_bars() -> bool:
    """Whether standard output can show the bars and marks; if not, ask for ASCII."""
    if os.environ.get("TERM") == "dumb":
        return False
    try:
        "█✓⚠✗".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def plain_text(text: str, ascii_only: bool) -> str:
    """The text without control characters (they may come from foreign files), and as ASCII where asked."""
    text = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
    return text.translate(_ASCII).encode("ascii", "replace").decode() if ascii_only else text
