"""Generation with a Hugging Face model: chunked prefill, and the next token drawn as the native engine draws it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from infini_eval.api.backend import EarlyStop, WorkItem
from infini_eval.config import EvalConfig
from infini_eval.data.tokenizer import Tokenizer
from infini_eval.distributed.tensor_parallel import TensorParallel
from infini_eval.engine.sampling import Sampler
from infini_eval.errors import BackendError
from infini_eval.planning.memory import TRANSFORMERS_CHUNK
from infini_eval.records import Response

BAD_LOGITS = "the model's logits became NaN (diverged weights, or a dtype too narrow for this model)"


class Draw(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Leaves one possible token a row: the one that the engine's sampler draws. Legend: B batch, V vocabulary."""

    def __init__(self, sampler: Sampler, rows: int) -> None:
        self._sampler = sampler
        self.bad = [False] * rows

    def __call__(self, input_ids: torch.Tensor, scores_BV: torch.Tensor) -> torch.Tensor:
        nan_B = scores_BV.isnan().any(dim=1)
        self.bad = [old or new for old, new in zip(self.bad, nan_B.tolist(), strict=True)]
        scores_BV = torch.where(nan_B[:, None], torch.zeros_like(scores_BV), scores_BV)
        tokens_B = self._sampler.next_tokens(scores_BV.float())
        return torch.full_like(scores_BV, float("-inf")).scatter_(1, tokens_B[:, None], 0.0)


class Ending(StoppingCriteria):  # type: ignore[misc]
    """Ends a row at the first token after which its answer is settled. Legend: B batch, T tokens, the prompt's included.

    `lengths`: new tokens of each settled row; what follows them in the output is padding or of no interest.
    """

    def __init__(self, settled: Callable[[int, list[int]], bool], prompt: int) -> None:
        self._settled, self._prompt = settled, prompt
        self.lengths: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: Any, **unused: Any) -> torch.Tensor:
        new_BT = input_ids[:, self._prompt :].tolist()
        for row, ids in enumerate(new_BT):
            if row not in self.lengths and self._settled(row, ids):
                self.lengths[row] = len(ids)
        ended = [row in self.lengths for row in range(len(new_BT))]
        return torch.tensor(ended, device=input_ids.device)


class BatchGenerator:
    """Answers batches of prompts of one length each; the checkpoint's own sampling habits are dropped.

    prefill_chunk: tokens of a step, None for TRANSFORMERS_CHUNK where prompts are longer, 0 for whole prompts.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, config: EvalConfig, prefill_chunk: int | None) -> None:
        self._model, self._tokenizer, self._config = model, tokenizer, config
        self._chunk = TRANSFORMERS_CHUNK if prefill_chunk is None else prefill_chunk
        self._stops = _stop_ids(model, tokenizer)
        self.early_stop: EarlyStop | None = None
        self.on_tokens: Callable[[int], None] | None = None
        model.generation_config = GenerationConfig()  # published ones carry penalties and temperatures

    def answer(self, rows: list[WorkItem]) -> list[Response]:
        """One response a row."""
        began = time.perf_counter()
        ids_BT = torch.tensor([row.ids.tolist() for row in rows], device=self._model.device)
        draw = Draw(self._sampler([row.sample.key for row in rows]), len(rows))
        ending = Ending(lambda row, ids: self._is_settled(rows[row], ids), ids_BT.shape[1])
        new_BT = self._generate(ids_BT, draw, ending)
        seconds = (time.perf_counter() - began) / len(rows)
        answers = zip(rows, new_BT.tolist(), draw.bad, strict=True)
        return [
            self._response(row, ids, bad, ending.lengths.get(place), seconds)
            for place, (row, ids, bad) in enumerate(answers)
        ]

    def logprobs(self, row: WorkItem, text: str) -> list[float]:
        """ln P of each token of `text` right behind the prompt, which is read in chunks. Legend: T tokens, V vocabulary."""
        prompt, answer = row.ids.tolist(), self._tokenizer.encode(text, add_special_tokens=False).tolist()
        step = self._chunk or len(prompt)
        cache = None
        with torch.inference_mode():
            for at in range(0, len(prompt), step):
                output = self._forward(prompt[at : at + step], cache, logits_to_keep=1)
                cache = output.past_key_values
            logits = [output.logits[0, -1:]]
            if len(answer) > 1:
                logits.append(self._forward(answer[:-1], cache).logits[0])
        logprobs_TV = torch.cat(logits).float().log_softmax(dim=-1)
        return [float(logprobs_TV[at, token]) for at, token in enumerate(answer)]

    def _forward(self, ids: list[int], cache: Any, **arguments: Any) -> Any:
        ids_1T = torch.tensor([ids], device=self._model.device)
        return self._model(ids_1T, past_key_values=cache, use_cache=True, **arguments)

    def _count(self, model: Any, inputs: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> None:
        """Tell how many tokens a step has read: a long prompt takes many, and minutes."""
        ids_BT = inputs[0] if inputs else named.get("input_ids")
        if self.on_tokens is not None and ids_BT is not None:
            self.on_tokens(ids_BT.numel())

    def _is_settled(self, row: WorkItem, ids: list[int]) -> bool:
        if self.early_stop is None or self._stops.intersection(ids):
            return False
        return self.early_stop(self._tokenizer.decode(ids), row.sample)

    def _generate(self, ids_BT: torch.Tensor, draw: Draw, ending: Ending) -> torch.Tensor:
        length = ids_BT.shape[1]
        settings = GenerationConfig(
            max_new_tokens=self._config.max_new_tokens,
            do_sample=False,  # the draw has already happened
            eos_token_id=sorted(self._stops) or None,
            pad_token_id=min(self._stops, default=0),
            prefill_chunk_size=self._chunk if 0 < self._chunk < length else None,
        )
        counting = self._model.register_forward_hook(self._count, with_kwargs=True)
        try:
            with torch.inference_mode():
                output_BT: torch.Tensor = self._model.generate(
                    ids_BT,
                    attention_mask=torch.ones_like(ids_BT),
                    generation_config=settings,
                    logits_processor=LogitsProcessorList([draw]),
                    stopping_criteria=StoppingCriteriaList([ending] if self.early_stop is not None else []),
                )
        except ValueError as error:
            raise BackendError(
                f"transformers cannot generate with this model: {error}",
                next_step="try --prefill-chunk 0" if "chunk" in str(error) else None,
            ) from None
        finally:
            counting.remove()
        return output_BT[:, length:]

    def _sampler(self, keys: list[str]) -> Sampler:
        vocabulary = self._model.config.get_text_config().vocab_size
        return Sampler(self._config.sampling, TensorParallel(), vocabulary, self._tokenizer.vocab_size, keys)

    def _response(self, row: WorkItem, ids: list[int], bad: bool, settled: int | None, seconds: float) -> Response:
        end = next((place for place, token in enumerate(ids) if token in self._stops), None)
        ids = ids[: settled or end]
        text = self._tokenizer.decode(ids)
        if bad:
            return Response(text, ids, row.tokens, "error", seconds, BAD_LOGITS)
        return Response(text, ids, row.tokens, "settled" if settled else "length" if end is None else "stop", seconds)


def _stop_ids(model: Any, tokenizer: Tokenizer) -> frozenset[int]:
    """Every id that ends an answer: the generation config's (chat models have several) and the tokenizer's."""
    own = model.generation_config.eos_token_id
    own = [] if own is None else own if isinstance(own, list) else [own]
    return frozenset([*own, *([] if tokenizer.eos_id is None else [tokenizer.eos_id])])
