"""Planned bytes against the real peak of this process on the CPU: native engine and transformers, several sizes.

  python benchmarks/planned_memory.py [--cases infini-small,llama-hf] [--json]

Each case runs in its own process: random weights are written and loaded, then one prompt is answered. Measured is the
peak of the resident size during the answer minus the resident size before loading, after a small model has run (so
that torch's own libraries are loaded already). glibc is told to give every large block back at once
(MALLOC_MMAP_THRESHOLD_): left alone it keeps up to about 100 MB of blocks below 32 MB, which is what the plan's reserve
is for. Planned is the plan's sum without its reserve. Exit status 1 where
they differ by more than 10 %.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infini_eval.planning.devices import Device
from infini_eval.planning.hf_config import from_hf_config
from infini_eval.planning.memory import Settings, plan_stages
from infini_eval.planning.models import read_architecture

TOLERANCE = 0.10
CPU = Device("cpu", "cpu", 1 << 50)


def shape(hidden: int, inner: int, layers: int, heads: int, kv_heads: int, vocab: int) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
    }


# name: (engine, shape, segment length, prompt tokens, rows, dtype)
CASES: dict[str, tuple[str, dict[str, int], int | None, int, int, str]] = {
    "infini": ("native", shape(512, 2048, 2, 8, 8, 8192), 256, 8192, 1, "float32"),
    "infini-narrow-mlp": ("native", shape(1024, 1024, 2, 8, 8, 8192), 512, 4608, 1, "float32"),
    "infini-gqa-batch": ("native", shape(512, 1408, 3, 8, 4, 16384), 512, 1536, 4, "float32"),
    "infini-bf16": ("native", shape(512, 2048, 2, 8, 8, 8192), 512, 4608, 1, "bfloat16"),
    "llama-native": ("native", shape(512, 1408, 3, 8, 8, 16384), None, 8192, 1, "float32"),
    "llama-hf": ("transformers", shape(512, 2048, 3, 8, 8, 16384), None, 8192, 1, "float32"),
    "llama-hf-gqa": ("transformers", shape(1024, 2816, 2, 16, 4, 16384), None, 10240, 1, "float32"),
    "llama-hf-batch": ("transformers", shape(512, 1408, 3, 8, 2, 8192), None, 6144, 2, "float32"),
}
NEW_TOKENS = 4


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Run one case in this process."""
    engine, sizes, segment, tokens, rows, dtype = CASES[name]
    answer = {"native": _native, "transformers": _transformers}[engine]
    warm = shape(64, 64, 1, 2, 2, 64)
    answer(folder / "warm", warm, 32 if segment else None, dtype)(64, 1)
    run_later, architecture = _prepare(answer, folder / name, sizes, segment, dtype)
    before = _status("VmRSS")
    run = run_later()
    _reset_peak()
    run(tokens, rows)
    measured = _status("VmHWM") - before
    settings = Settings(dtype=dtype, batch=rows)
    plan = plan_stages(architecture, tokens + NEW_TOKENS, CPU, _single(), settings)[0]
    parts = {"weights": plan.weights, "state": plan.state.total, "activations": plan.activations}
    return {"case": name, "planned": plan.planned, "measured": measured, **parts}


def _prepare(answer: Any, folder: Path, sizes: dict[str, int], segment: int | None, dtype: str) -> tuple[Any, Any]:
    """Weights are written by a process of their own, so that writing leaves nothing in this one."""
    code = "import sys, json, planned_memory as p; p.write(*json.loads(sys.argv[1]))"
    native = answer is _native
    arguments = json.dumps([native, str(folder), sizes, segment, dtype])
    subprocess.run([sys.executable, "-c", code, arguments], check=True, cwd=Path(__file__).parent)
    architecture = (
        read_architecture(str(folder))
        if native
        else from_hf_config(json.loads((folder / "config.json").read_text()), "hf")
    )
    return (lambda: answer(folder, None, segment, dtype)), architecture


def write(native: bool, folder: str, sizes: dict[str, int], segment: int | None, dtype: str) -> None:
    """Write random weights as a nanotron checkpoint or a Hugging Face folder."""
    if not native:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(**sizes, max_position_embeddings=1 << 17, tie_word_embeddings=False)
        LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
        return
    from infini_eval.testing.tiny_checkpoints import tiny_config, write_tiny_checkpoint

    changes: dict[str, Any] = {**sizes, **({"segment_length": segment} if segment else {})}
    config = tiny_config(infini=segment is not None, **changes)
    write_tiny_checkpoint(Path(folder), config)


def _native(folder: Path, sizes: dict[str, int] | None, segment: int | None, dtype: str) -> Callable[[int, int], Any]:
    import numpy as np

    from infini_eval.engine.native_model import load_model

    if sizes is not None:
        write(True, str(folder), sizes, segment, dtype)
    model = load_model(folder, dtype=dtype, device="cpu")
    draw = np.random.default_rng(0)

    def run(tokens: int, rows: int) -> Any:
        prompts = [draw.integers(3, model.config.vocab_size, tokens, dtype=np.int32) for _ in range(rows)]
        return model.generate(prompts, NEW_TOKENS, stop_ids=(), batch_size=rows)

    return run


def _transformers(
    folder: Path, sizes: dict[str, int] | None, segment: int | None, dtype: str
) -> Callable[[int, int], Any]:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from infini_eval.planning.memory import TRANSFORMERS_CHUNK

    if sizes is not None:
        write(False, str(folder), sizes, segment, dtype)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa").eval()

    def run(tokens: int, rows: int) -> Any:
        ids = torch.randint(3, model.config.vocab_size, (rows, tokens), generator=torch.Generator().manual_seed(0))
        chunk = TRANSFORMERS_CHUNK if tokens > TRANSFORMERS_CHUNK else None
        settings = GenerationConfig(
            max_new_tokens=NEW_TOKENS, do_sample=False, prefill_chunk_size=chunk, pad_token_id=0
        )
        with torch.inference_mode():
            return model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)

    return run


def _single() -> Any:
    from infini_eval.distributed.topology import MeshShape

    return MeshShape()


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {key} in /proc/self/status")


def _reset_peak() -> None:
    """Let VmHWM start anew from what is resident now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help="names, separated by commas (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON line a case")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(args.child, Path(folder))))
        return 0
    worst = 0.0
    for name in args.cases.split(","):
        command = [sys.executable, __file__, "--child", name]
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            sys.exit(f"{name}: {done.stderr}")
        found = json.loads(done.stdout.splitlines()[-1])
        ratio = found["planned"] / found["measured"]
        worst = max(worst, abs(ratio - 1))
        parts = ", ".join(f"{key} {found[key] / 1e6:.0f}" for key in ("weights", "state", "activations"))
        planned, measured = found["planned"] / 1e6, found["measured"] / 1e6
        text = f"{name:20} planned {planned:7.1f} MB ({parts})  measured {measured:7.1f} MB  {ratio:.3f}"
        print(json.dumps({**found, "ratio": ratio}) if args.json else text, flush=True)
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
