"""Texts in and out of the native model: which tokenizer is its own, what ends an answer, and answers as texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelConfig
from infini_eval.data.tokenizer import Tokenizer, load_tokenizer
from infini_eval.engine.generation import Completion
from infini_eval.engine.scoring import Scored
from infini_eval.errors import ConfigError, DataError

OnToken = Callable[[int, Sequence[int]], None]  # number of the prompt, its new tokens so far
# Tokens that may stand between the parts of a stop string without a character of their own; the finished text is
# searched whole, so that these only decide how soon an answer ends.
SILENT_TOKENS = 16


@dataclass(frozen=True)
class TextCompletion:
    """An answer: its text, the tokens that were drawn for it, and why it ended.

    text: ends before the stop string, where one ended it. token_ids: new tokens, those of a stop string included, an end
    token not. finish_reason: "stop" for an end token or a stop string, "length" for the limit. stop: the stop string.
    reused_tokens: tokens of the prompt that were computed for another one. scores: of `token_ids`, where asked for.
    """

    text: str
    token_ids: list[int]
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    reused_tokens: int = 0
    stop: str | None = None
    scores: Scored | None = None


def open_tokenizer(asked: str | None, checkpoint: Checkpoint) -> Tokenizer:
    """Open the one that was asked for and no other; else the configuration's, or the one beside the checkpoint."""
    if asked is not None:
        return load_tokenizer(asked)
    return load_tokenizer(checkpoint.config.tokenizer, checkpoint.folder)


def check_vocabulary(tokenizer: Tokenizer, checkpoint: Checkpoint) -> None:
    """Check that the model has an embedding for every token; DataError otherwise."""
    if tokenizer.vocab_size > checkpoint.config.vocab_size:
        raise DataError(
            f"the tokenizer {tokenizer.name!r} has {tokenizer.vocab_size} tokens, "
            f"the model's vocabulary {checkpoint.config.vocab_size}",
            next_step="pass the tokenizer that the model was trained with: --tokenizer FOLDER",
        )


def end_ids(tokenizer: Tokenizer, config: ModelConfig) -> frozenset[int]:
    """Find the token that ends a text."""
    eos = tokenizer.eos_id  # its own; the configuration's is a copy of another tokenizer's often enough
    eos = config.eos_token_id if eos is None else eos
    return frozenset() if eos is None else frozenset([eos])


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, str | None]:
    """Cut a text before the stop string that begins first (of two that begin there, the first named), and name it."""
    places = [(place, number) for number, one in enumerate(stop) if (place := text.find(one)) >= 0]
    if not places:
        return text, None
    place, number = min(places)
    return text[:place], stop[number]


@dataclass
class TextEnding:
    """Ends each prompt's answer at its stop string or its own limit; depends on tokens only, so all ranks decide alike.

    limits: the most new tokens of each prompt. on_token: told of each token as it comes.
    """

    tokenizer: Tokenizer
    stop: Sequence[str]
    limits: Sequence[int]
    on_token: OnToken | None = None
    _told: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(self.stop):
            raise ConfigError("a stop string is empty", valid="at least one character each")
        longest = max((len(one.encode()) for one in self.stop), default=0)  # a token has at least one byte
        self._window = longest + SILENT_TOKENS

    def may_end(self, prompt: int, token_ids: Sequence[int]) -> bool:
        """Take the newest token of a prompt's answer; whether the answer ends with it."""
        self._tell(prompt, token_ids)
        if len(token_ids) >= self.limits[prompt]:
            return True
        return bool(self.stop) and self._has_stop(token_ids[-self._window :])

    def completion(self, prompt: int, found: Completion, prompt_tokens: int) -> TextCompletion:
        """Make an answer of a prompt's tokens, and tell of those that were not told."""
        self._tell(prompt, found.token_ids)
        text, stop = cut_at_stop(self.tokenizer.decode(found.token_ids), self.stop)
        finish: Literal["stop", "length"] = "stop" if stop is not None or found.finish == "stop" else "length"
        return TextCompletion(text, found.token_ids, finish, prompt_tokens, found.reused_tokens, stop)

    def _has_stop(self, token_ids: Sequence[int]) -> bool:
        text = self.tokenizer.decode(token_ids)
        return any(one in text for one in self.stop)

    def _tell(self, prompt: int, token_ids: Sequence[int]) -> None:
        if self.on_token is not None and len(token_ids) > self._told.get(prompt, 0):
            self._told[prompt] = len(token_ids)
            self.on_token(prompt, token_ids)
