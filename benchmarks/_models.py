"""Random models of a chosen shape, made in memory or on disk, and the shipped checkpoint.

Shapes: `layer_300m` and `full_300m` are the 300M model's (width 1024, 12 layers, 8 heads of 128), `shape_8b` is Llama 3 8B's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._harness import DEMO, gate
from infini_eval.checkpoint.config_yaml import read_config
from infini_eval.checkpoint.layout import parameter_specs
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelConfig, ModelSettings, Sampling
from infini_eval.distributed.tensor_parallel import TensorParallel
from infini_eval.engine.generation import BatchGeneration, Limits, Links
from infini_eval.engine.native_model import NativeModel
from infini_eval.engine.sampling import Sampler
from infini_eval.models.llama import LayerWeights, Llama, activated_gates
from infini_eval.models.load import resolve
from infini_eval.testing.tiny_models import tiny_config, write_tiny_checkpoint


def shape(
    hidden: int, inner: int, layers: int, heads: int, kv_heads: int, vocab: int, segment: int | None
) -> dict[str, Any]:
    """The `changes` of a tiny_config."""
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
    }
    return sizes | ({"segment_length": segment} if segment else {"infini": False})


TOY = shape(32, 48, 2, 4, 4, 96, 16)


def full_300m(segment: int | None = 1024) -> dict[str, Any]:
    return shape(1024, 4096, 12, 8, 8, 49152, segment)


def layer_300m(segment: int | None = 1024) -> dict[str, Any]:
    """One layer of the 300M model, with a vocabulary that costs nothing."""
    return shape(1024, 4096, 1, 8, 8, 512, segment)


def shape_8b(segment: int | None = 1024) -> dict[str, Any]:
    return shape(4096, 14336, 32, 32, 8, 128256, segment)


def write_random(folder: Path, sizes: dict[str, Any]) -> Path:
    return write_tiny_checkpoint(folder, tiny_config(**sizes))


def config_of(sizes: dict[str, Any], folder: Path) -> ModelConfig:
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny_config(**sizes)))
    return read_config(folder)[0]


def random_model(config: ModelConfig, settings: ModelSettings) -> NativeModel:
    """A model whose weights never were on disk, scaled so that activations stay of order one at any width."""
    resolved = resolve(config, settings)
    specs = parameter_specs(config)
    generator = torch.Generator(resolved.device).manual_seed(0)

    def draw(name: str) -> torch.Tensor:
        wide = specs[name].shape
        noise = torch.randn(wide, generator=generator, device=resolved.device, dtype=resolved.dtype)
        if "norm" in name:
            return 1 + 0.1 * noise
        return noise * (0.5 if "balance" in name else 1.0 if "embedding" in name else wide[-1] ** -0.5)

    named = {name: draw(name) for name in specs}
    layers = [_layer(named, index, resolved) for index in range(config.num_hidden_layers)]
    llama = Llama(
        config,
        resolved.attention,
        layers,
        embedding=named["model.token_position_embeddings.pp_block.token_embedding.weight"],
        final_norm=named["model.final_layer_norm.pp_block.weight"],
        head=named["model.lm_head.pp_block.weight"],
        tensor_parallel=TensorParallel(),
        dtype=resolved.dtype,
        device=resolved.device,
        memory_dtype=resolved.memory_dtype,
    )
    faster = {"compile": settings.compile, "cuda_graphs": settings.cuda_graphs}
    return NativeModel(llama, resolved, Links(), chunk_segments=settings.chunk_segments, **faster)


def _layer(named: dict[str, torch.Tensor], index: int, resolved: Any) -> LayerWeights:
    def part(name: str) -> torch.Tensor:
        return named[f"model.decoder.{index}.pp_block.{name}"]

    gates = None
    if resolved.attention.memory != "off":
        gates = activated_gates(part("attn.balance_factors"), resolved.config.gate_activation, resolved.memory_dtype)
    return LayerWeights(
        input_norm=part("input_layernorm.weight"),
        qkv=part("attn.qkv_proj.weight"),
        o=part("attn.o_proj.weight"),
        post_norm=part("post_attention_layernorm.weight"),
        gate_up=part("mlp.gate_up_proj.weight"),
        down=part("mlp.down_proj.weight"),
        gates=gates,
    )


def same_weights(model: NativeModel, memory: str) -> NativeModel:
    """The same model with its memory `off` (no gates) or `ablate`d."""
    old = model.llama
    settings = replace(old.settings, memory=memory)
    layers = [replace(layer, gates=None) if memory == "off" else layer for layer in old.layers]
    llama = Llama(
        old.config, settings, layers, embedding=old.embedding, final_norm=old.final_norm, head=old.head,
        tensor_parallel=old.tp, dtype=old.dtype, device=old.device, memory_dtype=old.memory_dtype,
    )  # fmt: skip
    return NativeModel(llama, replace(model.resolved, attention=settings), model.links)


def demo_model(toy: bool = False, folder: Path | None = None, **settings: Any) -> NativeModel:
    """The shipped checkpoint, or a random toy."""
    path = DEMO if not toy else write_random(folder / "toy", TOY) if folder else DEMO
    return NativeModel.load(Checkpoint(path), ModelSettings(device="cpu", **settings))


def random_prompts(model: NativeModel, tokens: int, rows: int = 1) -> list[np.ndarray]:
    draw = np.random.default_rng(tokens)
    return [draw.integers(3, model.config.vocab_size, tokens, dtype=np.int32) for _ in range(rows)]


def started(model: NativeModel, prompts: list[np.ndarray], new_tokens: int) -> BatchGeneration:
    """A generation whose prompts have been read and whose first tokens are drawn."""
    sampler = Sampler(Sampling(), model.llama.tp, model.config.vocab_size, model.config.vocab_size, [""] * len(prompts))
    generation = BatchGeneration(
        model.llama, model.links, sampler, prompts, Limits(new_tokens), model.chunk_tokens, decoders=model.decoders
    )
    while not generation.awaits_tokens:
        generation.run_unit()
    generation.absorb()
    return generation


def decode_steps(generation: BatchGeneration, steps: int) -> None:
    """Draw `steps` more tokens a row."""
    for _ in range(steps):
        generation.run_unit()
        generation.absorb()


def answers_of(generation: BatchGeneration) -> list[list[int]]:
    return [completion.token_ids for completion in generation.completions]


def check_against_recompute(model: NativeModel, prompt: np.ndarray, answer: list[int], tolerance: float = 1e-3) -> None:
    """Each token of a greedy answer is the best one, up to a near tie, when the whole context is computed at once."""
    from benchmarks._recompute import whole_sequence_logits

    ids = torch.from_numpy(np.concatenate([prompt, answer]).astype(np.int64))[None].to(model.llama.device)
    with torch.inference_mode():
        logits_TV = whole_sequence_logits(model.llama, ids)[0, len(prompt) - 1 : -1]
    chosen = logits_TV.gather(1, torch.tensor(answer, device=logits_TV.device)[:, None])[:, 0]
    gap = (logits_TV.max(dim=-1).values - chosen).max().item()
    gate(gap <= tolerance, f"a streamed token is not the best one of a full recompute: {gap:.2g} below it")


def segments_of(tokens: int, length: int) -> Iterator[slice]:
    for start in range(0, tokens, length):
        yield slice(start, min(tokens, start + length))
