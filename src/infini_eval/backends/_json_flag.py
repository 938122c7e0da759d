"""Flags whose value is a JSON object: read once, with one message where it is none."""

from __future__ import annotations

import json
from typing import Any

from infini_eval.errors import ConfigError


def json_object(flag: str, text: str | None, example: str) -> dict[str, Any]:
    """The object that `text` holds, empty for None; ConfigError where it holds none."""
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{flag} {text!r} is not JSON: {error}", valid=example) from None
    if not isinstance(value, dict):
        raise ConfigError(f"{flag} {text!r} is not a JSON object", valid=example)
    return value
