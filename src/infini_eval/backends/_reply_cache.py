"""Replies on disk, addressed by what was asked: a request that was answered is never paid for again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from infini_eval.results.files import write_json

logger = logging.getLogger(__name__)
OFF = "off"
VERSION = 1


@dataclass(frozen=True)
class Reply:
    """What a server answered. `prompt_tokens` is what it says it has read (None where it does not say)."""

    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int | None
    details: Mapping[str, Any] = field(default_factory=dict)


class ReplyCache:
    """One JSON file a reply, named by the sha256 of the request; prompts and keys are in neither name nor content.

    `folder` None keeps nothing. `reading` False only writes: --overwrite asks anew.
    """

    def __init__(self, folder: Path | None, *, reading: bool = True) -> None:
        self._folder, self._reading = folder, reading

    def get(self, request: Mapping[str, Any]) -> Reply | None:
        """The reply to such a request; None where there is none, or its file cannot be used."""
        path = self._path(request)
        if path is None or not self._reading or not path.is_file():
            return None
        try:
            return Reply(**json.loads(path.read_bytes())["reply"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s is not usable (%s): asking again", path, error)
            return None

    def put(self, request: Mapping[str, Any], reply: Reply) -> None:
        """Keep a reply."""
        path = self._path(request)
        if path is not None:
            write_json(path, {"version": VERSION, "reply": asdict(reply)})

    def _path(self, request: Mapping[str, Any]) -> Path | None:
        if self._folder is None:
            return None
        name = hashlib.sha256(json.dumps([VERSION, request], sort_keys=True).encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.json"


def open_cache(asked: str | None, save_path: str, overwrite: bool) -> ReplyCache:
    """The cache of a run: the folder asked for, "off", or `replies` in the run folder."""
    if asked == OFF:
        return ReplyCache(None)
    return ReplyCache(Path(asked) if asked else Path(save_path) / "replies", reading=not overwrite)
