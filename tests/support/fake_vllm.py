"""A stand-in for the package vllm that records what it is asked, for tests: vLLM needs an environment of its own."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

STOP = 0


def fake_vllm(
    calls: list[tuple[str, Any]], *, answer_ids: Sequence[int] = (21, 22, 23, STOP), reads: int | None = None
) -> ModuleType:
    """A module with LLM and SamplingParams; `calls` gets ("LLM", arguments) and ("generate", (prompts, sampling)).

    Every answer is `answer_ids`, ended by STOP as vLLM's are; `reads`: prompt tokens it claims to have read (None: all).
    """

    class LLM:
        def __init__(self, **arguments: Any) -> None:
            calls.append(("LLM", arguments))
            model = SimpleNamespace(dtype=arguments["dtype"], max_model_len=arguments["max_model_len"])
            self.llm_engine = SimpleNamespace(vllm_config=SimpleNamespace(model_config=model))

        def generate(self, prompts: list[dict[str, Any]], sampling: list[Any], use_tqdm: bool) -> list[Any]:
            calls.append(("generate", (prompts, sampling)))
            return [_output(prompt["prompt_token_ids"][:reads], answer_ids) for prompt in prompts]

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SimpleNamespace  # type: ignore[attr-defined]
    module.__version__ = "0.0.stand-in"  # type: ignore[attr-defined]
    return module


def _output(ids: list[int], answer_ids: Sequence[int]) -> SimpleNamespace:
    finish = "stop" if answer_ids[-1] == STOP else "length"
    answer = SimpleNamespace(
        text="what vLLM's own tokenizer makes of it", token_ids=list(answer_ids), finish_reason=finish
    )
    return SimpleNamespace(outputs=[answer], prompt_token_ids=ids)
