"""fake: knows every answer, and forgets, errs and fails as it is told; tries the whole command line without a model."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from infini_eval.api.backend import Backend, Batch, BatchPlan, EarlyStop, Rows, WorkItem, no_ids
from infini_eval.config import EvalConfig, FakeSettings
from infini_eval.data.passkey import excerpt, needle_position
from infini_eval.data.tokenizer import Tokenizer, load_tokenizer
from infini_eval.distributed.launch import World
from infini_eval.engine.batching import plan_batches
from infini_eval.errors import ConfigError
from infini_eval.records import NeedlePosition, Response, Sample

CHARS_PER_TOKEN = 4
FORGOTTEN = "I do not remember."


class FakeBackend(Backend):
    """Answers come from the sample, the seed and the settings alone: the same at every topology and after every resume."""

    settings = (FakeSettings,)

    def __init__(self, config: EvalConfig, world: World) -> None:
        super().__init__(config, world)
        self._settings = config.settings(FakeSettings)
        for name in ("near_miss_rate", "failure_rate"):
            if not 0 <= getattr(self._settings, name) <= 1:
                flag = f"--fake-{name.replace('_', '-')}"
                raise ConfigError(f"{flag} {getattr(self._settings, name):g}", valid="a rate from 0 to 1")
        self.tokenizer: Tokenizer | None = load_tokenizer(config.tokenizer) if config.tokenizer else None
        self.notes = ["the backend fake has no model: it makes its answers up from the data set's own"]
        if self.tokenizer is None:
            self.notes.append(f"without --tokenizer, {CHARS_PER_TOKEN} characters count as a token")

    def model_facts(self) -> Mapping[str, Any]:
        return {**super().model_facts(), "name": f"fake ({self._config.model_path})"}

    def identity(self) -> Mapping[str, Any]:
        """Failures are no answers, so their rate may change: a resumed run may try them again at another."""
        settings = {"horizon": self._settings.horizon, "near_miss_rate": self._settings.near_miss_rate}
        tokenizer = self.tokenizer.fingerprint if self.tokenizer else None
        model = {"name": self._config.model_path, **settings}
        return {"model": model, "tokenizer": tokenizer, "sampling": asdict(self._config.sampling)}

    def environment(self) -> Mapping[str, Any]:
        return {**super().environment(), "fake": asdict(self._settings)}

    def prepare(self, sample: Sample, needle: tuple[int, int] | None) -> WorkItem:
        shown = excerpt(sample.prompt, needle)
        if self.tokenizer is not None:
            ids, offsets = self.tokenizer.encode_with_offsets(sample.prompt)
            return WorkItem(sample, ids, len(ids), needle_position(needle, offsets, len(ids), None, 0), shown)
        start, end = needle or (None, None)
        position = NeedlePosition(_tokens(start), _tokens(end))
        return WorkItem(sample, no_ids(), -(-len(sample.prompt) // CHARS_PER_TOKEN), position, shown)

    def plan(self, items: Sequence[WorkItem], largest: int | None = None) -> BatchPlan:
        return BatchPlan(plan_batches([item.tokens for item in items], None, self._config.batch_size, largest))

    def answer(
        self,
        work: Iterator[tuple[Batch, Rows]],
        *,
        early_stop: EarlyStop | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[Batch, list[Response]]]:
        for batch, prepared in work:
            responses = []
            for row in batch.rows:
                time.sleep(self._settings.seconds)
                responses.append(self._respond(prepared[row]))
                if on_tokens is not None:
                    on_tokens(prepared[row].tokens)
            yield batch, responses

    def _respond(self, prepared: WorkItem) -> Response:
        began = time.perf_counter()
        draw = random.Random(f"{self._config.sampling.seed}/{prepared.sample.key}")
        fails, errs = draw.random() < self._settings.failure_rate, draw.random() < self._settings.near_miss_rate
        if fails:
            return Response("", [], prepared.tokens, "error", 0.0, "the fake backend failed, as it was told to")
        text = FORGOTTEN if self._forgets(prepared) else _said(prepared.sample.answer)
        if errs and text != FORGOTTEN:
            text = _said(near_miss(prepared.sample.answer, draw))
        ids = [] if self.tokenizer is None else self.tokenizer.encode(text, add_special_tokens=False).tolist()
        ids = ids[: self._config.max_new_tokens]
        details = {} if ids else {"completion_tokens": _tokens(len(text))}
        return Response(text, ids, prepared.tokens, "stop", time.perf_counter() - began, details=details)

    def _forgets(self, prepared: WorkItem) -> bool:
        end = prepared.position.token_end
        if self._settings.horizon is None or end is None:
            return False
        return prepared.tokens - end > self._settings.horizon


def _said(answer: str) -> str:
    """An answer as a model gives it: a full stop follows words and numbers, and nothing else."""
    return f" {answer}." if answer[-1:].isalnum() else f" {answer}"


def near_miss(answer: str, draw: random.Random) -> str:
    """The answer with one character changed: a digit to another digit, a letter to another letter."""
    places = [place for place, character in enumerate(answer) if character.isalnum()]
    if not places:
        return f"{answer}?"
    place = draw.choice(places)
    others = "0123456789" if answer[place].isdigit() else "abcdefghijklmnopqrstuvwxyz"
    changed = draw.choice([character for character in others if character != answer[place].lower()])
    return answer[:place] + changed + answer[place + 1 :]


def _tokens(characters: int | None) -> int | None:
    return None if characters is None else characters // CHARS_PER_TOKEN
