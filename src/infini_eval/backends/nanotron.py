"""nanotron: answers with a nanotron checkpoint, computed by this package's own engine over dp x tp x pp processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from infini_eval.api.backend import Backend, Batch, BatchPlan, EarlyStop, Footprint, Rows, WorkItem
from infini_eval.backends import LAZY
from infini_eval.backends._halving import answer_or_halve
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import EvalConfig
from infini_eval.data.passkey import excerpt, position_from_tokens
from infini_eval.data.tokenizer import Tokenizer
from infini_eval.distributed.device_memory import available_bytes
from infini_eval.distributed.launch import World
from infini_eval.distributed.mesh import Mesh
from infini_eval.engine.batching import plan_batches
from infini_eval.engine.fixed_decode import check_acceleration
from infini_eval.engine.generation import Completion, Finish, Limits
from infini_eval.engine.native_model import NativeModel, load_replica, mesh_shape, my_layers
from infini_eval.engine.prefix_sharing import PrefixCache, Prefixes
from infini_eval.engine.prefixes import border_digests
from infini_eval.engine.sampling import sampling_identity
from infini_eval.engine.text import check_vocabulary, end_ids, open_tokenizer
from infini_eval.errors import OutOfMemory, first_sentence
from infini_eval.models.load import gates, resolve
from infini_eval.planning.text import gigabytes
from infini_eval.records import NeedlePosition, Response, Sample


def prepare_sample(
    sample: Sample, needle: tuple[int, int] | None, tokenizer: Tokenizer, segment_length: int | None
) -> WorkItem:
    """Tokenise a prompt as the model was trained on it, and find its needle (a character span) among the tokens."""
    ids, span = tokenizer.encode_with_span(sample.prompt, needle)
    start, end = span or (None, None)
    if segment_length is None:
        position = NeedlePosition(start, end)
    else:
        answer_tokens = len(tokenizer.encode(sample.answer, add_special_tokens=False))
        position = position_from_tokens(start, end, len(ids), segment_length, answer_tokens)
    prefixes = border_digests(ids, segment_length) if segment_length else b""
    return WorkItem(sample, ids, len(ids), position, excerpt(sample.prompt, needle), prefixes)


logger = logging.getLogger(__name__)
BAD_LOGITS = "the model's logits became NaN or infinite (a memory denominator of zero, or diverged weights)"

FINISH: dict[Finish, Literal["stop", "length", "settled", "error"]] = {
    "stop": "stop",
    "length": "length",
    "settled": "settled",
    "bad_logits": "error",
}


class NanotronBackend(Backend):
    """A nanotron checkpoint on this rank. Opening reads headers and the tokenizer; `load` reads the weights."""

    settings = LAZY["nanotron"].settings
    computes_here = True
    attention = LAZY["nanotron"].attention
    stops_early = True
    measures_texts = True

    def __init__(self, config: EvalConfig, world: World) -> None:
        self._config, self._world = config, world
        self.checkpoint = Checkpoint(config.model_path)
        self.mesh = Mesh.build(mesh_shape(self.checkpoint, config.topology, world.world_size), world.rank)
        self._resolved = resolve(self.checkpoint.config, config.model, torch.device(world.device))
        check_acceleration(config.model, self._resolved.device, self.mesh.shape.tp, self.mesh.shape.pp)
        self.tokenizer = open_tokenizer(config.tokenizer, self.checkpoint)
        check_vocabulary(self.tokenizer, self.checkpoint)
        self.notes = list(self.checkpoint.notes)
        self._model: NativeModel | None = None
        self._prefix_cache: PrefixCache | None = None

    def model_facts(self) -> Mapping[str, Any]:
        config, attention = self._resolved.config, self._resolved.attention
        kind = "Infini-Attention" if config.has_segments else config.family
        return {
            "name": f"{short_count(config.parameter_count)} {kind}",
            "kind": config.kind,
            "parameters": config.parameter_count,
            "segment_length": config.segment_length,
            "dtype": str(self._resolved.dtype).removeprefix("torch."),
            "memory": attention.memory if config.has_segments else None,
            "memory_query": attention.memory_query if config.has_segments else None,
            "gate_activation": config.gate_activation,
            "max_position_embeddings": config.max_position_embeddings,
            "gates": self._gates(),
        }

    def _gates(self) -> dict[str, Any] | None:
        """The gates by layer and head, which reports show beside the accuracy."""
        if not self._resolved.config.has_segments:
            return None
        values = gates(self.checkpoint)
        return {"mean": values.mean().item(), "values": values.tolist()}

    def identity(self) -> Mapping[str, Any]:
        attention = self._resolved.attention
        return {
            "checkpoint": self.checkpoint.fingerprint(),
            "tokenizer": self.tokenizer.fingerprint,
            "model": {
                "dtype": str(self._resolved.dtype).removeprefix("torch."),
                "memory": attention.memory,
                "memory_query": attention.memory_query,
                "memory_dtype": str(self._resolved.memory_dtype).removeprefix("torch."),
                "rope_interleaved": self._resolved.config.rope_interleaved,
                # named where it is not what runs had before there was a choice, which continue
                **({} if attention.features == "reference" else {"feature_map": attention.features}),
            },
            "sampling": sampling_identity(self._config.sampling),
        }

    def environment(self) -> Mapping[str, Any]:
        shape = self.mesh.shape
        return {
            "ckpt_path": str(self.checkpoint.folder),
            "tokenizer": self.tokenizer.name,
            "topology": {"dp": shape.dp, "tp": shape.tp, "pp": shape.pp},
            "saved_topology": {"tp": self.checkpoint.saved_tp, "pp": self.checkpoint.saved_pp},
            "device": self._world.device,
            "attn_implementation": self._resolved.attention.implementation,
            "batch_size": self._config.batch_size,
            "prefix_cache_gb": self._config.model.prefix_cache_gb,
            "compile": self._config.model.compile,
            "cuda_graphs": self._config.model.cuda_graphs,
        }

    def prepare(self, sample: Sample, needle: tuple[int, int] | None) -> WorkItem:
        return prepare_sample(sample, needle, self.tokenizer, self.checkpoint.config.segment_length)

    def token_ids(self, sample: Sample) -> np.ndarray:
        return self.tokenizer.encode(sample.prompt)

    def plan(self, items: Sequence[WorkItem], largest: int | None = None) -> BatchPlan:
        lengths = [item.tokens for item in items]
        self._warn_of_positions(max(lengths))
        segment_length, size = self.checkpoint.config.segment_length, self._config.batch_size
        prefixes = [item.prefixes for item in items] if self._config.model.prefix_cache_gb else None
        batches = plan_batches(lengths, segment_length, size, largest, prefixes)
        shares = any(batch.schedule_cost is not None for batch in batches)
        kept = len({digest for batch in batches for _, digest in batch.snapshot_points}) if shares else None
        return BatchPlan(batches, max(lengths), kept)

    def footprint(self, plan: BatchPlan) -> Footprint:
        """What this rank will load and compute, for the plan that precedes it."""
        config, attention, chunk = self._resolved.config, self._resolved.attention, self._config.model.chunk_segments
        return Footprint(
            model=replace(config, memory=attention.memory),
            name=str(self.checkpoint.folder),
            mesh=self.mesh.shape,
            stage=self.mesh.pp_rank,
            device=self._world.device,
            capacity=available_bytes(self._world.device, self._world.local_world_size),
            dtype=str(self._resolved.dtype).removeprefix("torch."),
            memory_dtype=str(self._resolved.memory_dtype).removeprefix("torch."),
            prefill_chunk=chunk * config.segment_length if chunk and config.segment_length else None,
            kept_prefixes=plan.kept_prefixes,
            kept_bytes=int(self._config.model.prefix_cache_gb * 10**9),
        )

    def load(self, plan: BatchPlan) -> None:
        layers = my_layers(self.checkpoint.config, self.mesh)
        self._model = load_replica(self.checkpoint, self._config.model, self.mesh, self._world.device)
        self._prefix_cache = self._model.new_prefix_cache()
        shape = self.mesh.shape
        logger.info(
            "mesh dp=%d tp=%d pp=%d; this rank: layers %d-%d of %d, %s of weights in %s on %s",
            *(shape.dp, shape.tp, shape.pp, layers.start, layers.stop - 1, self.checkpoint.config.num_hidden_layers),
            gigabytes(self._model.llama.nbytes()),
            str(self._resolved.dtype).removeprefix("torch."),
            self._world.device,
        )

    def logprobs(self, item: WorkItem, text: str) -> list[float]:
        assert self._model is not None, "load() comes first"
        answer = self.tokenizer.encode(text, add_special_tokens=False)
        if not len(answer):
            return []
        row = np.concatenate((item.ids, answer))
        found = self._model.score([row], [len(answer)], vocabulary=self.tokenizer.vocab_size)[0]
        return [float(value) for value in found.logprobs]

    def answer(
        self,
        work: Iterator[tuple[Batch, Rows]],
        *,
        early_stop: EarlyStop | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[Batch, list[Response]]]:
        requests = ((batch, [prepared[row] for row in batch.rows]) for batch, prepared in work)
        if self.mesh.shape.tp * self.mesh.shape.pp == 1:
            for batch, rows in requests:
                answer = partial(self._answer_one, batch, early_stop, on_tokens)
                yield batch, answer_or_halve(rows, answer, self._forget_prefixes)
            return
        in_flight: dict[Batch, list[WorkItem]] = {}
        try:
            yield from self._answer_batches(requests, in_flight, early_stop, on_tokens)
        except torch.OutOfMemoryError as error:  # the peers have gone on with this batch: it cannot be tried again here
            raise self._out_of_memory(list(in_flight.values()), error) from None

    def _answer_one(
        self,
        batch: Batch,
        early_stop: EarlyStop | None,
        on_tokens: Callable[[int], None] | None,
        rows: list[WorkItem],
    ) -> list[Response]:
        """Answer some rows of a batch on their own."""
        return next(self._answer_batches(iter([(batch, rows)]), {}, early_stop, on_tokens))[1]

    def _forget_prefixes(self) -> bool:
        """Free the states of shared prefixes; whether there were any."""
        cache = self._prefix_cache
        held = cache is not None and len(cache) > 0
        if cache is not None:
            cache.clear()
        return held

    def _answer_batches(
        self,
        requests: Iterator[tuple[Batch, list[WorkItem]]],
        in_flight: dict[Batch, list[WorkItem]],
        early_stop: EarlyStop | None,
        on_tokens: Callable[[int], None] | None,
    ) -> Iterator[tuple[Batch, list[Response]]]:
        """Answer batches through the engine; with pipeline stages several are `in_flight` at once."""
        assert self._model is not None, "load() comes first"
        began: dict[Batch, float] = {}

        def started() -> Iterator[tuple[Batch, list[np.ndarray], list[str], Prefixes | None]]:
            for batch, rows in requests:
                in_flight[batch], began[batch] = rows, time.perf_counter()
                keys = [row.sample.key for row in rows]
                yield batch, [row.ids for row in rows], keys, self._prefixes(batch, rows)

        def settled(batch: Batch, row: int, token_ids: Sequence[int]) -> bool:
            assert early_stop is not None
            return early_stop(self.tokenizer.decode(token_ids), in_flight[batch][row].sample)

        limits = Limits(self._config.max_new_tokens, self._stop_ids())
        sampling, vocabulary = self._config.sampling, self.tokenizer.vocab_size
        done = None if early_stop is None else settled
        for batch, completions in self._model.run(started(), limits, sampling, vocabulary, on_tokens, done):
            rows = in_flight.pop(batch)
            seconds = split_batch_time(time.perf_counter() - began.pop(batch), rows, completions)
            yield batch, [self._response(*each) for each in zip(rows, completions, seconds, strict=True)]

    def _prefixes(self, batch: Batch, rows: list[WorkItem]) -> Prefixes | None:
        cache = self._prefix_cache
        return None if cache is None else Prefixes([row.prefixes for row in rows], batch.snapshot_points, cache)

    def _out_of_memory(self, in_flight: list[list[WorkItem]], error: Exception) -> OutOfMemory:
        rows = max(map(len, in_flight))
        longest = max(row.tokens for batch in in_flight for row in batch)
        problem = OutOfMemory(
            f"out of memory on {self._world.device} with {rows} samples of up to {longest:,} tokens at once: "
            f"{first_sentence(error)}",
            next_step="run the same command again: it continues with smaller batches"
            if rows > 1
            else "use more --tp or --pp, --dtype bfloat16 or a smaller --chunk-segments",
        )
        problem.rows = rows
        return problem

    def _response(self, prepared: WorkItem, completion: Completion, seconds: float) -> Response:
        return Response(
            text=self.tokenizer.decode(completion.token_ids),
            token_ids=completion.token_ids,
            prompt_tokens=prepared.tokens,
            finish_reason=FINISH[completion.finish or "length"],
            seconds=seconds,
            error=BAD_LOGITS if completion.finish == "bad_logits" else None,
            details={"reused_tokens": completion.reused_tokens},
        )

    def _stop_ids(self) -> frozenset[int]:
        return end_ids(self.tokenizer, self.checkpoint.config)

    def _warn_of_positions(self, longest: int) -> None:
        config = self.checkpoint.config
        if not config.has_segments and longest > config.max_position_embeddings:
            logger.warning(
                "prompts of up to %d tokens exceed max_position_embeddings %d of this plain %s",
                longest,
                config.max_position_embeddings,
                config.family,
            )


def split_batch_time(seconds: float, rows: Sequence[WorkItem], completions: Sequence[Completion]) -> list[float]:
    """Split a batch's time over its rows by what was computed for each: a row pays for what other rows reuse."""
    pairs = zip(rows, completions, strict=True)
    computed = [row.tokens - done.reused_tokens + len(done.token_ids) for row, done in pairs]
    return [seconds * tokens / sum(computed) for tokens in computed]


def short_count(number: int) -> str:
    """A parameter count in two significant digits: 302 million is "300M", 734 thousand is "730K"."""
    for unit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= unit:
            return f"{float(f'{number / unit:.2g}'):g}{letter}"
    return str(number)
