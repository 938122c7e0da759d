"""vllm: a model in this process through vLLM's own engine; `vllm serve` with the backend openai is the better road."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from infini_eval.api.backend import Backend, Batch, BatchPlan, EarlyStop, Rows, WorkItem
from infini_eval.backends import LAZY
from infini_eval.backends._remote import json_object
from infini_eval.backends.huggingface import load as hf_load
from infini_eval.backends.huggingface.prompts import HfPrompts, auto_tokenizer
from infini_eval.config import EvalConfig, LoadSettings, PromptSettings, VllmSettings
from infini_eval.distributed.launch import World
from infini_eval.distributed.mesh import Mesh
from infini_eval.engine.batching import plan_batches
from infini_eval.errors import BackendError, CheckpointError, ConfigError, TopologyError, in_one_line
from infini_eval.packages import require, versions
from infini_eval.records import Response, Sample

logger = logging.getLogger(__name__)
NOTE = "vLLM has an environment of its own: serve the model there with `vllm serve MODEL`, and use --backend openai --base-url"
EXAMPLE = '{"distributed_executor_backend": "ray", "max_model_len": 131072}'
# Arguments that say where the model computes and with how much memory, not what it answers.
PLACEMENT = frozenset(
    {
        "distributed_executor_backend",
        "nnodes",
        "node_rank",
        "master_addr",
        "master_port",
        "gpu_memory_utilization",
        "kv_cache_memory_bytes",
        "cpu_offload_gb",
        "max_model_len",
        "max_num_seqs",
        "max_num_batched_tokens",
        "disable_custom_all_reduce",
        "enforce_eager",
    }
)


def import_vllm() -> Any:
    """The package; its log goes to stderr, since stdout is for results."""
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    return require("vllm", extra="vllm", purpose="the backend vllm", note=NOTE)


def config_of(path: str) -> dict[str, Any]:
    """config.json as it is: vLLM knows models that this transformers does not. CheckpointError where there is none."""
    transformers = require("transformers", extra="transformers", purpose="the backend vllm")
    try:
        found, _ = transformers.PreTrainedConfig.get_config_dict(path)
        reason = "it has no config.json"
    except OSError as error:
        found, reason = {}, in_one_line(error, 300)
    if not found:
        raise CheckpointError(
            f"{path!r} is no model: {reason}",
            valid="a folder with config.json, or a hub id that is reachable or cached",
        )
    return dict(found)


def dtype_of(config: Mapping[str, Any], asked: str | None) -> str:
    """The dtype asked for, else the checkpoint's: left to itself vLLM makes bfloat16 of float32 weights."""
    text = config.get("text_config") or {}
    own = next((part[key] for part in (config, text) for key in ("dtype", "torch_dtype") if part.get(key)), None)
    return asked or (str(own) if own else "auto")


def start(vllm: Any, config: EvalConfig, *, dtype: str, longest: int, extra: Mapping[str, Any]) -> Any:
    """vLLM's LLM for prompts with answers of `longest` tokens; what it refuses is a BackendError."""
    arguments: dict[str, Any] = {
        "model": config.model_path,
        "tokenizer": config.tokenizer,
        "dtype": dtype,
        "tensor_parallel_size": config.topology.tp or 1,
        "pipeline_parallel_size": config.topology.pp or 1,
        "max_model_len": longest,
        "trust_remote_code": config.settings(LoadSettings).trust_remote_code,
        "enable_chunked_prefill": True,
    }
    try:
        llm = vllm.LLM(**{**arguments, **extra})
    except (ValueError, RuntimeError, OSError, TypeError) as error:  # TypeError: an argument that LLM does not have
        raise _refused(config.model_path, in_one_line(error, None)) from None
    model = llm.llm_engine.vllm_config.model_config
    logger.info(
        "vLLM %s computes in %s, at most %d tokens a sample", vllm.__version__, model.dtype, model.max_model_len
    )
    return llm


def _refused(path: str, reason: str) -> BackendError:
    too_long = "max_model_len" in reason and "greater than" in reason
    return BackendError(
        f"vLLM could not start with {path!r}: {reason[:500]}",
        next_step="pass --vllm-extra '{\"max_model_len\": N}' with what the model takes: longer prompts then fail one by "
        "one, and the others are answered"
        if too_long
        else None,
    )


ROWS = 64  # vLLM schedules them itself; answers are on disk after so many


