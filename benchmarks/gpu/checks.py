"""What the GPU script measures, one function a subject; the first is the gate.

FLOPs a token are counted as DESIGN does: projections, local attention over half a segment, memory; without the head.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import torch

from benchmarks._harness import DEMO, Metric, gate
from benchmarks._models import check_against_recompute, decode_steps, random_prompts, started
from benchmarks._recompute import whole_sequence_logits
from benchmarks.gpu.place import Place
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelConfig, ModelSettings
from infini_eval.engine.native_model import NativeModel
from infini_eval.models.naive import naive_logits

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}  # bf16: share of the logits' spread

NEAR_BEST = 0.25  # a bf16 token's logit may be this far below the best one of a recompute


def parity(place: Place) -> list[Metric]:
    """The shipped checkpoint's logits on the device against the plain equations in fp32 on the CPU."""
    checkpoint = Checkpoint(DEMO)
    ids = torch.from_numpy(
        np.random.default_rng(0).integers(3, checkpoint.config.vocab_size, (2, 333 if place.toy else 1000))
    )
    weights = {name: checkpoint.read(name) for name in checkpoint.specs}
    config = checkpoint.config
    expected = naive_logits(weights, config, ids, memory=config.memory, memory_query=config.memory_query)
    metrics = []
    torch.backends.cuda.matmul.allow_tf32 = False
    for dtype, tolerance in TOLERANCE.items():
        model = NativeModel.load(checkpoint, ModelSettings(dtype=dtype, device=place.device))
        difference = (model.logits(ids) - expected).abs()
        scale = 1.0 if dtype == "float32" else expected.std().item()
        found = (difference.max() if dtype == "float32" else difference.mean()).item() / scale
        gate(found <= tolerance, f"logits in {dtype} differ by {found:.2g} from the plain equations")
        metrics.append(
            Metric(f"parity_{dtype}", found, "", "<=", tolerance, "largest" if scale == 1.0 else "mean / spread")
        )
    return metrics


def flops_a_token(config: ModelConfig) -> float:
    """Arithmetic of one prompt token in all layers."""
    width, heads, kv = config.head_dim, config.num_attention_heads, config.num_key_value_heads
    hidden, length = config.hidden_size, config.segment_length or 0
    projections = 2 * hidden * width * (2 * heads + 2 * kv) + 6 * hidden * config.intermediate_size
    attention = 2 * length * heads * width  # scores and values, half of the segment on average
    memory = 2 * width * (width + 1) * (heads + 2 * kv)  # queries and keys read, keys write
    return config.num_hidden_layers * (projections + attention + memory)


def mfu(place: Place) -> list[Metric]:
    """Model FLOPs a second over the device's peak, bf16, 16k tokens a step."""
    targets = {("300m", 1024): 45.0, ("300m", 64): None, ("8b", 1024): 60.0, ("8b", 64): 50.0}
    metrics = []
    for (size, segment), target in targets.items():
        model = place.model(size, "bfloat16", segment)
        prompt = random_prompts(model, place.tokens(65536))
        short = prompt[0][:2000]
        check_against_recompute(model, short, model.generate([short], 1, stop_ids=())[0], NEAR_BEST)
        model.generate(prompt, 1, stop_ids=())
        seconds = place.seconds(lambda m=model, p=prompt: m.generate(p, 1, stop_ids=()))
        reached = flops_a_token(model.config) * len(prompt[0]) / seconds
        note = f"{len(prompt[0]) / seconds:,.0f} tokens/s"
        metrics.append(
            Metric(f"mfu_{size}_L{segment}", 100 * reached / (place.peak_tflops * 1e12), "%", ">=", target, note)
        )
        del model
    return metrics


def decode(place: Place) -> list[Metric]:
    """Milliseconds a new token at batch 1 and 16: operation by operation, and as a replayed CUDA graph."""
    steps, metrics = 4 if place.toy else 64, []
    for rows in (1, 16):
        eager = _decode_seconds(place, rows, steps)
        metrics.append(Metric(f"decode_300m_batch{rows}", eager / steps * 1e3, "ms", "<=", None, "a token, eager"))
        if place.device == "cuda":
            graphs = _decode_seconds(place, rows, steps, cuda_graphs=True)
            note = f"{graphs / steps * 1e3:.3f} ms a token with a graph"
            limit = 5.0 if rows == 1 else None
            metrics.append(Metric(f"eager_vs_graph_batch{rows}", eager / graphs, "x", ">=", limit, note))
    return metrics


def _decode_seconds(place: Place, rows: int, steps: int, **settings: bool) -> float:
    """Seconds of so many steps; the answers are checked against a recompute first."""
    model = place.model("300m", "bfloat16", **settings)
    prompts = random_prompts(model, place.tokens(4000), rows)
    check_against_recompute(model, prompts[0], model.generate(prompts, 8, stop_ids=())[0], NEAR_BEST)
    generation = started(model, prompts, 1 << 20)
    return place.seconds(lambda: decode_steps(generation, steps))


def prefill(place: Place) -> list[Metric]:
    """Seconds to read one prompt of 128k and 1m tokens at the 300M shape."""
    model = place.model("300m", "bfloat16")
    metrics = []
    for name, tokens, target in (("128k", 1 << 17, 0.15), ("1m", 1 << 20, 1.2)):
        prompt = random_prompts(model, place.tokens(tokens))
        seconds = place.seconds(lambda p=prompt: model.generate(p, 1, stop_ids=()), 2)
        metrics.append(
            Metric(f"prefill_300m_{name}", seconds, "s", "<=", target, f"{len(prompt[0]) / seconds:,.0f} tokens/s")
        )
    return metrics


def peak_memory(place: Place) -> list[Metric]:
    """Peak device memory of a prompt of 1m tokens over that of 32k."""
    model = place.model("300m", "bfloat16")
    prompts = [random_prompts(model, place.tokens(tokens)) for tokens in (1 << 15, 1 << 20)]
    small, large = (place.peak_bytes(lambda p=prompt: model.generate(p, 1, stop_ids=())) for prompt in prompts)
    return [
        Metric("peak_1m_vs_32k", large / max(1, small), "x", "<=", 1.02, f"{large / 1e9:.2f} / {small / 1e9:.2f} GB")
    ]


def kernels(place: Place) -> list[Metric]:
    """torch's SDPA against flash-attn's kernels, where that package is installed."""
    if place.device != "cuda" or importlib.util.find_spec("flash_attn") is None:
        return []
    seconds, logits = {}, {}
    for kernel in ("sdpa", "flash_attn"):
        model = place.model("300m", "bfloat16", attn_implementation=kernel)
        prompt = random_prompts(model, place.tokens(65536))
        ids = torch.from_numpy(prompt[0][:4096].astype("int64"))[None].to(model.llama.device)
        with torch.inference_mode():
            plain = whole_sequence_logits(model.llama, ids).cpu()
        logits[kernel] = ((model.logits(ids.cpu()) - plain).abs().mean() / plain.std()).item()
        gate(logits[kernel] <= TOLERANCE["bfloat16"], f"{kernel} differs by {logits[kernel]:.2g} from a recompute")
        model.generate(prompt, 1, stop_ids=())
        seconds[kernel] = place.seconds(lambda m=model, p=prompt: m.generate(p, 1, stop_ids=()))
        del model
    return [
        Metric("flash_attn_vs_sdpa", seconds["sdpa"] / seconds["flash_attn"], "x", note="prefill of 64k, 300M, L 1024")
    ]
