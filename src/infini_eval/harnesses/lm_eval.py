"""EleutherAI's lm-evaluation-harness: the model `infini`, by entry point or by `infini-eval lm-eval`.

Written against lm-eval's public classes (`TemplateLM`, `register_model`), version 0.4.13; its own code decides what is
asked and how it is judged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from infini_eval.errors import ConfigError
from infini_eval.harnesses.opened import OpenedModel, open_model
from infini_eval.options import positive_int

logger = logging.getLogger(__name__)
MAX_GEN_TOKS = 256  # lm-eval's own default, for tasks that name none
SAMPLING = {"temperature": float, "top_k": int, "top_p": float}
IGNORED = {"do_sample", "until", "max_gen_toks", "num_return_sequences", "use_cache"}
Tokenized = tuple[tuple[str, str], list[int], list[int]]  # the texts, the context's tokens, the continuation's


@register_model("infini")
class InfiniLM(TemplateLM):  # type: ignore[misc]
    """A nanotron checkpoint, Infini-Attention or plain Llama, computed by the native engine.

    Args:
        pretrained: the checkpoint: a step folder, or its parent with latest.txt.
        tokenizer: a folder, a file or a hub name (None: the checkpoint's). lm-eval's RULER tasks need it named.
        device: as lm-eval says it; cuda on a machine without one is the CPU, and a note says so.
        batch_size: "auto" or 1, lm-eval's default, leave it to the planner; a larger number is the most rows of a batch.
        max_batch_size: the most rows of a batch, in place of batch_size; 1 computes row by row.
        max_length: longer contexts lose their beginning, longer texts are measured in windows. None: what a plain Llama
            has positions for; no limit with Infini-Attention, whose positions begin anew in every segment.
        max_gen_toks: the most new tokens of tasks that name no number.
        arguments: memory, memory_query, memory_dtype, dtype, chunk_segments, prefix_cache_gb, tp, pp, dp, … by the names
            of their flags.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        tokenizer: str | None = None,
        device: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        max_length: int | None = None,
        max_gen_toks: int = MAX_GEN_TOKS,
        **arguments: Any,
    ) -> None:
        super().__init__()
        if not pretrained:
            raise ConfigError("no checkpoint", next_step="--model_args pretrained=CHECKPOINT,memory=on")
        self.opened: OpenedModel = open_model(str(pretrained), tokenizer, device, arguments)
        self.model = self.opened.model
        self.tokenizer = self.model.tokenizer
        self.batch_size_per_gpu = self._batch_size = _batch_size(batch_size, max_batch_size)
        limit = self.model.max_length if self.model.has_length_limit else None
        self.max_length = limit if max_length is None else int(max_length)
        self.max_gen_toks = int(max_gen_toks)
        self._device = self.model.llama.device

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        eos = self.tokenizer.eos_id if self.tokenizer.eos_id is not None else self.model.config.eos_token_id
        if eos is None:
            raise ConfigError(
                "neither the tokenizer nor config.yaml names an end token", next_step="pass tokenizer=FOLDER"
            )
        return eos

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that follows nothing: the beginning token, else the end token."""
        return self.eot_token_id if self.tokenizer.bos_id is None else self.tokenizer.bos_id

    @property
    def tokenizer_name(self) -> str:
        """For lm-eval's caches of requests."""
        return f"{self.tokenizer.name.replace('/', '__')}-{self.tokenizer.fingerprint}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **unused: Any) -> list[int]:
        """Tokenize; what a tokenizer adds in front stands there once, and nothing is added at the end of a context."""
        ids: list[int] = self.tokenizer.encode(string, add_special_tokens=False).tolist()
        front = list(self.tokenizer.special_prefix)
        if add_special_tokens is False or (add_special_tokens is None and ids[: len(front)] == front):
            return ids
        return front + ids

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The chat as the tokenizer's template writes it; without a generation prompt the last message stays open."""
        return self.tokenizer.render_chat(
            chat_history,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def _loglikelihood_tokens(
        self, requests: Sequence[Tokenized], disable_tqdm: bool = False, **unused: Any
    ) -> list[tuple[float, bool]]:
        rows = [self._shortened([*context, *tokens], len(tokens) + 1) for _, context, tokens in requests]
        scored = [len(tokens) for _, _, tokens in requests]
        kin = [hash(tuple(context)) for _, context, _ in requests]
        found = self._scores(rows, scored, kin, "Scoring", disable_tqdm)
        for (texts, _, _), answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", texts, answer)
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each whole text, in one piece unless there is a `max_length`."""
        rows, scored, owners = [], [], []
        for number, request in enumerate(requests):
            for context, tokens in self._windows(self.tok_encode(request.args[0], add_special_tokens=False)):
                rows.append([*context, *tokens])
                scored.append(len(tokens))
                owners.append(number)
        totals = [0.0] * len(requests)
        parts = self._scores(rows, scored, owners, "Measuring texts", disable_tqdm)
        for number, (logprob, _) in zip(owners, parts, strict=True):
            totals[number] += logprob
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers, each up to the first of its stop strings; requests that draw alike are computed together."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        limits = []
        for number, request in enumerate(requests):
            limit, key = self._generation(request.args[1])
            limits.append(limit)
            groups.setdefault(key, []).append(number)
        answers = [""] * len(requests)
        for (stop, *sampling), rows in groups.items():
            options = dict(zip(SAMPLING, sampling, strict=True))
            chosen, most = [requests[row] for row in rows], [limits[row] for row in rows]
            texts = self._answers(chosen, most, stop, options, disable_tqdm)
            for row, text in zip(rows, texts, strict=True):
                answers[row] = text
                self.cache_hook.add_partial("generate_until", requests[row].args, text)
        return answers

    def _answers(
        self,
        requests: Sequence[Instance],
        limits: Sequence[int],
        stop: Sequence[str],
        options: dict[str, Any],
        disable_tqdm: bool,
    ) -> list[str]:
        prompts = [
            self._shortened(self.tok_encode(request.args[0]), 1, room=limit)
            for request, limit in zip(requests, limits, strict=True)
        ]
        costs = [len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True)]
        kin = [hash(tuple(prompt[: len(prompt) // 2])) for prompt in prompts]
        with self._progress("Generating", sum(map(len, prompts)), disable_tqdm) as told:

            def compute(numbers: list[int]) -> list[str]:
                found = self.model.complete(
                    [prompts[number] for number in numbers],
                    [limits[number] for number in numbers],
                    stop=stop,
                    batch_size=self._batch_size,
                    on_tokens=told,
                    **options,
                )
                return [one.text for one in found]

            return self.opened.over_replicas(costs, kin, compute)

    def _scores(
        self, rows: list[list[int]], scored: list[int], kin: Sequence[int], what: str, disable_tqdm: bool
    ) -> list[tuple[float, bool]]:
        with self._progress(what, sum(map(len, rows)), disable_tqdm) as told:
            return self.opened.scores(rows, scored, kin, self._batch_size, told)

    def _windows(self, ids: list[int]) -> list[tuple[list[int], list[int]]]:
        """A text's tokens as (context, tokens to score), each token once."""
        if not ids:
            return []
        if self.max_length is None:
            return [([self.prefix_token_id], ids)]
        windows = get_rolling_token_windows(
            token_list=ids, prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1
        )
        return [make_disjoint_window(window) for window in windows]

    def _shortened(self, ids: list[int], least: int, room: int = 0) -> list[int]:
        """The tokens without their beginning, where they and `room` more exceed `max_length`; `least` are kept."""
        if self.max_length is None:
            return ids
        # of tokens that are only scored the last is never read, so that one more fits
        most = max(self.max_length - room + (0 if room else 1), least)
        if len(ids) > most:
            cut = len(ids) - most
            logger.warning("%d tokens lose their first %d: max_length is %d", len(ids), cut, self.max_length)
        return ids[-most:]

    def _generation(self, given: dict[str, Any]) -> tuple[int, tuple[Any, ...]]:
        """The most new tokens of a request, and what it draws by: stop strings, then SAMPLING."""
        options = normalize_gen_kwargs(given, self.max_gen_toks)
        unknown = sorted(options.keys() - SAMPLING.keys() - IGNORED)
        if unknown:
            logger.warning("generation arguments without effect here: %s", ", ".join(unknown))
        stop = tuple(one for one in options["until"] if one)
        sampling = {"temperature": 0.0, "top_k": 0, "top_p": 1.0} | {
            name: read(options[name]) for name, read in SAMPLING.items() if options.get(name) is not None
        }
        return options["max_gen_toks"], (stop, *(sampling[name] for name in SAMPLING))

    @contextmanager
    def _progress(self, what: str, tokens: int, disable_tqdm: bool):  # type: ignore[no-untyped-def]
        """A bar over tokens; those that rows share are counted with the last."""
        quiet = disable_tqdm or (self.opened.world is not None and not self.opened.world.is_main)
        with tqdm(total=tokens, desc=what, unit="tok", unit_scale=True, disable=quiet) as bar:
            update: Callable[[int], None] = lambda count: bar.update(min(count, bar.total - bar.n)) and None  # noqa: E731
            yield update
            bar.update(bar.total - bar.n)


def _batch_size(asked: int | str | None, most: int | None) -> int | None:
    """The most rows of a batch, None for the planner's choice."""
    if most is not None:
        return positive_int(str(most))
    if asked is None or str(asked).startswith("auto") or str(asked) == "1":
        return None
    return positive_int(str(asked))


def run_command_line(words: Sequence[str]) -> None:
    """Run lm-eval's own command line with the model `infini` registered; ends as it ends."""
    import sys

    import lm_eval.models  # noqa: F401 - its own models, beside ours
    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["lm-eval", *words]
    cli_evaluate()
