"""Starting vLLM's engine: the dtype that the checkpoint has, the arguments of LLM, and refusals in plain words."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from infini_eval.backends._packages import require
from infini_eval.config import EvalConfig, LoadSettings
from infini_eval.errors import BackendError, CheckpointError

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
        found, reason = {}, " ".join(str(error).split())[:300]
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
        raise _refused(config.model_path, " ".join(str(error).split())) from None
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
