"""Who answers: a module for each backend.

What command lines need to know of each stands here, so that nothing heavy is imported for a `--help`; a module that is
not listed is found all the same, and imported for it.
"""

from __future__ import annotations

from infini_eval.api.backend import LazyBackend
from infini_eval.config import (
    FakeSettings,
    LoadSettings,
    ModelSettings,
    PromptSettings,
    RequestSettings,
    VllmSettings,
    WeightSettings,
)

LAZY = {
    "nanotron": LazyBackend(
        "infini_eval.backends.nanotron:NanotronBackend",
        settings=(WeightSettings, ModelSettings),
        computes_here=True,
        attention=("sdpa", "flash_attn"),
        stops_early=True,
        measures_texts=True,
    ),
    "transformers": LazyBackend(
        "infini_eval.backends.huggingface.backend:TransformersBackend",
        settings=(WeightSettings, PromptSettings, LoadSettings),
        computes_here=True,
        attention=("sdpa", "flash_attn", "eager", "flex"),
        stops_early=True,
        measures_texts=True,
    ),
    # its workers must find CUDA untouched, and it chooses its kernels itself: "sdpa" is only the flag's default
    "vllm": LazyBackend(
        "infini_eval.backends.vllm:VllmBackend",
        settings=(WeightSettings, PromptSettings, LoadSettings, VllmSettings),
    ),
    "openai": LazyBackend("infini_eval.backends.openai:OpenAiBackend", settings=(PromptSettings, RequestSettings)),
    "gemini": LazyBackend("infini_eval.backends.gemini:GeminiBackend", settings=(PromptSettings, RequestSettings)),
    "fake": LazyBackend("infini_eval.backends.fake:FakeBackend", settings=(FakeSettings,)),
}
