"""The model as a server computes with it: what rank 0 decides to compute next, all ranks compute, in the same order.

Rank 0 has the requests. It announces an `Order` for each batch, and for each step of it which rows' answers have ended;
the other ranks (tp, pp) know nothing of requests and texts and follow.
"""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Literal

import numpy as np

from infini_eval.config import Sampling
from infini_eval.distributed.announce import Announcer
from infini_eval.engine.generation import Completion, Limits
from infini_eval.engine.native_model import NativeModel
from infini_eval.engine.prefix_sharing import Prefixes
from infini_eval.engine.prefixes import DIGEST_BYTES, border_digests, digest_at, shared_segments
from infini_eval.engine.scoring import Scored
from infini_eval.errors import NumericsError

RECENT = 64  # prompts that a new one is compared with
Points = list[tuple[int, bytes]]


@dataclass(frozen=True)
class Order:
    """What all ranks compute next.

    answer: continue `rows`, whose draws `names` tell apart, each by at most its number in `counts` and all by at most
    `max_new_tokens`, and keep the states at `points`.
    score: score the last `counts` tokens of each of `rows`, with the `top` most probable ones. idle: nothing for now.
    end: leave.
    """

    kind: Literal["answer", "score", "idle", "end"]
    rows: Sequence[np.ndarray] = ()
    names: Sequence[str] = ()
    sampling: Sampling = field(default_factory=Sampling)
    max_new_tokens: int = 1
    points: Sequence[tuple[int, bytes]] = ()
    counts: Sequence[int] = ()
    top: int = 0

    def packed(self) -> bytes:
        """As bytes: a line of JSON, then the token ids as int32."""
        head = {
            "kind": self.kind,
            "lengths": [len(row) for row in self.rows],
            "names": list(self.names),
            "sampling": asdict(self.sampling),
            "max_new_tokens": self.max_new_tokens,
            "points": [[border, digest.hex()] for border, digest in self.points],
            "counts": list(self.counts),
            "top": self.top,
        }
        ids = b"".join(np.asarray(row, dtype="<i4").tobytes() for row in self.rows)
        return json.dumps(head).encode() + b"\n" + ids

    @classmethod
    def unpacked(cls, told: bytes) -> Order:
        """The order that `packed` wrote."""
        line, _, ids = told.partition(b"\n")
        head = json.loads(line)
        lengths = head.pop("lengths")
        rows = np.split(np.frombuffer(ids, dtype="<i4"), np.cumsum(lengths)[:-1]) if lengths else []
        head["sampling"] = Sampling(**head["sampling"])
        head["points"] = [(border, bytes.fromhex(digest)) for border, digest in head["points"]]
        return cls(rows=rows, **head)


NextOrder = Callable[[], Order | None]
MayEnd = Callable[[int, int, Sequence[int]], bool]  # of a batch's number, a row and its new tokens


class Abandoned(Exception):
    """Nobody waits for what is computed."""


def _never(number: int, row: int, token_ids: Sequence[int]) -> bool:
    return False


class _Ending:
    """Which answers of a batch end: at their own limits, and where rank 0 says so.

    Several ranks hear of that a step later, all rows by one message a step; the token that is too many is left out.
    """

    def __init__(
        self, announcer: Announcer, limits: Sequence[int], may_end: Callable[[int, Sequence[int]], bool]
    ) -> None:
        self._announcer, self._limits, self._may_end = announcer, limits, may_end
        self._step = 0
        self._wanted, self._told = [False] * len(limits), [False] * len(limits)

    def reached(self, row: int, token_ids: Sequence[int]) -> bool:
        """Whether the row's answer ends with its newest token; asked alike on every rank, step by step."""
        if len(token_ids) > self._step:
            self._step = len(token_ids)
            self._told = self._announcer.tell_flags(self._wanted)
        self._wanted[row] = self._may_end(row, token_ids)
        ended = self._wanted if self._announcer.alone else self._told
        return ended[row] or len(token_ids) >= self._limits[row]


