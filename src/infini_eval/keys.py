"""Keys of services: read from the environment, sent to the service, and kept out of everything that is written."""

from __future__ import annotations

import os
from collections.abc import Iterable

from infini_eval.errors import BackendError

VARIABLES = ("OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "HF_TOKEN")
HIDDEN = "[key]"
SHORTEST = 8  # shorter values are placeholders such as EMPTY, and would be found in innocent text


def key_from_environment(*variables: str) -> str | None:
    """The first of these variables that is set and not empty."""
    return next((value for name in variables if (value := os.environ.get(name, "").strip())), None)


def require_key(*variables: str, what: str) -> str:
    """The same; a BackendError that names the variables where none is set."""
    key = key_from_environment(*variables)
    if key is None:
        raise BackendError(
            f"{what} needs a key, and the environment has none",
            valid=" or ".join(variables),
            next_step=f"export {variables[0]}=... (a key is read from the environment only and never written)",
        )
    return key


def without_keys(words: Iterable[str]) -> list[str]:
    """The words of a command line with every known key, and whatever follows a flag that ends in `key`, hidden."""
    hidden, after_key_flag = [], False
    for word in words:
        name, equals, _ = word.partition("=")
        is_flag = name.startswith("--") and name.lower().endswith("key")
        hidden.append(HIDDEN if after_key_flag else f"{name}={HIDDEN}" if is_flag and equals else hide_keys(word))
        after_key_flag = is_flag and not equals
    return hidden


def hide_keys(text: str) -> str:
    """The text with the value of every known key variable hidden: services quote keys in their error messages."""
    for name in VARIABLES:
        key = os.environ.get(name, "").strip()
        if len(key) >= SHORTEST:
            text = text.replace(key, HIDDEN)
    return text
