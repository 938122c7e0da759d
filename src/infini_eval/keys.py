"""Keys of services: read from the environment, sent to the service, and kept out of everything that is written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from infini_eval.errors import BackendError
from infini_eval.foreign import visible

VARIABLES = ("OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "HF_TOKEN")  # those that are read
HIDDEN = "[key]"
SECRET = re.compile(r"(?:key|token|secret|password|passwd|credentials?)$", re.IGNORECASE)  # variables that hold one
SECRET_FIELD = re.compile(
    r"(?:key|secret|password|authorization|cookie|credentials?|(?:api|auth|access|session|bearer)[-_]?token)$|^token$",
    re.IGNORECASE,
)  # of a JSON object; an eos_token is none
IN_ADDRESS = re.compile(r"://[^/@\s:]*:([^/@\s]+)@")  # http://name:password@host
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
    """The text with every known key hidden by its value: services quote keys in their error messages.

    Known are the values of variables whose names say that they are secret, passwords in addresses that the environment
    holds, and what `remember_keys` was given.
    """
    return hider()(text)


def hider() -> Callable[[str], str]:
    """`hide_keys` for many texts: the keys are those that are known now."""
    known = _known()

    def hide(text: str) -> str:
        for key in known:
            text = text.replace(key, HIDDEN)
        return text

    return hide


def remember_keys(settings: Mapping[str, Any]) -> None:
    """Hide from now on what a JSON object, such as --request-extra's, holds under the names of keys."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            remember_keys(value)
        elif isinstance(value, str) and SECRET_FIELD.search(name):
            _remembered.update(word for word in (value, *value.split()) if len(word) >= SHORTEST)


def safe_to_show(text: str) -> str:
    """What goes to a log or a terminal: without keys, and with nothing in it that acts on a terminal."""
    return visible(hide_keys(text))


_remembered: set[str] = set()


def _known() -> list[str]:
    """Every key, the longest first: one may be a part of another; with quotes in it also as JSON writes it."""
    found = set(_remembered)
    for name, value in os.environ.items():
        if SECRET.search(name):
            found.add(value.strip())
        elif "@" in value:
            found.update(IN_ADDRESS.findall(value))
    found |= {json.dumps(key)[1:-1] for key in found}
    return sorted((key for key in found if len(key) >= SHORTEST), key=len, reverse=True)