class Replica:
    """This rank's part of the model, and the states that it keeps of what requests have in common.

    Args:
        stop_ids: tokens that end an answer.
        vocabulary: number of real tokens.
    """

    def __init__(self, model: NativeModel, announcer: Announcer, stop_ids: frozenset[int], vocabulary: int) -> None:
        self.model, self.announcer = model, announcer
        self.stop_ids, self.vocabulary = stop_ids, vocabulary
        self.segment_length = model.config.segment_length
        self.cache = model.new_prefix_cache()

    def follow(self) -> None:
        """Compute what rank 0 says, until it says that it is over; for the other ranks."""
        while (order := Order.unpacked(self.announcer.tell())).kind != "end":
            if order.kind == "answer":
                for _ in self._run(order, lambda: None, _never):
                    pass
            elif order.kind == "score":
                with contextlib.suppress(NumericsError):  # which rank 0 has met as well
                    self._score(order)

    def tell(self, order: Order) -> None:
        """Announce an order without a computation: idle, end."""
        if not self.announcer.alone:
            self.announcer.tell(order.packed())

    def answer(
        self, first: Order, more: NextOrder, may_end: MayEnd, on_tokens: Callable[[int], None]
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Answer a batch and those that `more` gives, on rank 0; yield each one's number, from 0, and its completions.

        Args:
            more: another batch with the same sampling and limits, None to end; asked when the engine has room.
            may_end: told of each new token of each row; whether the row's answer ends with it.
            on_tokens: called with the tokens of each step; may raise Abandoned. Only where this is the only process:
                others would go on.
        """
        self.tell(first)
        yield from self._run(first, more, may_end, on_tokens if self.announcer.alone else None)

    def score(self, order: Order) -> list[Scored]:
        """Score rows, on rank 0."""
        self.tell(order)
        return self._score(order)

    def forget(self) -> None:
        """Free the states that are kept; for a single process."""
        if self.cache is not None:
            self.cache.clear()

    def _run(
        self, first: Order, more: NextOrder, may_end: MayEnd, on_tokens: Callable[[int], None] | None = None
    ) -> Iterator[tuple[int, list[Completion]]]:
        endings: list[_Ending] = []

        def work() -> Iterator[tuple[int, Sequence[np.ndarray], Sequence[str], Prefixes | None]]:
            order = first
            while order.kind == "answer":
                number = len(endings)
                endings.append(_Ending(self.announcer, order.counts, partial(may_end, number)))
                yield number, order.rows, order.names, self._prefixes(order)
                order = self._next(more)

        def ends(number: int, row: int, token_ids: Sequence[int]) -> bool:
            return endings[number].reached(row, token_ids)

        limits = Limits(first.max_new_tokens, self.stop_ids)
        yield from self.model.run(work(), limits, first.sampling, self.vocabulary, on_tokens, ends)

    def _next(self, more: NextOrder) -> Order:
        order = more() or Order("idle")
        return order if self.announcer.alone else Order.unpacked(self.announcer.tell(order.packed()))

    def _score(self, order: Order) -> list[Scored]:
        cache = self.cache
        return self.model.score(order.rows, order.counts, top=order.top, vocabulary=self.vocabulary, prefix_cache=cache)

    def _prefixes(self, order: Order) -> Prefixes | None:
        if self.cache is None or self.segment_length is None:
            return None
        digests = [border_digests(row, self.segment_length) for row in order.rows]
        return Prefixes(digests, order.points, self.cache)


class PrefixHistory:
    """Which states to keep for requests to come: where a prompt leaves the path of a recent one, and where it ends.

    So a conversation goes on where it stood, and of prompts with a common beginning the second leaves the state from
    which the third starts.
    """

    def __init__(self) -> None:
        self._recent: OrderedDict[bytes, None] = OrderedDict()

    def points(self, digests: Sequence[bytes]) -> Points:
        """The (border, digest) at which the states of prompts with these border digests are kept; remembers them."""
        found: dict[bytes, int] = {}
        for own in digests:
            borders = {max((shared_segments(own, one) for one in self._recent), default=0), len(own) // DIGEST_BYTES}
            found |= {digest_at(own, border): border for border in borders if border}
            self._remember(own)
        return [(border, digest) for digest, border in found.items()]

    def _remember(self, digests: bytes) -> None:
        self._recent[digests] = None
        self._recent.move_to_end(digests)
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)
