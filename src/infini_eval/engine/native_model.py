"""The public door to the native model: `load_model` gives an object with `.logits`, `.score`, `.generate` and `.complete`.

`load_replica` loads one rank's part of it: its shard of its stage's layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from infini_eval.api.backend import Batch
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import (
    FeatureMap,
    Memory,
    MemoryDtype,
    MemoryQuery,
    ModelConfig,
    ModelSettings,
    Sampling,
    Topology,
)
from infini_eval.data.tokenizer import Tokenizer
from infini_eval.distributed.mesh import Mesh, MeshShape, ModelShape, resolve_topology, stage_layers
from infini_eval.distributed.tensor_parallel import TensorParallel
from infini_eval.engine.batching import CHUNK_TOKENS, plan_batches
from infini_eval.engine.fixed_decode import accelerate
from infini_eval.engine.generation import BatchGeneration, Completion, Limits, Links, run_pipeline
from infini_eval.engine.prefix_sharing import PrefixCache, Prefixes, SnapshotKind
from infini_eval.engine.prefixes import border_digests, digest_at
from infini_eval.engine.sampling import Sampler
from infini_eval.engine.scoring import BatchScoring, LogitsOfAll, Scored, ScoreTable
from infini_eval.engine.text import OnToken, TextCompletion, TextEnding, check_vocabulary, end_ids, open_tokenizer
from infini_eval.errors import ConfigError, NumericsError
from infini_eval.models.llama import Llama
from infini_eval.models.load import Resolved, load_llama, resolve

Key = TypeVar("Key")
Answer = TypeVar("Answer")
Tokens = Sequence[int] | np.ndarray | torch.Tensor


def load_model(
    ckpt_path: str | Path,
    *,
    dtype: str | None = None,
    device: str | None = None,
    memory: Memory | None = None,
    memory_query: MemoryQuery | None = None,
    memory_dtype: MemoryDtype = "float32",
    feature_map: FeatureMap = "reference",
    tokenizer: str | None = None,
) -> NativeModel:
    """Load a nanotron checkpoint (Infini-Attention or plain Llama) in this process.

    Args:
        ckpt_path: a step folder with config.yaml, or its parent with latest.txt.
        dtype: "float32", "bfloat16" or "float16"; None: as the checkpoint says.
        device: "cpu" or "cuda"; None: cuda when present.
        memory: "on", "off" (no memory and no gate, as turn_on_memory: false) or "ablate" (gate kept, memory read as
            zero); None: as the checkpoint says.
        memory_query: "rotary" or "plain"; None: as the checkpoint says.
        memory_dtype: "float32" or "model".
        feature_map: "reference" (elu(u) + 1, as trained) or "stable", the same function without its cancellation.
        tokenizer: a folder, a tokenizer.json or a hub name; None: the checkpoint's, opened when it is needed.

    Raises:
        CheckpointError: a file is missing, damaged or at odds with config.yaml.
        ConfigError: a setting cannot go together with this checkpoint or machine.
    """
    settings = ModelSettings(
        dtype=dtype,
        device=device,
        memory=memory,
        memory_query=memory_query,
        memory_dtype=memory_dtype,
        feature_map=feature_map,
    )
    model = NativeModel.load(Checkpoint(ckpt_path), settings)
    model.tokenizer_path = tokenizer
    return model


class NativeModel:
    """A checkpoint ready to compute: this process's tensor-parallel shard of this process's pipeline stage."""

    checkpoint: Checkpoint | None = None  # where it was loaded from, and how; None for a model made in memory
    settings: ModelSettings = ModelSettings()
    tokenizer_path: str | None = None  # the one asked for in place of the checkpoint's

    def __init__(
        self,
        llama: Llama,
        resolved: Resolved,
        links: Links,
        *,
        chunk_segments: int | None = None,
        prefix_cache_gb: float = ModelSettings.prefix_cache_gb,
        weights: str = "in memory",
        compile: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        """weights: what tells these weights from others, for the states that are kept of shared prefixes."""
        self.llama, self.resolved, self.links = llama, resolved, links
        self.config = resolved.config
        self._chunk_segments, self._prefix_cache_gb, self._weights = chunk_segments, prefix_cache_gb, weights
        self.decoders = accelerate(llama, self.links.stages, compile=compile, cuda_graphs=cuda_graphs)

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        settings: ModelSettings,
        *,
        tensor_parallel: TensorParallel | None = None,
        links: Links | None = None,
        layers: range | None = None,
        device: torch.device | None = None,
    ) -> NativeModel:
        """Load the part of a checkpoint that one rank computes; the defaults are the whole model in one process."""
        resolved = resolve(checkpoint.config, settings, device)
        llama = load_llama(checkpoint, resolved, tensor_parallel or TensorParallel(), layers)
        model = cls(
            llama,
            resolved,
            links or Links(),
            chunk_segments=settings.chunk_segments,
            prefix_cache_gb=settings.prefix_cache_gb,
            weights=f"{checkpoint.fingerprint()} {layers}",
            compile=settings.compile,
            cuda_graphs=settings.cuda_graphs,
        )
        model.checkpoint, model.settings = checkpoint, settings
        return model

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that was asked for, else the checkpoint's; DataError where there is none or it does not fit."""
        if self.checkpoint is None:
            raise ConfigError("the NativeModel was not loaded from a checkpoint", valid="infini_eval.load_model(PATH)")
        tokenizer = open_tokenizer(self.tokenizer_path, self.checkpoint)
        check_vocabulary(tokenizer, self.checkpoint)
        return tokenizer

    @property
    def chat_template(self) -> str | None:
        """The tokenizer's chat template (`tokenizer.render_chat` applies it), None where it has none."""
        return self.tokenizer.chat_template

    @property
    def max_length(self) -> int:
        """The context length that the checkpoint declares, its max_position_embeddings; nothing here enforces it.

        A plain Llama has learned no positions beyond it. With Infini-Attention positions begin anew in every segment, so
        that longer contexts are as valid (`has_length_limit` is False).
        """
        return self.config.max_position_embeddings

    @property
    def has_length_limit(self) -> bool:
        """Whether `max_length` bounds what the model can read."""
        return not self.config.has_segments

    @torch.inference_mode()
    def logits(self, input_ids: Any) -> torch.Tensor:
        """Compute the logits of every position, for checks: [B, T] int64 -> [B, T, V] fp32 on the CPU (on every rank alike)."""
        given = torch.as_tensor(input_ids)
        if given.dim() != 2 or 0 in given.shape:
            raise ConfigError(f"input_ids has shape {tuple(given.shape)}", valid="[B, T] with at least one token")
        self._check_ids(given.numpy())
        ids_BT = given.to(torch.int64)
        prompts = list(ids_BT.numpy())
        sampler = self._sampler([""] * len(prompts), Sampling(), None)
        generation = LogitsOfAll(self.llama, self.links, sampler, prompts, Limits(1), self.chunk_tokens(len(prompts)))
        while not generation.finished:
            generation.run_unit()
        shape = (*ids_BT.shape, self.config.vocab_size)
        logits = generation.logits() if self.links.last else torch.empty(shape)
        self.links.flush()
        return self.links.share_from_last(logits)

    @torch.inference_mode()
    def score(
        self,
        rows: Sequence[Tokens],
        scored: Sequence[int],
        *,
        top: int = 0,
        batch_size: int | None = None,
        vocabulary: int | None = None,
        prefix_cache: PrefixCache | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> list[Scored]:
        """Compute the log-probabilities of the last tokens of each row, streamed; on every rank of a replica alike.

        Memory grows with what is returned, not with the length of a row times the vocabulary. Rows that begin alike,
        as the choices of one question do, are computed together up to where they part.

        Args:
            rows: token ids of each row (integers in a sequence or array), context and scored tokens together.
            scored: how many tokens at the end of each row are scored: at least 1, and fewer than the row has.
            top: how many of the most probable tokens are returned at each place.
            batch_size: rows computed together (None: by length).
            vocabulary: number of real tokens; padding rows of the head beyond it have no probability (None: all real).
            prefix_cache: states that earlier calls kept (`new_prefix_cache`), and where those of these rows are kept;
                None for one that ends with this call.
            on_tokens: called with the number of tokens of each unit of work, for progress.

        Raises:
            ConfigError: a row, a number of scored tokens or a token is not what it must be.
            NumericsError: a row's logits became NaN or infinite; its `answers` are the scores, with None for such rows.
        """
        arrays = [np.asarray(row) for row in rows]
        real = min(vocabulary or self.config.vocab_size, self.config.vocab_size)
        self._check_scored(arrays, scored, top, real)
        table = ScoreTable(scored, top, self.llama.device)
        reused = [0] * len(arrays)
        cache = self.new_prefix_cache() if prefix_cache is None else prefix_cache
        links = self.links.apart()  # answers may be under way: their tokens are awaited after this
        work = self._scorings(arrays, scored, table, batch_size, real, cache, links, prefix_cache is not None)
        for rows_of_batch, completions in run_pipeline(work, links, on_tokens):
            for row, completion in zip(rows_of_batch, completions, strict=True):
                reused[row] = completion.reused_tokens
        table.share(links)
        found = [table.row(row, reused[row]) for row in range(len(arrays))]
        return whole_or_raise([one if np.isfinite(one.logprobs).all() else None for one in found], "row")

    def _scorings(
        self,
        rows: Sequence[np.ndarray],
        scored: Sequence[int],
        table: ScoreTable,
        batch_size: int | None,
        vocabulary: int,
        cache: PrefixCache | None,
        links: Links,
        keep_ends: bool,
    ) -> Iterator[tuple[tuple[int, ...], BatchScoring]]:
        """The batches of `score`, each with the rows that it is made of."""
        prompts = [row[:-1] for row in rows]  # the last token is predicted, nothing is predicted from it
        first_read = [len(prompt) - count for prompt, count in zip(prompts, scored, strict=True)]
        for batch, prefixes in self._planned(prompts, batch_size, cache, first_read, keep_ends):
            of = batch.rows
            sampler = self._sampler([""] * len(of), Sampling(), vocabulary)
            read = [prompts[row] for row in of]
            plan = (self.llama, links, sampler, read, Limits(1), self.chunk_tokens, prefixes)
            places, counts = [table.starts[row] for row in of], [scored[row] for row in of]
            yield of, BatchScoring([rows[row] for row in of], counts, places, table, vocabulary, *plan)

    def _planned(
        self,
        prompts: Sequence[np.ndarray],
        batch_size: int | None,
        cache: PrefixCache | None,
        first_read: Sequence[int] | None = None,
        keep_ends: bool = False,
    ) -> Iterator[tuple[Batch, Prefixes | None]]:
        """Deal prompts into batches, and say what each may share.

        Args:
            first_read: as of `Prefixes`, of all prompts.
            keep_ends: whether the last state before what is read of a prompt is kept in the cache, for later calls.
        """
        length = self.config.segment_length
        digests = [border_digests(prompt, length) for prompt in prompts] if cache is not None and length else None
        for batch in plan_batches([len(prompt) for prompt in prompts], length, batch_size, prefixes=digests):
            prefixes = prefixes_of(batch, digests, cache, first_read)
            if keep_ends and prefixes is not None and length:
                first = [len(prompts[row]) - 1 if first_read is None else first_read[row] for row in batch.rows]
                prefixes = with_ends(prefixes, [token // length for token in first])
            yield batch, prefixes

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Tokens],
        max_new_tokens: int,
        *,
        stop_ids: Iterable[int] | None = None,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        batch_size: int | None = None,
        vocabulary: int | None = None,
    ) -> list[list[int]]:
        """Continue each prompt (integers in a sequence or array) by at most `max_new_tokens` tokens.

        Args:
            stop_ids: tokens that end an answer and are not part of it (None: the configuration's eos_token_id; () for
                none).
            temperature: 0 is greedy; otherwise draws follow from `seed` and the prompt's place in the list.
            batch_size: prompts computed together (None: by length).
            vocabulary: number of real tokens; padding rows of the head beyond it are never drawn.

        Returns:
            The new tokens of each prompt.

        Raises:
            ConfigError: a prompt is empty, or a token is no integer or outside the vocabulary.
            NumericsError: a prompt's logits became NaN or infinite. All other prompts were answered by then: its `answers`
                are the list that would have been returned, with None for such prompts.
        """
        arrays = self._checked_prompts(prompts, max_new_tokens)
        limits, sampling = Limits(max_new_tokens, self._stop_ids(stop_ids)), Sampling(temperature, top_k, top_p, seed)
        answers: list[list[int] | None] = [None] * len(arrays)
        for row, completion in self._answers(arrays, limits, sampling, batch_size, vocabulary):
            answers[row] = None if completion.finish == "bad_logits" else completion.token_ids
        return whole_or_raise(answers, "prompt")

    @torch.inference_mode()
    def complete(
        self,
        prompts: Sequence[str | Tokens],
        max_new_tokens: int | Sequence[int],
        *,
        stop: Sequence[str] = (),
        stop_ids: Iterable[int] | None = None,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        logprobs: int | None = None,
        batch_size: int | None = None,
        on_token: OnToken | None = None,
        prefix_cache: PrefixCache | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> list[TextCompletion]:
        """Continue texts (or token ids) by at most `max_new_tokens` tokens, one number for all or one for each.

        Args:
            stop: strings that end an answer, wherever its tokens are cut; the text ends before them.
            stop_ids: tokens that end an answer (None: the tokenizer's end token, else the configuration's).
            temperature: 0 is greedy; otherwise draws follow from `seed` and the prompt's place in the list.
            logprobs: score the new tokens, with so many of the most probable ones at each place; None: do not. The
                scores are those of temperature 1, and are taken by reading prompt and answer again.
            on_token: called with a prompt's number and its new tokens so far, on every rank, as they are drawn.
            prefix_cache: states that earlier calls kept (`new_prefix_cache`), and where those of these prompts are kept.
            on_tokens: called with the number of tokens of each unit of work, for progress.

        Raises:
            ConfigError: a prompt is empty, a token is no integer or outside the vocabulary, or a stop string is empty.
            DataError: there is no tokenizer, or it does not fit.
            NumericsError: a prompt's logits became NaN or infinite; its `answers` are those of the others, as `generate`'s.
        """
        limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
        if len(limits) != len(prompts):
            raise ConfigError(f"{len(prompts)} prompts, and max_new_tokens for {len(limits)}")
        encoded = [self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
        arrays = self._checked_prompts(encoded, min(limits, default=1))
        ending = TextEnding(self.tokenizer, stop, limits, on_token)
        ends = end_ids(self.tokenizer, self.config) if stop_ids is None else frozenset(stop_ids)
        longest = Limits(max(limits, default=1), ends)
        sampling, vocabulary = Sampling(temperature, top_k, top_p, seed), self.tokenizer.vocab_size
        if prefix_cache is None and logprobs is not None:
            prefix_cache = self.new_prefix_cache()  # so that what is read again is the end of the prompts only
        found: dict[int, TextCompletion | None] = dict.fromkeys(range(len(arrays)))
        answers = self._answers(
            arrays, longest, sampling, batch_size, vocabulary, prefix_cache, ending.may_end, on_tokens
        )
        for row, completion in answers:
            if completion.finish != "bad_logits":
                found[row] = ending.completion(row, completion, len(arrays[row]))
        if logprobs is not None:
            found |= self._with_scores(arrays, found, logprobs, batch_size, prefix_cache)
        return whole_or_raise([found[row] for row in range(len(arrays))], "prompt")

    def _with_scores(
        self,
        prompts: Sequence[np.ndarray],
        found: Mapping[int, TextCompletion | None],
        top: int,
        batch_size: int | None,
        cache: PrefixCache | None,
    ) -> dict[int, TextCompletion | None]:
        """The answers with the scores of their tokens, where they have any; None where these are not finite."""
        some = {row: one for row, one in found.items() if one is not None and one.token_ids}
        rows = [np.concatenate((prompts[row], np.asarray(one.token_ids))) for row, one in some.items()]
        counts, size = [len(one.token_ids) for one in some.values()], self.tokenizer.vocab_size
        try:
            scores: Sequence[Scored | None] = self.score(
                rows, counts, top=top, batch_size=batch_size, vocabulary=size, prefix_cache=cache
            )
        except NumericsError as error:
            scores = error.answers
        pairs = zip(some.items(), scores, strict=True)
        return {row: None if one is None else replace(answer, scores=one) for (row, answer), one in pairs}

    def _checked_prompts(self, prompts: Sequence[Tokens], max_new_tokens: int) -> list[np.ndarray]:
        arrays = [np.asarray(prompt) for prompt in prompts]
        if any(array.ndim != 1 or array.size == 0 for array in arrays) or max_new_tokens < 1:
            raise ConfigError("every prompt needs at least one token, and max_new_tokens must be at least 1")
        for array in arrays:
            self._check_ids(array)
        return arrays

    def _answers(
        self,
        prompts: Sequence[np.ndarray],
        limits: Limits,
        sampling: Sampling,
        batch_size: int | None,
        vocabulary: int | None,
        prefix_cache: PrefixCache | None = None,
        may_end: Callable[[int, Sequence[int]], bool] | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[int, Completion]]:
        """Continue prompts in planned batches: each one's number and completion, in the order in which they end."""
        cache = self.new_prefix_cache() if prefix_cache is None else prefix_cache
        work = (
            (batch, [prompts[row] for row in batch.rows], list(map(str, batch.rows)), prefixes)
            for batch, prefixes in self._planned(prompts, batch_size, cache, keep_ends=prefix_cache is not None)
        )
        early_stop = None if may_end is None else lambda batch, row, ids: may_end(batch.rows[row], ids)
        for batch, completions in self.run(work, limits, sampling, vocabulary, on_tokens, early_stop):
            yield from zip(batch.rows, completions, strict=True)

    def run(
        self,
        work: Iterator[tuple[Key, Sequence[np.ndarray], Sequence[str], Prefixes | None]],
        limits: Limits,
        sampling: Sampling,
        vocabulary: int | None = None,
        on_tokens: Callable[[int], None] | None = None,
        early_stop: Callable[[Key, int, Sequence[int]], bool] | None = None,
    ) -> Iterator[tuple[Key, list[Completion]]]:
        """Answer batches as they come, and yield each one's key with its completions.

        Args:
            work: (key, token ids of each row, names that tell the rows' draws apart, what rows may share); the same
                on every stage.
            vocabulary: number of real tokens; padding rows of the head beyond it are never drawn.
            on_tokens: called with the number of tokens of each unit of work.
            early_stop: of a key, a row of its batch and the row's new tokens, whether the answer may end here; it must
                say the same on every rank.
        """

        def generations() -> Iterator[tuple[Key, BatchGeneration]]:
            for key, rows, names, prefixes in work:
                sampler = self._sampler(names, sampling, vocabulary)
                may_end = None if early_stop is None else partial(early_stop, key)
                options = (self.chunk_tokens, prefixes, may_end, self.decoders)
                yield key, BatchGeneration(self.llama, self.links, sampler, rows, limits, *options)

        with torch.inference_mode():
            yield from run_pipeline(generations(), self.links, on_tokens)

    def new_prefix_cache(self) -> PrefixCache | None:
        """Make an empty cache for `run`; None where prefixes are not shared: switched off, or a model without segments.

        It holds for as long as the weights are not changed.
        """
        if self.config.segment_length is None or not self._prefix_cache_gb:
            return None
        llama = self.llama
        kind = SnapshotKind(
            identity=f"{self._weights} {self.resolved} {llama.tp.rank}/{llama.tp.size}",
            layers=len(llama.layers) if llama.settings.keeps_memory else 0,
            shape=(llama.kv_heads, self.config.head_dim, self.config.head_dim + 1),
            dtype=llama.memory_dtype,
            device=llama.device,
            counted_layers=max(map(len, stage_layers(self.config, self.links.stages))),
        )
        return PrefixCache(kind, int(self._prefix_cache_gb * 10**9))

    def chunk_tokens(self, rows: int) -> int:
        """Choose the tokens of each row that one step computes."""
        if self._chunk_segments is not None and self.config.segment_length is not None:
            return self._chunk_segments * self.config.segment_length
        return max(1, CHUNK_TOKENS.get(self.llama.device.type, CHUNK_TOKENS["cpu"]) // rows)

    def _sampler(self, names: Sequence[str], sampling: Sampling, vocabulary: int | None) -> Sampler:
        size = self.config.vocab_size
        return Sampler(sampling, self.llama.tp, size, min(vocabulary or size, size), names)

    def _stop_ids(self, stop_ids: Iterable[int] | None) -> frozenset[int]:
        if stop_ids is not None:
            return frozenset(stop_ids)
        eos = self.config.eos_token_id
        return frozenset() if eos is None else frozenset([eos])

    def _check_scored(self, rows: Sequence[np.ndarray], scored: Sequence[int], top: int, vocabulary: int) -> None:
        if len(rows) != len(scored):
            raise ConfigError(f"{len(rows)} rows, and numbers of scored tokens for {len(scored)}")
        if not 0 <= top <= vocabulary:
            raise ConfigError(f"top is {top}", valid=f"0 to {vocabulary}, the size of the vocabulary")
        for number, (row, count) in enumerate(zip(rows, scored, strict=True)):
            if row.ndim != 1 or not 1 <= count < len(row):
                raise ConfigError(
                    f"row {number} has shape {row.shape}, of which {count} tokens are to be scored",
                    valid="one dimension, and 1 to all but the first of its tokens: the first follows nothing",
                )
            self._check_ids(row)
            self._check_ids(row[-count:], vocabulary)

    def _check_ids(self, ids: np.ndarray, vocabulary: int | None = None) -> None:
        if not np.issubdtype(ids.dtype, np.integer):
            raise ConfigError(f"token ids are of type {ids.dtype}", valid="integers, as a tokenizer gives them")
        size = vocabulary or self.config.vocab_size
        lowest, highest = int(ids.min()), int(ids.max())
        if lowest < 0 or highest >= size:
            wrong = lowest if lowest < 0 else highest
            raise ConfigError(
                f"token id {wrong} is outside the model's vocabulary of {size}",
                next_step="use the tokenizer that the model was trained with",
            )


def whole_or_raise(answers: Sequence[Answer | None], what: str) -> list[Answer]:
    """The answers where there are all; NumericsError, which holds them, where some are None. `what` one is the answer of."""
    lost = [number for number, answer in enumerate(answers) if answer is None]
    if not lost:
        return [answer for answer in answers if answer is not None]
    shown = ", ".join(map(str, lost[:5])) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
    error = NumericsError(f"the logits of {what}{'s' * (len(lost) > 1)} {shown} became NaN or infinite")
    error.answers = list(answers)
    raise error


def mesh_shape(checkpoint: Checkpoint, asked: Topology, world_size: int) -> MeshShape:
    """Choose the mesh for a checkpoint; TopologyError, listing what fits, where a size asked for cannot be had."""
    saved = {"saved_tp": checkpoint.saved_tp, "saved_pp": checkpoint.saved_pp}
    return resolve_topology(asked, world_size, ModelShape.of(checkpoint.config), **saved)


def my_layers(config: ModelConfig, mesh: Mesh) -> range:
    """Find the decoder layers of this rank's stage."""
    return stage_layers(config, mesh.shape.pp)[mesh.pp_rank]


def load_replica(checkpoint: Checkpoint, settings: ModelSettings, mesh: Mesh, device: str) -> NativeModel:
    """Load what this rank computes: its tensor-parallel shard of its stage's layers."""
    tensor_parallel = TensorParallel(mesh.tp_rank, mesh.shape.tp, mesh.tp_group)
    links = Links(mesh.pp_rank, mesh.shape.pp, mesh.pp_ranks, mesh.pp_group, mesh.pp_token_group)
    return NativeModel.load(
        checkpoint,
        settings,
        tensor_parallel=tensor_parallel,
        links=links,
        layers=my_layers(checkpoint.config, mesh),
        device=torch.device(device),
    )


def prefixes_of(
    batch: Batch,
    digests: Sequence[bytes] | None,
    cache: PrefixCache | None,
    first_read: Sequence[int] | None = None,
) -> Prefixes | None:
    """Say what a planned batch may share; `digests`, and `first_read` of `Prefixes`, of all planned prompts."""
    if digests is None or cache is None:
        return None
    first = None if first_read is None else [first_read[row] for row in batch.rows]
    return Prefixes([digests[row] for row in batch.rows], batch.snapshot_points, cache, first)


def with_ends(prefixes: Prefixes, borders: Sequence[int]) -> Prefixes:
    """Keep the state of each prompt at a border of its own too (0: none)."""
    ends = {(border, digest_at(each, border)) for each, border in zip(prefixes.digests, borders, strict=True) if border}
    return replace(prefixes, snapshot_points=[*prefixes.snapshot_points, *sorted(ends - {*prefixes.snapshot_points})])
