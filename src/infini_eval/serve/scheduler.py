"""Requests on their way to the engine: a bounded queue, batches of what can be computed together, reports as tokens come.

Web threads submit jobs; the engine's thread computes them (`work`) and reports to each. While a batch computes, others
wait, and those that have come meanwhile make the next ones.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, count

import numpy as np
import torch

from infini_eval.config import Sampling
from infini_eval.data.tokenizer import Tokenizer
from infini_eval.engine.batching import plan_batches
from infini_eval.engine.generation import Completion
from infini_eval.engine.prefixes import border_digests
from infini_eval.engine.scoring import Scored
from infini_eval.errors import NumericsError, OutOfMemory, first_sentence
from infini_eval.serve.replica import Abandoned, Order, PrefixHistory, Replica
from infini_eval.serve.text import AnswerText

logger = logging.getLogger(__name__)
BAD_LOGITS = "the model's logits became NaN or infinite for this prompt"


@dataclass(frozen=True)
class TokenScore:
    """A token, the logarithm of its probability (None where nothing stands before it), and the likeliest in its place."""

    token_id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Part:
    """More text of an answer."""

    text: str


@dataclass(frozen=True)
class Answer:
    """An answer that has ended. `scores`: of its tokens, `prompt_scores` of the prompt's; None where not asked for."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    new_tokens: int
    reused_tokens: int
    scores: tuple[TokenScore, ...] | None = None
    prompt_scores: tuple[TokenScore, ...] | None = None


@dataclass(frozen=True)
class Failure:
    """Why there is no answer: an HTTP status and a message."""

    status: int
    message: str
    code: str


Report = Part | Answer | Failure


@dataclass(eq=False)
class Job:
    """One prompt to continue.

    ids: int32 [T]. name: tells its draws from those of others with the same seed. top: log-probabilities are wanted, with
    so many likeliest tokens; None: none. echo: those of the prompt as well. streams: parts are reported as they come.
    report: called from the engine's thread.
    """

    ids: np.ndarray
    name: str
    sampling: Sampling
    max_new_tokens: int
    stops: tuple[str, ...]
    report: Callable[[Job, Report], None]
    top: int | None = None
    echo: bool = False
    streams: bool = False
    digests: bytes = b""
    cancelled: bool = False
    alone: bool = False  # computed without others, as memory ran out with them
    text: AnswerText | None = field(default=None, repr=False)
    ended: str = ""  # the finish reason, once the answer is there
    reused_tokens: int = 0

    @property
    def room(self) -> int:
        """New tokens that the engine makes room for: jobs of one power of two go together."""
        return 1 << (self.max_new_tokens - 1).bit_length()

    @property
    def peeks(self) -> bool:
        """Whether scoring the prompt also gives the answer: the likeliest next token."""
        greedy = self.max_new_tokens == 1 and self.sampling.temperature == 0 and not self.stops
        return self.echo and self.top is not None and greedy

    @property
    def group(self) -> tuple[object, ...]:
        """What jobs must have in common to be computed together."""
        scores = bool(self.ended) or self.max_new_tokens == 0 or self.peeks
        return ("score",) if scores else ("answer", self.sampling, self.room)

    def follow(self, token_ids: Sequence[int]) -> bool:
        """Take the new tokens so far, of which those after the answer's end are left out; whether it may end here."""
        assert self.text is not None
        for token_id in token_ids[len(self.text) : self.max_new_tokens]:
            if not self.text.stopped:
                self.text.add(token_id)
        if self.streams and (part := self.text.new_part()):
            self.report(self, Part(part))
        return self.cancelled or self.text.stopped


class QueueFull(Exception):
    """More would have to wait than may."""


class Closed(Exception):
    """The server is stopping."""


