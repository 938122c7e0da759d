"""Whether the Hugging Face hub can be reached, and where its files are kept here."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ENDPOINT = "https://huggingface.co"
OFFLINE_NAMES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
YES = {"1", "ON", "YES", "TRUE"}
TIMEOUT_S = 3.0


@dataclass(frozen=True)
class HubState:
    """`offline` is the variable that says so, or None. `has_token` tells that there is one, never what it is."""

    endpoint: str
    offline: str | None
    reachable: bool
    has_token: bool
    cache: Path


def hub_state(environment: Mapping[str, str], *, ask: bool = True) -> HubState:
    """The hub as this environment sees it; `ask` opens one connection unless it is offline by choice."""
    endpoint = environment.get("HF_ENDPOINT") or ENDPOINT
    home = Path(environment.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(environment.get("HF_HUB_CACHE") or home / "hub")
    offline = next((name for name in OFFLINE_NAMES if environment.get(name, "").upper() in YES), None)
    has_token = bool(environment.get("HF_TOKEN")) or (home / "token").is_file()
    reachable = ask and offline is None and _answers(endpoint)
    return HubState(endpoint, offline, reachable, has_token, cache)


def _answers(endpoint: str) -> bool:
    parts = urlsplit(endpoint)
    if not parts.hostname:
        return False
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname, port), timeout=TIMEOUT_S):
            return True
    except OSError:
        return False
