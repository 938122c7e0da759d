"""Foreign text made harmless for a page: cut, control characters shown as codes, everything escaped."""

from __future__ import annotations

import html

LIMIT = 600
_MAX_SCANNED = 20_000


def text(value: object, limit: int = LIMIT) -> str:
    """Any value as safe HTML text of at most `limit` characters (plus a note of how many were left out)."""
    whole = "" if value is None else str(value)
    shown = "".join(_visible(c) for c in whole[:limit])
    more = f" … ({len(whole) - limit:,} more characters)" if len(whole) > limit else ""
    return html.escape(shown + more, quote=True)


def marked(value: str | None, word: str | None, limit: int = LIMIT) -> str:
    """Safe HTML of `value` around the first place of `word`, every occurrence of which is marked."""
    whole = (value or "")[:_MAX_SCANNED]
    if not word or word not in whole:
        return text(whole, limit)
    start = max(0, whole.index(word) - limit // 2)
    piece = whole[start : start + limit]
    parts = (text(part, limit) for part in piece.split(word))
    before, after = "… " * (start > 0), " …" * (start + limit < len(whole))
    return before + f"<mark>{text(word)}</mark>".join(parts) + after


def _visible(c: str) -> str:
    if c.isprintable() or c in "\n\t":
        return c
    return f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}"
