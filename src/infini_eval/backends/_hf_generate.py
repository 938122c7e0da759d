"""Generation with a Hugging Face model: chunked prefill, and the next token drawn as the native engine draws it."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from infini_eval.backends._backend import Prepared
from infini_eval.config import EvalConfig
from infini_eval.datasets.tokenizer import Tokenizer
from infini_eval.distributed.tensor_parallel import TensorParallel
from infini_eval.engine.sampling import Sampler
from infini_eval.errors import BackendError
from infini_eval.records import Response

PREFILL_CHUNK = 4096  # tokens of a step; a longer prompt in one step costs activations for all of it
BAD_LOGITS = "the model's logits became NaN (diverged weights, or a dtype too narrow for this model)"


class Draw(LogitsProcessor):
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


class Generator:
    """Answers batches of prompts of one length each; the checkpoint's own sampling habits are dropped.

    prefill_chunk: tokens of a step, None for PREFILL_CHUNK where prompts are longer, 0 for whole prompts.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, config: EvalConfig, prefill_chunk: int | None) -> None:
        self._model, self._tokenizer, self._config = model, tokenizer, config
        self._chunk = PREFILL_CHUNK if prefill_chunk is None else prefill_chunk
        self._stops = _stop_ids(model, tokenizer)
        model.generation_config = GenerationConfig()  # published ones carry penalties and temperatures

    def answer(self, rows: list[Prepared], seeds: list[int]) -> list[Response]:
        """One response a row; `seeds` tell the rows' draws apart."""
        began = time.perf_counter()
        ids_BT = torch.tensor([row.ids.tolist() for row in rows], device=self._model.device)
        draw = Draw(self._sampler(seeds), len(rows))
        new_BT = self._generate(ids_BT, draw)
        seconds = (time.perf_counter() - began) / len(rows)
        answers = zip(rows, new_BT.tolist(), draw.bad, strict=True)
        return [self._response(row, ids, bad, seconds) for row, ids, bad in answers]

    def _generate(self, ids_BT: torch.Tensor, draw: Draw) -> torch.Tensor:
        length = ids_BT.shape[1]
        settings = GenerationConfig(
            max_new_tokens=self._config.max_new_tokens,
            do_sample=False,  # the draw has already happened
            eos_token_id=sorted(self._stops) or None,
            pad_token_id=min(self._stops, default=0),
            prefill_chunk_size=self._chunk if 0 < self._chunk < length else None,
        )
        try:
            with torch.inference_mode():
                output_BT = self._model.generate(
                    ids_BT,
                    attention_mask=torch.ones_like(ids_BT),
                    generation_config=settings,
                    logits_processor=LogitsProcessorList([draw]),
                )
        except ValueError as error:
            raise BackendError(
                f"transformers cannot generate with this model: {error}",
                next_step="try --prefill-chunk 0" if "chunk" in str(error) else None,
            ) from None
        return output_BT[:, length:]

    def _sampler(self, seeds: list[int]) -> Sampler:
        vocabulary = self._model.config.get_text_config().vocab_size
        return Sampler(self._config.sampling, TensorParallel(), vocabulary, self._tokenizer.vocab_size, seeds)

    def _response(self, row: Prepared, ids: list[int], bad: bool, seconds: float) -> Response:
        end = next((place for place, token in enumerate(ids) if token in self._stops), None)
        ids = ids[:end]
        text = self._tokenizer.decode(ids)
        if bad:
            return Response(text, ids, row.tokens, "error", seconds, BAD_LOGITS)
        return Response(text, ids, row.tokens, "length" if end is None else "stop", seconds)


def _stop_ids(model: Any, tokenizer: Tokenizer) -> frozenset[int]:
    """Every id that ends an answer: the generation config's (chat models have several) and the tokenizer's."""
    own = model.generation_config.eos_token_id
    own = [] if own is None else own if isinstance(own, list) else [own]
    return frozenset([*own, *([] if tokenizer.eos_id is None else [tokenizer.eos_id])])
