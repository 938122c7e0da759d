"""The text of an answer while its tokens come: what is certain of it, and where a stop string ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from infini_eval.api.backend import UNFINISHED
from infini_eval.data.tokenizer import Tokenizer


class AnswerText:
    """Text of tokens given one by one; holds back half a character and what may become a stop string.

    `token_ids`: those that were given. `offsets`: where each one's text begins. `stopped`: a stop string has come; the
    text ends before it.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self.token_ids: list[int] = []
        self._window, self._decoded = 0, 0  # ids that give the next one its context; ids whose text is known
        self._text = ""
        self._sent = 0
        self.offsets: list[int] = []
        self.stopped = False

    def __len__(self) -> int:
        return len(self.token_ids)

    def add(self, token_id: int) -> None:
        """Take the next token; none after a stop string."""
        self.offsets.append(len(self._text))
        self.token_ids.append(token_id)
        piece = self._undecoded()
        if piece and not piece.endswith(UNFINISHED):
            self._window, self._decoded = self._decoded, len(self.token_ids)
            self._append(piece)

    def new_part(self) -> str:
        """Take what is certain and has not been taken yet."""
        end = len(self._text) if self.stopped else len(self._text) - self._held_back()
        part = self._text[self._sent : end]
        self._sent = max(self._sent, end)
        return part

    def end(self) -> str:
        """No token comes any more: the whole text, which `new_part` gives the rest of."""
        if not self.stopped and self._decoded < len(self.token_ids):
            self._append(self._undecoded())
            self._decoded = len(self.token_ids)
        self._stops = ()
        return self._text

    @property
    def kept(self) -> int:
        """How many tokens the text is made of; those of a stop string are left out."""
        return sum(offset < len(self._text) for offset in self.offsets) if self.stopped else len(self.token_ids)

    def _undecoded(self) -> str:
        context = self._tokenizer.decode(self.token_ids[self._window : self._decoded])
        return self._tokenizer.decode(self.token_ids[self._window :])[len(context) :]

    def _append(self, piece: str) -> None:
        longest = max(map(len, self._stops), default=0)
        start = max(0, len(self._text) - longest + 1)
        self._text += piece
        found = [place for stop in self._stops if (place := self._text.find(stop, start)) >= 0]
        if found:
            self._text, self.stopped = self._text[: min(found)], True

    def _held_back(self) -> int:
        """The characters at the end with which a stop string may begin."""
        return max(
            (size for stop in self._stops for size in range(1, len(stop)) if self._text.endswith(stop[:size])),
            default=0,
        )


def token_texts(tokenizer: Tokenizer) -> Callable[[int], str]:
    """How tokens are written where they are told one by one: their text, or their spelling where that is half a character."""
    before = tokenizer.encode("a", add_special_tokens=False).tolist()
    start = len(tokenizer.decode(before))

    @lru_cache(maxsize=65_536)
    def text(token_id: int) -> str:
        # behind another token, since some decoders drop a blank at the beginning
        found = tokenizer.decode([*before, token_id], skip_special_tokens=False)[start:]
        return (tokenizer.fast.id_to_token(token_id) or found) if UNFINISHED in found else found

    return text
