"""Generates a data set: plan, haystack, then each row composed on its own, so that workers never change the result."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from infini_eval.api.task import Generator, Question, Recipe, RowInputs
from infini_eval.data.compose import Composed, compose
from infini_eval.data.config import GenerateConfig, ResolvedConfig
from infini_eval.data.haystack import Haystack, build_haystack, is_off, least_haystack
from infini_eval.data.passkey import token_span, whole_word_starts
from infini_eval.data.plan import (
    KeyedRow,
    RowPlan,
    assign,
    needed_tokens,
    needle_constraint,
    numbers_near,
    plan_rows,
    pool_tokens,
    start_depth,
)
from infini_eval.data.sources import Source
from infini_eval.data.tokenizer import Tokenizer
from infini_eval.errors import ConfigError, DataError


def generate(
    config: GenerateConfig,
    tokenizer: Tokenizer,
    generator: Generator,
    *,
    workers: int = 1,
    verify: bool = True,
) -> tuple[Iterator[dict[str, Any]], Haystack]:
    """Make the rows of a data set: in order and as they come, with the haystack that they were cut from.

    Rows do not depend on `workers`. `verify` re-tokenises each finished prompt and takes its measures from that.

    Raises:
        ConfigError: settings that do not go together, or an option that the task does not have.
        DataError: the haystack does not suffice, or a prompt cannot be made.
    """
    config = config if isinstance(config, ResolvedConfig) else config.resolved(generator)
    unknown = set(config.options) - set(generator.options)
    if unknown:
        raise ConfigError(
            f"the task {config.task} has no option {sorted(unknown)[0]!r}", valid=", ".join(generator.options) or "none"
        )
    _refuse_places(config, generator)
    plans = plan_rows(config)
    source = Source(config.haystack, config.seed)
    haystack = build_haystack(
        source.parts(),
        tokenizer,
        pool_tokens(plans, config.pool_tokens) if generator.needs_haystack else 1,
        name=source.name,
        needed=needed_tokens(plans) if generator.needs_haystack else 1,
        allow_repeat=config.allow_repeat,
        repeats=source.repeats,
    )
    opening = generator.forbidden_text
    if opening and opening.casefold() in haystack.text.casefold():
        raise DataError(
            f"the haystack {source.name} already holds the needle's words {opening!r}",
            next_step="take that text out, or choose another --haystack_dir",
        )
    keyed = assign(config, plans, haystack)
    maker = _RowMaker(config, tokenizer, generator, haystack, verify)
    return _rows(maker.row, keyed, workers), haystack


def _refuse_places(config: ResolvedConfig, generator: Generator) -> None:
    if generator.needs_haystack:
        return
    names = ("control", "needle_segment", "boundary", *(() if generator.exact else ("question_phase",)))
    refused = [f"--{name.replace('_', '-')}" for name in names if getattr(config, name) is not None]
    refused += [f"--haystack_dir {config.haystack}"] * (config.haystack != generator.haystack)
    if refused:
        raise ConfigError(
            f"{refused[0]} does not go with the task {config.task}: its prompts are lists, not haystacks",
            next_step="leave the flag out, or choose another --task",
        )


def _rows(make: Callable[[KeyedRow], dict[str, Any]], rows: list[KeyedRow], workers: int) -> Iterator[dict[str, Any]]:
    """Rows in order; at most two a worker are held at a time. Threads do: the tokenizer works outside Python's lock."""
    if workers <= 1:
        yield from map(make, rows)
        return
    with ThreadPoolExecutor(workers) as pool:
        iterator = iter(rows)
        while batch := list(itertools.islice(iterator, 2 * workers)):
            yield from pool.map(make, batch)