class VllmBackend(Backend):
    """vLLM starts its own worker processes: --tp and --pp are its sizes, and this runs without torchrun."""

    settings = LAZY["vllm"].settings

    def __init__(self, config: EvalConfig, world: World) -> None:
        _refuse_what_it_does_not_take(config, world)
        self._extra = json_object("--vllm-extra", config.settings(VllmSettings).extra, EXAMPLE)
        self._vllm = import_vllm()
        self._config, self._world, self.mesh = config, world, Mesh()
        self._hf = config_of(config.model_path)
        self._dtype = dtype_of(self._hf, config.model.dtype)
        self._prompts = HfPrompts(
            auto_tokenizer(
                config.tokenizer or config.model_path,
                trust_remote_code=config.settings(LoadSettings).trust_remote_code,
            ),
            chat_template=config.settings(PromptSettings).chat_template,
        )
        self.notes: list[str] = []
        self._llm: Any = None
        self._limit = 0

    def model_facts(self) -> Mapping[str, Any]:
        unknown = dict.fromkeys(("parameters", "segment_length", "memory", "memory_query"))
        name = hf_load.model_name(self._config.model_path)
        return {"name": name, "kind": self._hf.get("model_type", "vllm"), "dtype": self._dtype, **unknown}

    def identity(self) -> Mapping[str, Any]:
        extra = {name: value for name, value in self._extra.items() if name not in PLACEMENT}
        return {
            "checkpoint": hf_load.fingerprint(self._config.model_path, self._hf.get("_commit_hash")),
            "model": {"dtype": self._dtype, "vllm_extra": extra},
            **self._prompts.identity,
            "sampling": asdict(self._config.sampling),
        }

    def environment(self) -> Mapping[str, Any]:
        topology = self._config.topology
        return {
            "ckpt_path": self._config.model_path,
            "topology": {"dp": 1, "tp": topology.tp or 1, "pp": topology.pp or 1},
            "vllm_extra": self._extra,
            "packages": versions("torch", "transformers") | {"vllm": self._vllm.__version__},
        }

    def prepare(self, sample: Sample, needle: tuple[int, int] | None) -> WorkItem:
        return self._prompts.prepare(sample, needle)

    def token_ids(self, sample: Sample) -> np.ndarray:
        return self._prompts.token_ids(sample)

    def plan(self, items: Sequence[WorkItem], largest: int | None = None) -> BatchPlan:
        lengths = [item.tokens for item in items]
        return BatchPlan(plan_batches(lengths, None, self._config.batch_size or ROWS, largest), max(lengths))

    def load(self, plan: BatchPlan) -> None:
        longest = plan.longest + self._config.max_new_tokens
        self._llm = start(self._vllm, self._config, dtype=self._dtype, longest=longest, extra=self._extra)
        self._limit = self._llm.llm_engine.vllm_config.model_config.max_model_len

    def answer(
        self,
        work: Iterator[tuple[Batch, Rows]],
        *,
        early_stop: EarlyStop | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[Batch, list[Response]]]:
        assert self._llm is not None, "load() comes first"
        for batch, prepared in work:
            yield batch, self._answered({row: prepared[row] for row in batch.rows})
            if on_tokens is not None:
                on_tokens(sum(prepared[row].tokens for row in batch.rows))

    def _answered(self, rows: Mapping[int, WorkItem]) -> list[Response]:
        """One response a row, in their order; rows that vLLM would have to cut are not sent."""
        budget = self._config.max_new_tokens
        fits = {row: item for row, item in rows.items() if item.tokens + budget <= self._limit}
        answered = dict(zip(fits, self._generated(fits), strict=True))
        return [answered.get(row) or _too_long(item, budget, self._limit) for row, item in rows.items()]

    def _generated(self, rows: Mapping[int, WorkItem]) -> list[Response]:
        if not rows:
            return []
        prompts = [{"prompt_token_ids": item.ids.tolist()} for item in rows.values()]
        began = time.perf_counter()
        try:
            outputs = self._llm.generate(prompts, [self._sampling(row) for row in rows], use_tqdm=False)
        except Exception as error:
            if not type(error).__module__.startswith("vllm."):
                raise  # a mistake of ours, not the engine's end
            raise BackendError(
                f"vLLM stopped: {in_one_line(error)}",
                next_step="mend this and run the same command again: it continues where it stopped",
            ) from None
        seconds = (time.perf_counter() - began) / len(rows)
        return [self._response(*pair, seconds) for pair in zip(rows.values(), outputs, strict=True)]

    def _sampling(self, row: int) -> Any:
        sampling = self._config.sampling
        return self._vllm.SamplingParams(
            max_tokens=self._config.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=sampling.seed + row if sampling.temperature > 0 else None,
        )

    def _response(self, prepared: WorkItem, output: Any, seconds: float) -> Response:
        answer, read = output.outputs[0], len(output.prompt_token_ids)
        if read < prepared.tokens:
            problem = f"truncated: vLLM read {read:,} of {prepared.tokens:,} prompt tokens"
            return Response("", [], read, "error", seconds, problem)
        stopped = answer.finish_reason == "stop"
        ids = list(answer.token_ids)[: -1 if stopped else None]  # the stop token is no part of the answer
        return Response(self._prompts.tokenizer.decode(ids), ids, read, "stop" if stopped else "length", seconds)


def _too_long(prepared: WorkItem, budget: int, limit: int) -> Response:
    asked = f"{prepared.tokens:,} tokens and an answer of {budget:,}"
    problem = f"the prompt is too long: {asked}, but vLLM's max_model_len is {limit:,}"
    return Response("", [], prepared.tokens, "error", 0.0, problem)


def _refuse_what_it_does_not_take(config: EvalConfig, world: World) -> None:
    if world.world_size > 1 or (config.topology.dp or 1) > 1:
        asked = f"{world.world_size} processes" if world.world_size > 1 else f"--dp {config.topology.dp}"
        raise TopologyError(
            f"{asked}: vLLM starts its own processes",
            valid="one process; --tp and --pp are passed on to vLLM",
            next_step="start it with python instead of torchrun, without --dp",
        )
    if config.model.device not in (None, "cpu"):  # "cpu" is what the command line fills in
        raise ConfigError(f"--device {config.model.device}: vLLM finds its devices itself", valid="leave it out")
    if replace(config.settings(LoadSettings), trust_remote_code=False) != LoadSettings():
        raise ConfigError(
            "of the loading flags, vLLM takes --trust-remote-code and --vllm-extra only",
            valid="its own arguments in --vllm-extra, or vllm serve with its own flags",
        )
