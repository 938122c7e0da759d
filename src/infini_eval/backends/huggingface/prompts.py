"""Prompts for Hugging Face models: the model's own tokenizer, its chat template, and the needle's place among the ids."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from infini_eval.api.backend import WorkItem
from infini_eval.data.passkey import excerpt, needle_position
from infini_eval.data.tokenizer import Tokenizer
from infini_eval.errors import ConfigError, DataError, in_one_line
from infini_eval.packages import broken_import, require
from infini_eval.records import Sample


class HfPrompts:
    """Tokenises as transformers does; nothing is ever cut, whatever the tokenizer's `model_max_length` says.

    Args:
        tokenizer: a fast tokenizer of transformers.
        segment_length: of an Infini model, None for others.
    """

    def __init__(
        self, tokenizer: Any, *, chat_template: Literal["auto", "on", "off"], segment_length: int | None = None
    ) -> None:
        self._segment_length = segment_length
        path = tokenizer.name_or_path
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise DataError(
                f"the tokenizer of {path!r} is a slow one, which cannot say where the needle stands",
                valid="a fast tokenizer, that is a tokenizer.json",
            )
        self._hf = tokenizer
        settings = {"eos_token": self._hf.eos_token, "bos_token": self._hf.bos_token}
        self.tokenizer = Tokenizer(self._hf.backend_tokenizer.to_str(), name=path, settings=settings)
        has_template = self._hf.chat_template is not None
        if chat_template == "on" and not has_template:
            raise ConfigError(f"--chat-template on: the tokenizer of {path!r} has none", valid="auto, off")
        self.chat = has_template and chat_template != "off"

    @property
    def identity(self) -> dict[str, Any]:
        """For the manifest: tokenizer and format of the prompts."""
        return {"tokenizer": self.tokenizer.fingerprint, "chat_template": self._hf.chat_template if self.chat else None}

    def prepare(self, sample: Sample, needle: tuple[int, int] | None) -> WorkItem:
        """Ids [T] of the prompt as the model sees it, and where the needle stands among them."""
        text = self._rendered(sample)
        ids, offsets = self.tokenizer.encode_with_offsets(text, add_special_tokens=not self.chat)
        span = None if needle is None else _moved(needle, sample, text)
        answer = self.tokenizer.encode(sample.answer, add_special_tokens=False) if self._segment_length else ()
        position = needle_position(span, offsets, len(ids), self._segment_length, len(answer))
        return WorkItem(sample, ids, len(ids), position, excerpt(sample.prompt, needle))

    def token_ids(self, sample: Sample) -> np.ndarray:
        """The ids alone [T]."""
        return self.tokenizer.encode(self._rendered(sample), add_special_tokens=not self.chat)

    def _rendered(self, sample: Sample) -> str:
        """The text in the model's format."""
        if not self.chat:
            return sample.prompt
        try:
            text = self._hf.apply_chat_template(sample.messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template refuses in a way of its own; jinja2 may not be there to name it
            if type(error).__module__.partition(".")[0] != "jinja2":
                raise
            roles = ", ".join(message["role"] for message in sample.messages)
            raise DataError(
                f"the chat template of {self._hf.name_or_path!r} refuses a chat of the roles {roles}: {in_one_line(error, 200)}",
                next_step="leave out what it refuses, or send the transcript: --chat-template off",
            ) from None
        return str(text)


def _moved(needle: tuple[int, int], sample: Sample, text: str) -> tuple[int, int] | None:
    """The needle's characters in the rendered text; None where the template rewrites it, or it stands there twice."""
    if text == sample.prompt:
        return needle
    kept = sample.prompt.strip()  # templates strip what they are given
    place = text.find(kept)
    if not sample.turns:
        shift = place - sample.prompt.find(kept)
        return None if place < 0 else (needle[0] + shift, needle[1] + shift)
    words = sample.prompt[slice(*needle)]
    start = text.find(words)
    return (start, start + len(words)) if start >= 0 and text.find(words, start + 1) < 0 else None


def auto_tokenizer(path: str, *, trust_remote_code: bool) -> Any:
    """The tokenizer of a folder or hub id as transformers opens it; DataError where there is no usable one."""
    transformers = require("transformers", extra="transformers", purpose="a Hugging Face tokenizer")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        if (broken := broken_import(error)) is not None:
            raise broken from None
        raise DataError(
            f"no usable tokenizer at {path!r}: {in_one_line(error, 400)}",
            valid="a folder with tokenizer.json, or a hub id that is reachable or cached",
            next_step="pass --tokenizer FOLDER",
        ) from None
    return tokenizer