class _RowMaker:
    """Makes one row from its plan alone."""

    def __init__(
        self,
        config: ResolvedConfig,
        tokenizer: Tokenizer,
        generator: Generator,
        haystack: Haystack,
        verify: bool,
    ) -> None:
        self.config, self.tokenizer, self.generator = config, tokenizer, generator
        self.haystack, self.verify = haystack, verify

    def row(self, keyed: KeyedRow) -> dict[str, Any]:
        config, plan = self.config, keyed.plan
        depth = "random" if plan.cell < 0 else f"{plan.cell:g}"
        name = f"{config.id or config.seed}-{plan.context_length}-{depth}-{plan.trial}"
        draw = RowInputs(
            depth=start_depth(config, plan.depth, plan.target),
            key=keyed.key,
            shot_keys=keyed.shot_keys,
            rng=random.Random(f"recipe/{config.seed}/{config.task}/{name}"),
            target=plan.target,
            tokenizer=self.tokenizer,
            context_length=plan.context_length,
            forbidden=frozenset(numbers_near(self.haystack, keyed.start, plan.target)),
            options={**self.generator.options, **config.options},
            number=_number_in_length(config, plan),
        )
        question = self.generator.question(draw)
        composed = self._compose(question, keyed)
        return self._columns(keyed, question, composed, name)

    def _compose(self, question: Question, keyed: KeyedRow) -> Composed:
        if question.text is not None:
            return self._finished(question, question.text)
        assert question.recipe is not None
        if self.config.control == "no-context":
            text = _without_context(question.recipe)
            return Composed(text, self.tokenizer.count(text), (), (), (), 0, "")
        composed = compose(
            question.recipe,
            self.haystack,
            keyed.start,
            keyed.plan.target,
            self.tokenizer,
            allowed=needle_constraint(self.config),
            asked=question.asked,
            verify=self.verify,
        )
        self._refuse_depth(composed, question)
        if not (
            self.generator.numeric or self.generator.common_answers
        ):  # keys are numbers that are not in the haystack
            _refuse_second_answer(composed, question, self.haystack.name)
        return composed

    def _finished(self, question: Question, text: str) -> Composed:
        """A finished text with its measures; depths are shares of the context's tokens without the needles."""
        identity = hashlib.sha256((question.haystack or text).encode()).hexdigest()[:16]
        if not question.needles:
            return Composed(text, self.tokenizer.count(text), (), (), (), 0, identity)
        ids, offsets = self.tokenizer.encode_with_offsets(text)
        spans = tuple(token_span(needle, offsets) for needle in question.needles)
        first, last = token_span(question.context, offsets)
        tokens = last - first - sum(end - start for start, end in spans)
        depths = []
        for start, _ in spans:
            others = sum(b - a for a, b in spans if b <= start)
            depths.append(100 * (start - first - others) / tokens if tokens > 0 else 100.0)
        return Composed(text, len(ids), question.needles, spans, tuple(depths), max(0, tokens), identity)

    def _refuse_depth(self, composed: Composed, question: Question) -> None:
        """A haystack with too few words for depths: the needle would stand wherever one happens to end."""
        assert question.recipe is not None
        asked, real = question.recipe.inserts[question.asked], composed.depths[question.asked]
        moved = self.config.needle_segment is not None or self.config.boundary is not None
        if moved or asked.after == "sentence" or not is_off(asked.depth, real):
            return
        least = least_haystack(self.haystack.cut_tokens[self.haystack.words])
        if composed.haystack_tokens >= least:
            return
        bare = composed.tokens - composed.haystack_tokens
        raise DataError(
            f"{composed.tokens} tokens are too few for depths: the needle cannot stand at {asked.depth:g} % of "
            f"{composed.haystack_tokens} tokens of haystack, only at {real:.1f} %",
            next_step=f"ask for a context of at least {self._context(bare + least)} tokens, or for the depths 0 and 100",
        )

    def _context(self, tokens: int) -> int:
        """The context length whose prompts have at least that many tokens."""
        return tokens + (self.config.answer_budget if self.config.length_includes_answer else 0)

    def _columns(self, keyed: KeyedRow, question: Question, composed: Composed, name: str) -> dict[str, Any]:
        config, plan = self.config, keyed.plan
        outputs = question.outputs or (question.answer,)
        start, end = composed.needle_tokens[question.asked] if composed.needle_tokens else (-1, -1)
        in_pool = self.haystack.distinct_chars(*composed.haystack_chars) if composed.haystack_tokens else (0, 0)
        row: dict[str, Any] = {
            "id": name,
            "prompt": composed.text if config.is_eval else _answered(composed.text, question.answer),
            "answer": int(question.answer) if self.generator.numeric else question.answer,
            "context_length": plan.context_length,
            "token_count": composed.tokens,
            "num_shots": config.num_shots,
            "num_digits": plan.num_digits,
            "depth_percent": plan.depth,
            "real_depth": round(composed.depths[question.asked], 4) if composed.depths else float(plan.depth),
            "needle_token_start": start,
            "needle_token_end": end,
            "length_includes_answer": "yes" if config.length_includes_answer else "no",
            "is_eval": "yes" if config.is_eval else "no",
            "haystack": _short(self.haystack.name) if composed.haystack_tokens else "none",
            "haystack_hash": composed.haystack_id,
            "haystack_unique": round(self.haystack.unique_fraction(composed.haystack_tokens), 6),
            "haystack_pool": self.haystack.pool if composed.haystack_tokens else "",
            "haystack_start": in_pool[0],
            "haystack_end": in_pool[1],
            "verified": "yes" if composed.verified else "no",
            "tokenizer_hash": self.tokenizer.fingerprint,
        }
        if not self.generator.numeric:
            row["outputs"] = json.dumps(outputs, ensure_ascii=False)
            row["needles"] = json.dumps(_needles(composed, question.asked), ensure_ascii=False)
        if config.control:
            row["control"] = config.control
        return row | dict(question.columns)


def _number_in_length(config: ResolvedConfig, plan: RowPlan) -> int:
    cells = [-1.0 if depth is None else depth for depth in config.depths]
    return cells.index(plan.cell) * config.num_prompts + plan.trial


def _answered(prompt: str, answer: str) -> str:
    """Training data: the answer behind the question, parted from it by white space."""
    return f"{prompt}{'' if prompt[-1:].isspace() else ' '}{answer}"


def _short(name: str) -> str:
    """A source's name without the folders above it: data sets hold no paths."""
    return name if name.startswith("hub:") else Path(name).name


def _refuse_second_answer(composed: Composed, question: Question, haystack: str) -> None:
    """An answer that stands in the prompt outside the needles could be had without them."""
    starts = [0, *(end for _, end in composed.needle_chars)]
    ends = [*(start for start, _ in composed.needle_chars), len(composed.text)]
    outside = [composed.text[a:b].casefold() for a, b in zip(starts, ends, strict=True)]
    for output in question.outputs or (question.answer,):
        if any(whole_word_starts(text, output.casefold()) for text in outside):
            raise DataError(
                f"the answer {output!r} stands in the prompt outside the needle: in the haystack {haystack} or the question",
                next_step="choose another needle or another --haystack_dir",
            )


def _needles(composed: Composed, asked: int) -> list[str]:
    """The needles' own words, the asked one first, for reports and for finding them again."""
    texts = [composed.text[a:b] for a, b in composed.needle_chars]
    return texts[asked : asked + 1] + texts[:asked] + texts[asked + 1 :]


def _without_context(recipe: Recipe) -> str:
    """The control: intro and question, neither haystack nor needle."""
    return f"{recipe.prefix} {recipe.suffix.removeprefix('.').lstrip(' ')}"