class Scheduler:
    """The queue between the web and the engine.

    Args:
        tokenizer: gives answers their text.
        max_batch, max_queue: prompts computed together, and prompts that wait.
    """

    def __init__(self, replica: Replica, tokenizer: Tokenizer, *, max_batch: int, max_queue: int) -> None:
        self._replica, self._tokenizer = replica, tokenizer
        self.max_batch, self.max_queue = max_batch, max_queue
        self._waiting: deque[Job] = deque()
        self._in_hand: dict[int, list[Job]] = {}  # by the numbers of their batches in a run of the engine
        self._history = PrefixHistory()
        self._changed = threading.Condition()
        self._closed = False

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue jobs, all or none; QueueFull, or Closed. From any thread."""
        length = self._replica.segment_length
        for job in jobs:
            job.digests = border_digests(job.ids, length) if length else b""
        with self._changed:
            if self._closed:
                raise Closed
            if len(self._waiting) + len(jobs) > self.max_queue:
                raise QueueFull
            self._waiting.extend(jobs)
            self._changed.notify_all()

    def close(self) -> None:
        """Take no more; `work` ends when what is queued is done. From any thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def fail_all(self, message: str) -> None:
        """Take no more, and give up everything that is queued or in hand. From any thread."""
        self.close()
        with self._changed:
            left = [*self._waiting, *chain.from_iterable(self._in_hand.values())]
            self._waiting.clear()
        for job in left:
            _fail(job, Failure(503, message, "server_stopping"))

    @property
    def waiting(self) -> int:
        """How many prompts wait."""
        return len(self._waiting)

    def work(self) -> None:
        """Compute until closed and done; on rank 0, in the thread of the engine."""
        while self._wait():
            jobs = self._take()
            try:
                if jobs and jobs[0].group == ("score",):
                    self._score(jobs)
                elif jobs:
                    self._answer(jobs)
            except Abandoned:
                self._in_hand.clear()
            except torch.OutOfMemoryError as error:
                if not self._replica.announcer.alone:  # the peers have gone on with this batch
                    raise OutOfMemory(
                        f"out of memory: {first_sentence(error)}",
                        next_step="use a smaller --max-batch or --max-prompt-tokens, or more --tp or --pp",
                    ) from error
                self._try_each_alone(error)

    def _wait(self) -> bool:
        """Wait for work; False when none comes any more."""
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._waiting or self._closed, self._replica.announcer.idle_s):
                    return bool(self._waiting)
            self._replica.tell(Order("idle"))

    def _take(self, like: tuple[object, ...] | None = None) -> list[Job]:
        """The oldest job and what goes with it into one batch.

        Args:
            like: the group that it must be of, where a batch is to follow another.
        """
        with self._changed:
            self._waiting = deque(job for job in self._waiting if not job.cancelled)
            if not self._waiting or like not in (None, self._waiting[0].group):
                return []
            chosen = self._batch_of(self._waiting[0])
            self._waiting = deque(job for job in self._waiting if job not in chosen)
            return chosen

    def _batch_of(self, oldest: Job) -> list[Job]:
        """What is computed together with a job: plans of the engine need prompts of as many whole segments."""
        if oldest.alone:
            return [oldest]
        jobs = [job for job in self._waiting if job.group == oldest.group and not job.alone]
        if oldest.group == ("score",):  # the engine itself deals these into batches
            return jobs[: self.max_batch]
        lengths, digests = [len(job.ids) for job in jobs], [job.digests for job in jobs]
        shared = digests if self._replica.cache is not None else None
        plan = plan_batches(lengths, self._replica.segment_length, largest=self.max_batch, prefixes=shared)
        rows = next(batch.rows for batch in plan if 0 in batch.rows)
        return [jobs[row] for row in rows]

    def _answer(self, jobs: list[Job]) -> None:
        """Answer a batch, and those of its group that have come meanwhile."""
        group, numbers = jobs[0].group, count(1)

        def more() -> Order | None:
            following = self._take(group)
            return self._order(next(numbers), following) if following else None

        def may_end(number: int, row: int, token_ids: Sequence[int]) -> bool:
            return self._in_hand[number][row].follow(token_ids)

        for number, completions in self._replica.answer(self._order(0, jobs), more, may_end, self._check_wanted):
            for job, completion in zip(self._in_hand.pop(number), completions, strict=True):
                self._settle(job, completion)

    def _order(self, number: int, jobs: list[Job]) -> Order:
        self._in_hand[number] = jobs
        for job in jobs:
            job.text = AnswerText(self._tokenizer, job.stops)
        points = self._history.points([job.digests for job in jobs]) if self._replica.cache is not None else []
        return Order(
            "answer",
            rows=[job.ids for job in jobs],
            names=[job.name for job in jobs],
            sampling=jobs[0].sampling,
            max_new_tokens=jobs[0].room,
            points=points,
            counts=[job.max_new_tokens for job in jobs],
        )

    def _check_wanted(self, tokens: int) -> None:
        """Stop computing what nobody waits for, between two steps of a long prompt."""
        if all(job.cancelled for job in chain.from_iterable(self._in_hand.values())):
            raise Abandoned

    def _settle(self, job: Job, completion: Completion) -> None:
        """The answer is there: report it, or have its tokens scored first."""
        assert job.text is not None
        job.follow(completion.token_ids)
        if completion.finish == "bad_logits" and not job.text.stopped:  # what comes after a stop string is nobody's
            _fail(job, Failure(500, BAD_LOGITS, "bad_logits"))
            return
        job.text.end()
        job.reused_tokens = completion.reused_tokens
        job.ended = "stop" if job.text.stopped or completion.finish == "stop" else "length"
        if job.top is None:
            self._report(job)
            return
        with self._changed:
            self._waiting.appendleft(job)  # to be scored

    def _report(self, job: Job, scores: Sequence[TokenScore] = ()) -> None:
        """Give an answer with all that was asked for to who asked.

        Args:
            scores: of the tokens from the prompt's first one on where it is echoed, else from the answer's first.
        """
        assert job.text is not None
        text = job.text.end()
        if job.streams and (part := job.text.new_part()):
            job.report(job, Part(part))
        prompt = len(job.ids) if job.echo else 0
        token_ids = tuple(job.text.token_ids[: job.text.kept])
        given = {} if job.top is None else {"prompt_scores": tuple(scores[:prompt]), "scores": tuple(scores[prompt:])}
        job.report(job, Answer(text, token_ids, job.ended, len(job.text), job.reused_tokens, **given))

    def _score(self, jobs: list[Job]) -> None:
        """Score prompts and answers, and report the answers."""
        self._in_hand[0] = jobs
        for job in jobs:
            job.text, job.ended = job.text or AnswerText(self._tokenizer), job.ended or "length"
        measured = [job for job in jobs if job.top is not None and _count(job)]
        for job in jobs:
            if job not in measured:
                self._report(job, [TokenScore(int(job.ids[0]), None)] if job.top is not None and job.echo else [])
        for job, scored in zip(measured, self._scored(measured), strict=True):
            if scored is None:
                _fail(job, Failure(500, BAD_LOGITS, "bad_logits"))
            else:
                self._report(job, self._token_scores(job, scored))
        del self._in_hand[0]

    def _scored(self, jobs: list[Job]) -> list[Scored | None]:
        """Scores of each job's row; None for one whose logits became NaN, which the others do not suffer from."""
        if not jobs:
            return []
        top = max(max(job.top or 0, job.peeks) for job in jobs)
        order = Order("score", [_row(job) for job in jobs], counts=[_count(job) for job in jobs], top=top)
        try:
            return list(self._replica.score(order))
        except NumericsError:
            return [None] if len(jobs) == 1 else list(chain.from_iterable(self._scored([job]) for job in jobs))

    def _token_scores(self, job: Job, scored: Scored) -> list[TokenScore]:
        """What is told of each token; where the answer was only peeked at, it is taken from here."""
        assert job.text is not None and job.top is not None
        row = _row(job)
        first = len(row) - len(scored.logprobs)
        scores = [TokenScore(int(row[0]), None)] if job.echo else []
        for place, (token_id, logprob) in enumerate(zip(row[first:].tolist(), scored.logprobs.tolist(), strict=True)):
            likeliest = _likeliest(scored, place)
            if job.peeks and first + place == len(job.ids):
                token_id, logprob = likeliest[0]
                if token_id in self._replica.stop_ids:
                    job.ended = "stop"
                    continue
                job.text.add(token_id)
            top = likeliest[: job.top]
            if job.top and token_id not in dict(top):
                top = (*top, (token_id, logprob))
            scores.append(TokenScore(token_id, logprob, top))
        return scores

    def _try_each_alone(self, error: torch.OutOfMemoryError) -> None:
        """After memory ran out: without kept states, each job by itself; one that was by itself fails."""
        self._replica.forget()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        jobs = list(chain.from_iterable(self._in_hand.values()))
        self._in_hand.clear()
        logger.warning("out of memory with %d prompts of up to %d tokens", len(jobs), max(len(job.ids) for job in jobs))
        again = [job for job in jobs if not job.alone and not (job.streams and job.text)]
        for job in jobs:
            if job not in again:
                message = f"out of memory with a prompt of {len(job.ids):,} tokens: {first_sentence(error)}"
                _fail(job, Failure(503, message, "out_of_memory"))
            job.alone = True
        with self._changed:
            self._waiting.extendleft(reversed(again))


def _row(job: Job) -> np.ndarray:
    """The tokens that are scored or read before: prompt and answer, or any token in place of one that is peeked at."""
    assert job.text is not None
    answer = [0] if job.peeks else job.text.token_ids[: job.text.kept]
    return np.concatenate([job.ids, np.asarray(answer, dtype=job.ids.dtype)])


def _count(job: Job) -> int:
    """How many tokens at the end of the row are scored: nothing stands before the first one of all."""
    return len(_row(job)) - (1 if job.echo else len(job.ids))


def _likeliest(scored: Scored, place: int) -> tuple[tuple[int, float], ...]:
    if scored.top_ids is None or scored.top_logprobs is None:
        return ()
    return tuple(zip(scored.top_ids[place].tolist(), scored.top_logprobs[place].tolist(), strict=True))


def _fail(job: Job, failure: Failure) -> None:
    job.cancelled = True
    job.report(job, failure)
