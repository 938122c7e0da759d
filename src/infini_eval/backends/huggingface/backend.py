"""transformers: any Hugging Face causal language model, by folder or hub id, with chunked prefill and tensor parallelism."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from infini_eval.api.backend import Backend, Batch, BatchPlan, EarlyStop, Footprint, Rows, WorkItem
from infini_eval.backends import LAZY
from infini_eval.backends._halving import answer_or_halve
from infini_eval.backends.huggingface import load as hf_load
from infini_eval.backends.huggingface import quantized as hf_quantized
from infini_eval.backends.huggingface.load import mesh_shape
from infini_eval.backends.huggingface.prompts import HfPrompts, auto_tokenizer
from infini_eval.config import EvalConfig, LoadSettings, PromptSettings
from infini_eval.distributed.device_memory import available_bytes
from infini_eval.distributed.launch import World
from infini_eval.distributed.mesh import Mesh
from infini_eval.engine.batching import plan_batches
from infini_eval.engine.sampling import sampling_identity
from infini_eval.errors import ConfigError, DataError, OutOfMemory, first_sentence
from infini_eval.packages import versions
from infini_eval.planning.text import gigabytes
from infini_eval.records import Response, Sample

if TYPE_CHECKING:
    from infini_eval.backends.huggingface.generate import BatchGenerator

logger = logging.getLogger(__name__)
_KERNELS: dict[str, Literal["sdpa", "flash", "eager"]] = {"flash_attn": "flash", "eager": "eager"}


class TransformersBackend(Backend):
    """A Hugging Face model on this rank: a replica (dp), or a shard of the one replica (tp = all processes)."""

    settings = LAZY["transformers"].settings
    computes_here = True
    attention = LAZY["transformers"].attention
    stops_early = True
    measures_texts = True

    def __init__(self, config: EvalConfig, world: World) -> None:
        self._config, self._world = config, world
        self._loading = config.settings(LoadSettings)
        hf_load.refuse_disk_without_folder(self._loading)
        self._hf = self._read_config()
        self._dtype = hf_load.dtype_name(self._hf, config.model.dtype)
        self.mesh = Mesh.build(mesh_shape(config.topology, self._loading, self._hf, world.world_size), world.rank)
        self._skeleton = self._open_skeleton()
        self._planned = self._plan_weights()
        self._segment_length = getattr(self._hf.get_text_config(), "segment_length", None)  # of an exported checkpoint
        self._prompts = HfPrompts(
            self._open_tokenizer(),
            chat_template=config.settings(PromptSettings).chat_template,
            segment_length=self._segment_length,
        )
        self._check_vocabulary()
        self.notes: list[str] = []
        self._generator: BatchGenerator | None = None

    def _read_config(self) -> Any:
        return hf_load.read_config(self._config.model_path, self._loading.trust_remote_code)

    def _open_skeleton(self) -> torch.nn.Module:
        """The model's shapes; no memory for its weights."""
        return hf_load.skeleton(self._hf, self._loading.trust_remote_code)

    def _open_tokenizer(self) -> Any:
        path = self._config.tokenizer or self._config.model_path
        return auto_tokenizer(path, trust_remote_code=self._loading.trust_remote_code)

    def _weights_identity(self) -> str:
        return hf_load.fingerprint(self._config.model_path, getattr(self._hf, "_commit_hash", None))

    def model_facts(self) -> Mapping[str, Any]:
        text = self._hf.get_text_config()
        return {
            "name": hf_load.model_name(self._config.model_path),
            "kind": self._hf.model_type,
            "parameters": sum(parameter.numel() for parameter in self._skeleton.parameters()),
            "segment_length": self._segment_length,
            "dtype": self._dtype,
            "quantization": self._loading.quantization,
            "memory": getattr(text, "memory", None),
            "memory_query": getattr(text, "memory_query", None),
            "weight_bytes": None if self._quantized_before else self._planned.bytes,
            "max_position_embeddings": getattr(text, "max_position_embeddings", None),
        }

    def identity(self) -> Mapping[str, Any]:
        return {
            "checkpoint": self._weights_identity(),
            "model": {"dtype": self._dtype, "quantization": self._loading.quantization},
            **self._prompts.identity,
            "sampling": sampling_identity(self._config.sampling),
        }

    def environment(self) -> Mapping[str, Any]:
        shape = self.mesh.shape
        return {
            "ckpt_path": self._config.model_path,
            "tokenizer": self._prompts.tokenizer.name,
            "topology": {"dp": shape.dp, "tp": shape.tp, "pp": shape.pp},
            "device": self._world.device,
            "attn_implementation": self._config.model.attn_implementation,
            "loading": asdict(self._loading),
            "batch_size": self._config.batch_size,
            "packages": versions("transformers", "torch", "accelerate", "bitsandbytes"),
        }

    def prepare(self, sample: Sample, needle: tuple[int, int] | None) -> WorkItem:
        return self._prompts.prepare(sample, needle)

    def token_ids(self, sample: Sample) -> np.ndarray:
        return self._prompts.token_ids(sample)

    def plan(self, items: Sequence[WorkItem], largest: int | None = None) -> BatchPlan:
        """Rows of a batch have exactly the same length, so that nothing is padded."""
        lengths = [item.tokens for item in items]
        self._warn_of_positions(max(lengths) + self._config.max_new_tokens)
        return BatchPlan(plan_batches(lengths, 1, self._config.batch_size, largest), max(lengths))

    def footprint(self, plan: BatchPlan) -> Footprint | None:
        """What this rank will load and compute; None where that is spread over devices, or the weights are packed."""
        loading = self._loading
        if loading.device_map or loading.max_memory or loading.offload_folder or self._quantized_before:
            return None
        return Footprint(
            model=self._hf.to_dict(),
            name=self._config.model_path,
            mesh=self.mesh.shape,
            stage=0,
            device=self._world.device,
            capacity=available_bytes(self._world.device, self._world.local_world_size),
            dtype=self._dtype,
            kv_dtype=self._dtype,
            quantization=f"bnb-{loading.quantization}" if loading.quantization else "none",
            kernel=_KERNELS.get(self._config.model.attn_implementation, "sdpa"),
            prefill_chunk=plan.longest if loading.prefill_chunk == 0 else loading.prefill_chunk,
        )

    def load(self, plan: BatchPlan) -> None:
        import transformers

        from infini_eval.backends.huggingface.generate import BatchGenerator

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        began = time.perf_counter()
        model = hf_load.load(
            self._config.model_path,
            self._config.model,
            self._loading,
            dtype=self._dtype,
            device=self._world.device,
            tp=self.mesh.shape.tp,
        )
        if self._loading.quantization:
            hf_quantized.check_footprint(model, self._planned, self._loading.quantization)
            hf_quantized.use_plain_kernels_where_needed(model)
        logger.info(
            "%s: %s of weights in %s, loaded in %.1f s; prompts as %s",
            self._config.model_path,
            gigabytes(model.get_memory_footprint()),
            self._loading.quantization or ("its own quantization" if self._quantized_before else self._dtype),
            time.perf_counter() - began,
            "chat" if self._prompts.chat else "plain text",
        )
        self._generator = BatchGenerator(model, self._prompts.tokenizer, self._config, self._loading.prefill_chunk)

    def answer(
        self,
        work: Iterator[tuple[Batch, Rows]],
        *,
        early_stop: EarlyStop | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[Batch, list[Response]]]:
        assert self._generator is not None, "load() comes first"
        self._generator.early_stop, self._generator.on_tokens = early_stop, on_tokens
        for batch, prepared in work:
            rows = [prepared[row] for row in batch.rows]
            if self.mesh.shape.tp == 1:
                yield batch, answer_or_halve(rows, self._generator.answer)
            else:
                yield batch, self._answer_together(rows)

    def logprobs(self, item: WorkItem, text: str) -> list[float]:
        assert self._generator is not None, "load() comes first"
        return self._generator.logprobs(item, text)

    def _answer_together(self, rows: list[WorkItem]) -> list[Response]:
        """All shards at once: where one runs out of memory, the run ends and continues with smaller batches."""
        assert self._generator is not None
        try:
            return self._generator.answer(rows)
        except torch.OutOfMemoryError as error:
            problem = OutOfMemory(
                f"out of memory with {len(rows)} samples of {rows[0].tokens:,} tokens at once: {first_sentence(error)}",
                next_step="run the same command again: it continues with smaller batches"
                if len(rows) > 1
                else "use more processes, --dtype bfloat16 or a smaller --prefill-chunk",
            )
            problem.rows = len(rows)
            raise problem from None

    @property
    def _quantized_before(self) -> bool:
        return getattr(self._hf, "quantization_config", None) is not None

    def _plan_weights(self) -> hf_quantized.QuantizationPlan:
        quantization = self._loading.quantization
        if quantization and self._quantized_before:
            raise ConfigError(
                f"--quantization {quantization}: {self._config.model_path!r} is quantised already", valid="leave it out"
            )
        planned = hf_quantized.plan(self._skeleton, quantization, getattr(torch, self._dtype).itemsize)
        if quantization:
            hf_quantized.refuse_what_stays_large(planned, quantization, self._config.model_path)
        return planned

    def _check_vocabulary(self) -> None:
        tokens, rows = self._prompts.tokenizer.vocab_size, self._hf.get_text_config().vocab_size
        if tokens > rows:
            raise DataError(
                f"the tokenizer {self._prompts.tokenizer.name!r} has {tokens} tokens, the model's vocabulary {rows}",
                next_step="pass the tokenizer that the model was trained with: --tokenizer FOLDER",
            )

    def _warn_of_positions(self, longest: int) -> None:
        limit = getattr(self._hf.get_text_config(), "max_position_embeddings", None)
        if limit and longest > limit and self._segment_length is None:  # positions restart in segments
            logger.warning(
                "prompts and answers of up to %d tokens exceed this model's max_position_embeddings %d; nothing is cut, "
                "the model is asked beyond what it was made for",
                longest,
                limit,
            )
