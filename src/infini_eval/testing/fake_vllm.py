"""A stand-in for the package vllm that records what it is asked, for tests: vLLM needs an environment of its own."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any


def fake_vllm(calls: list[tuple[str, Any]], *, text: str = " 12345.", reads: int | None = None) -> ModuleType:
    """A module with LLM and SamplingParams; `calls` gets ("LLM", arguments) and ("generate", (prompts, sampling)).

    Every answer is `text`; `reads` is how many prompt tokens it claims to have read (None: all).
    """

    class LLM:
        def __init__(self, **arguments: Any) -> None:
            calls.append(("LLM", arguments))

        def generate(self, prompts: list[dict[str, Any]], sampling: list[Any], use_tqdm: bool) -> list[Any]:
            calls.append(("generate", (prompts, sampling)))
            return [_output(prompt["prompt_token_ids"][:reads], text) for prompt in prompts]

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SimpleNamespace  # type: ignore[attr-defined]
    return module


def _output(ids: list[int], text: str) -> SimpleNamespace:
    answer = SimpleNamespace(text=text, token_ids=[1, 2, 3], finish_reason="stop")
    return SimpleNamespace(outputs=[answer], prompt_token_ids=ids)
