"""vllm: a model in this process through vLLM's own engine; `vllm serve` with the backend openai is the better road."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from infini_eval.backends._backend import Prepared, Rows
from infini_eval.backends._hf_prompts import HfPrompts
from infini_eval.backends._packages import require, versions
from infini_eval.config import EvalConfig, LoadSettings
from infini_eval.distributed.launch import World
from infini_eval.distributed.mesh import Mesh
from infini_eval.engine.batching import Batch, plan_batches
from infini_eval.errors import BackendError, ConfigError, TopologyError
from infini_eval.records import Response, Sample

ROWS = 64  # vLLM schedules them itself; answers are on disk after so many
NOTE = "vLLM has an environment of its own: serve the model there with `vllm serve MODEL`, and use --backend openai --base-url"


class Backend:
    """vLLM starts its own worker processes: --tp and --pp are its sizes, and this runs without torchrun."""

    def __init__(self, config: EvalConfig, world: World) -> None:
        if world.world_size > 1 or (config.topology.dp or 1) > 1:
            raise TopologyError(
                f"{world.world_size} processes, --dp {config.topology.dp}: vLLM starts its own",
                valid="one process; --tp and --pp are passed on to vLLM",
                next_step="start it with python instead of torchrun",
            )
        loading = config.backend_settings.loading
        if loading != LoadSettings(trust_remote_code=loading.trust_remote_code):
            raise ConfigError(
                "of the loading flags, vLLM takes --trust-remote-code only", valid="vllm serve with its own flags"
            )
        self._vllm = require("vllm", extra="vllm", purpose="the backend vllm", note=NOTE)
        self._config, self._loading, self.mesh = config, loading, Mesh()
        self._prompts = HfPrompts(
            config.tokenizer or config.model_path,
            chat_template=config.backend_settings.chat_template,
            trust_remote_code=loading.trust_remote_code,
        )
        self.notes: list[str] = []
        self._llm: Any = None
        self._longest = 0

    def model_facts(self) -> Mapping[str, Any]:
        unknown = dict.fromkeys(("parameters", "segment_length", "memory", "memory_query"))
        return {"name": self._config.model_path, "kind": "vllm", "dtype": self._config.model.dtype or "auto", **unknown}

    def identity(self) -> Mapping[str, Any]:
        model = {"name": self._config.model_path, "dtype": self._config.model.dtype or "auto"}
        return {"model": model, **self._prompts.identity, "sampling": asdict(self._config.sampling)}

    def environment(self) -> Mapping[str, Any]:
        return {
            "ckpt_path": self._config.model_path,
            "topology": {"dp": 1, "tp": self._config.topology.tp or 1, "pp": self._config.topology.pp or 1},
            "packages": versions("vllm", "torch", "transformers"),
        }

    def prepare(self, sample: Sample, needle: tuple[int, int] | None) -> Prepared:
        return self._prompts.prepare(sample, needle)

    def token_ids(self, sample: Sample) -> np.ndarray:
        return self._prompts.token_ids(sample)

    def plan(self, prepared: Sequence[Prepared], largest: int | None = None) -> list[Batch]:
        lengths = [item.tokens for item in prepared]
        self._longest = max(lengths)
        return plan_batches(lengths, None, self._config.batch_size or ROWS, largest)

    def load(self) -> None:
        try:
            self._llm = self._start()
        except (ValueError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())[:500]
            raise BackendError(f"vLLM could not start with {self._config.model_path!r}: {reason}") from None

    def _start(self) -> Any:
        return self._vllm.LLM(
            model=self._config.model_path,
            tokenizer=self._config.tokenizer,
            dtype=self._config.model.dtype or "auto",
            tensor_parallel_size=self._config.topology.tp or 1,
            pipeline_parallel_size=self._config.topology.pp or 1,
            max_model_len=self._longest + self._config.max_new_tokens,
            trust_remote_code=self._loading.trust_remote_code,
            enable_chunked_prefill=True,
        )

    def answer(
        self, work: Iterator[tuple[Batch, Rows]], on_tokens: Callable[[int], None] | None = None
    ) -> Iterator[tuple[Batch, list[Response]]]:
        assert self._llm is not None, "load() comes first"
        for batch, prepared in work:
            rows, began = [prepared[row] for row in batch.rows], time.perf_counter()
            prompts = [{"prompt_token_ids": row.ids.tolist()} for row in rows]
            outputs = self._llm.generate(prompts, [self._sampling(row) for row in batch.rows], use_tqdm=False)
            seconds = (time.perf_counter() - began) / len(rows)
            yield batch, [_response(*pair, seconds) for pair in zip(rows, outputs, strict=True)]
            if on_tokens is not None:
                on_tokens(sum(row.tokens for row in rows))

    def _sampling(self, row: int) -> Any:
        sampling = self._config.sampling
        return self._vllm.SamplingParams(
            max_tokens=self._config.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=sampling.seed + row if sampling.temperature > 0 else None,
        )


def _response(prepared: Prepared, output: Any, seconds: float) -> Response:
    answer, read = output.outputs[0], len(output.prompt_token_ids)
    if read < prepared.tokens:
        return Response(
            "", [], read, "error", seconds, f"truncated: vLLM read {read:,} of {prepared.tokens:,} prompt tokens"
        )
    return Response(
        answer.text, list(answer.token_ids), read, "stop" if answer.finish_reason == "stop" else "length", seconds
    )
