"""What the backends that ask a server share: prompts as text, requests in parallel, retries, the reply cache, truncation."""

from __future__ import annotations

import hashlib
import json
import logging
import queue
import random
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from infini_eval.api.backend import Backend, Batch, BatchPlan, EarlyStop, Rows, WorkItem, no_ids
from infini_eval.config import EvalConfig, PromptSettings, RequestSettings
from infini_eval.data.passkey import excerpt, needle_position
from infini_eval.data.tokenizer import Tokenizer, load_tokenizer
from infini_eval.distributed.launch import World
from infini_eval.errors import BackendError, ConfigError
from infini_eval.keys import hide_keys
from infini_eval.records import NeedlePosition, Response, Sample
from infini_eval.results.files import write_json

logger = logging.getLogger(__name__)
Answered = tuple[Batch, list[Response]]
MOST_CHARS_PER_TOKEN = 10  # ordinary text has 2 to 5, boilerplate up to 7: beyond, something was cut
EXAMPLE = '{"reasoning_effort": "low"}'
NO_TOKENIZER = (
    "without --tokenizer the prompts' tokens are not known here: truncation by the server is noticed only where it cuts "
    "more than about half, and needle positions are not recorded in tokens"
)


class Remote(Backend):
    """A model behind a server. A backend's file says what a request is (`request`) and how it is sent (`ask`)."""

    settings = (PromptSettings, RequestSettings)
    service: str

    def __init__(self, config: EvalConfig, world: World) -> None:
        super().__init__(config, world)
        self._settings = config.settings(RequestSettings)
        self.tokenizer: Tokenizer | None = load_tokenizer(config.tokenizer) if config.tokenizer else None
        self.extra = json_object("--request-extra", self._settings.extra, EXAMPLE)
        self.notes = [] if self.tokenizer else [NO_TOKENIZER]
        self._cache = open_cache(self._settings.replies, config.save_path, config.overwrite)
        self._retry = Retry(self._settings.attempts, lambda: world.stop.requested)

    @abstractmethod
    def request(self, sample: Sample, seed: int) -> dict[str, Any]:
        """Everything that decides the answer to a sample, as JSON: the key of the reply cache."""

    @abstractmethod
    def ask(self, request: Mapping[str, Any]) -> Reply:
        """Send a request once. Raises TryAgain, SampleFailed, or BackendError where every other request would fail too."""

    def model_facts(self) -> Mapping[str, Any]:
        """A server says little about its model."""
        return {**super().model_facts(), "kind": "served"}

    def identity(self) -> Mapping[str, Any]:
        return {
            "model": {"name": self._config.model_path, "service": self.service},
            "tokenizer": self.tokenizer.fingerprint if self.tokenizer else None,
            "request_extra": self.extra,
            "sampling": asdict(self._config.sampling),
        }

    def environment(self) -> Mapping[str, Any]:
        return {
            **super().environment(),
            "tokenizer": self._config.tokenizer,
            "base_url": self._settings.base_url,
            "concurrency": self._settings.concurrency,
            "request_timeout_s": self._settings.timeout_s,
        }

    def prepare(self, sample: Sample, needle: tuple[int, int] | None) -> WorkItem:
        if self.tokenizer is None:
            return WorkItem(sample, no_ids(), 0, NeedlePosition(None, None), excerpt(sample.prompt, needle))
        ids, offsets = self.tokenizer.encode_with_offsets(sample.prompt)
        position = needle_position(needle, offsets, len(ids), None, 0)
        return WorkItem(sample, no_ids(), len(ids), position, excerpt(sample.prompt, needle))

    def plan(self, items: Sequence[WorkItem], largest: int | None = None) -> BatchPlan:
        """One sample a batch, the longest first: the server batches as it likes."""
        batches = [Batch((row,), len(item.sample.prompt)) for row, item in enumerate(items)]
        return BatchPlan(sorted(batches, key=lambda batch: (-batch.cost, batch.rows)))

    @abstractmethod
    def load(self, plan: BatchPlan) -> None:
        """Make the client, and find out at once where no server answers."""

    def answer(
        self,
        work: Iterator[tuple[Batch, Rows]],
        *,
        early_stop: EarlyStop | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[Answered]:
        """Batches as they are answered, `concurrency` in flight.

        The threads are daemons: a run that ends early does not wait for a prefill of minutes.
        """
        finished: queue.SimpleQueue[Answered | BaseException] = queue.SimpleQueue()
        in_flight, more = 0, True
        while more or in_flight:
            while more and in_flight < self._settings.concurrency:
                item = next(work, None)
                more = item is not None
                if item is not None:
                    threading.Thread(target=self._work, args=(*item, finished), daemon=True).start()
                    in_flight += 1
            if in_flight:
                outcome = finished.get()
                in_flight -= 1
                if isinstance(outcome, BaseException):
                    raise outcome
                yield outcome
                if on_tokens is not None:
                    on_tokens(sum(response.prompt_tokens for response in outcome[1]))

    def _work(self, batch: Batch, rows: Rows, finished: queue.SimpleQueue[Answered | BaseException]) -> None:
        try:
            finished.put((batch, [self._answer_row(rows[row], row) for row in batch.rows]))
        except BaseException as error:  # it is raised again in the main thread
            finished.put(error)

    def _answer_row(self, prepared: WorkItem, row: int) -> Response:
        began = time.perf_counter()
        request = self.request(prepared.sample, self._config.sampling.seed + row)
        reply = self._cache.get(request)
        if reply is not None and self._truncation(prepared, reply):
            reply = None  # kept when no tokenizer was given to find out with
        details: dict[str, Any] = {"cached_reply": reply is not None}
        if reply is None:
            try:
                reply, details["attempts"] = self._asked(request, prepared)
            except SampleFailed as problem:
                seconds = time.perf_counter() - began
                return Response("", [], prepared.tokens, "error", seconds, hide_keys(str(problem)))
        return self._response(prepared, reply, details, time.perf_counter() - began)

    def _asked(self, request: Mapping[str, Any], prepared: WorkItem) -> tuple[Reply, int]:
        """The server's reply, checked and kept, and the attempts that it took."""
        reply, attempts = self._retry(lambda: self.ask(request))
        reply = replace(reply, text=hide_keys(reply.text))
        truncation = self._truncation(prepared, reply)
        if truncation:
            raise SampleFailed(truncation)
        self._cache.put(request, reply)
        return reply, attempts

    def _response(self, prepared: WorkItem, reply: Reply, details: Mapping[str, Any], seconds: float) -> Response:
        ids = [] if self.tokenizer is None else self.tokenizer.encode(reply.text, add_special_tokens=False).tolist()
        read = prepared.tokens if reply.prompt_tokens is None else reply.prompt_tokens
        return Response(reply.text, ids, read, reply.finish_reason, seconds, details={**reply.details, **details})

    def _truncation(self, prepared: WorkItem, reply: Reply) -> str | None:
        """Why this reply must not be judged: the server has read less than it was sent. None where it has read all."""
        read = reply.prompt_tokens
        if read is None:
            return None
        if self.tokenizer is None:
            characters = len(prepared.sample.prompt)
            if read * MOST_CHARS_PER_TOKEN >= characters:
                return None
            return f"truncated: the server read {read:,} tokens of a prompt of {characters:,} characters"
        specials = len(self.tokenizer.special_prefix) + len(self.tokenizer.special_suffix)
        if read >= prepared.tokens - specials:
            return None
        counted = f"{prepared.tokens:,} prompt tokens (as --tokenizer {self.tokenizer.name} counts them)"
        return f"truncated: the server read {read:,} of {counted}"


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


Answer = TypeVar("Answer")

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
LONGEST_ASKED_DELAY_S = 600.0  # what a server may ask for with Retry-After
PAUSE_S = 0.1
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
REFUSED = {401: "the key was refused", 403: "access was refused", 404: "the model or the address does not exist"}


class TryAgain(Exception):
    """This attempt failed for a reason that may pass. `after_s`: what the server asks us to wait.

    `unreachable`: no connection could be made; after the last attempt that is the run's failure, not the sample's.
    """

    def __init__(self, reason: str, after_s: float | None = None, *, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.after_s, self.unreachable = after_s, unreachable


class SampleFailed(Exception):
    """This sample cannot be answered now; asking again would cost much or change nothing."""


@dataclass(frozen=True)
class Retry:
    """A policy: `attempts` tries in all; `stopping` ends the waiting early."""

    attempts: int
    stopping: Callable[[], bool] = lambda: False

    def __call__(self, ask: Callable[[], Answer]) -> tuple[Answer, int]:
        """The answer and the number of attempts that it took; SampleFailed, or BackendError for an unreachable server."""
        for attempt in range(1, self.attempts + 1):
            try:
                return ask(), attempt
            except TryAgain as problem:
                if attempt == self.attempts or self.stopping():
                    raise _given_up(problem, attempt) from None
                delay = delay_s(attempt, problem.after_s)
                logger.warning("%s; attempt %d of %d in %.1f s", problem, attempt + 1, self.attempts, delay)
                self._wait(delay)
        raise AssertionError("attempts is at least 1")

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.stopping() and (left := end - time.monotonic()) > 0:
            time.sleep(min(PAUSE_S, left))


def delay_s(attempt: int, asked_s: float | None = None) -> float:
    """Seconds before the next attempt: as the server asks, else doubling; spread, so that requests do not return at once."""
    if asked_s is not None:
        return min(max(asked_s, 0.0), LONGEST_ASKED_DELAY_S) + random.uniform(0, FIRST_DELAY_S)
    return min(FIRST_DELAY_S * 2.0 ** (attempt - 1), LONGEST_DELAY_S) * random.uniform(0.5, 1.0)


def refused(status: int, message: str, valid: str | None = None) -> BackendError:
    """The one clear error for a refusal that every other sample would get too."""
    return BackendError(
        f"{REFUSED.get(status, 'the request was refused')} (status {status}): {message}",
        valid=valid,
        next_step="mend this and run the same command again: it continues where it stopped",
    )


def _given_up(problem: TryAgain, attempts: int) -> Exception:
    times = "once" if attempts == 1 else f"{attempts} times"
    if problem.unreachable:
        return BackendError(
            f"{problem}; tried {times}",
            next_step="start the server or mend --base-url, then run the same command again: it continues",
        )
    return SampleFailed(f"{problem}; tried {times}")


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
