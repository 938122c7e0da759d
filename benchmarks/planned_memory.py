"""Planned bytes over the real peak of a process on the CPU: native engine and transformers, several sizes.

  python -m benchmarks.planned_memory [--set held-out | first | fitted | all] [--cases infini,llama-hf] [--repeat 3]
                                      [--live] [--json]

Each case runs in its own process: random weights are written by another one, then loaded, and prompts are answered.
Measured as MemoryWatch of a run measures it: the peak of the resident size over loading and answering, minus the
resident size before; nothing has been warmed up, and malloc is as it comes. Planned is the plan's sum without its
reserve. Exit status 1 where measured and planned differ by more than SHORT or SPARE allow. `--live` tells glibc to give
every block back at once (MALLOC_MMAP_THRESHOLD_), which takes more CPU time but shows what is really alive: then the
plan's item for the allocator is left out. What is exact is a test: tests/planning/test_measured.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._harness import ROOT, Metric
from infini_eval.distributed.device_memory import peak_bytes, restart_peak, used_bytes
from infini_eval.distributed.mesh import MeshShape
from infini_eval.planning.devices import Device
from infini_eval.planning.hf_config import read_architecture
from infini_eval.planning.memory import RankPlan, Settings, plan_stages

SHORT, SPARE, LEAST = 0.30, 0.25, 40e6  # planned below and above what was measured, as shares of it; or LEAST bytes
JUDGED = ("native-640-rows", "native-plain-rows", "hf-bf16-gqa", "hf-896-gqa")  # in the suite, by floors.json
TOY = "toy"
CPU = Device("cpu", "cpu", 1 << 50)
NEW_TOKENS = 4


@dataclass(frozen=True)
class Case:
    """sizes: hidden, intermediate, layers, heads, kv heads, vocabulary.

    segment: None is a plain Llama, or a Qwen2 with the keys of `qwen2`; with an engine "transformers" and a segment it is an
    exported checkpoint.
    """

    engine: str
    sizes: tuple[int, int, int, int, int, int]
    segment: int | None
    tokens: int
    rows: int = 1
    dtype: str = "float32"
    saved: str = "float32"
    qwen2: dict[str, Any] | None = None

    @property
    def shape(self) -> dict[str, int]:
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
        return dict(zip((*names, "vocab_size"), self.sizes, strict=True))


# The formulas of activations were written while looking at these.
FITTED = {
    "infini": Case("native", (512, 2048, 2, 8, 8, 8192), 256, 8192),
    "infini-narrow-mlp": Case("native", (1024, 1024, 2, 8, 8, 8192), 512, 4608),
    "infini-gqa-batch": Case("native", (512, 1408, 3, 8, 4, 16384), 512, 1536, 4),
    "infini-bf16": Case("native", (512, 2048, 2, 8, 8, 8192), 512, 4608, 1, "bfloat16"),
    "llama-native": Case("native", (512, 1408, 3, 8, 8, 16384), None, 8192),
    "llama-hf": Case("transformers", (512, 2048, 3, 8, 8, 16384), None, 8192),
    "llama-hf-gqa": Case("transformers", (1024, 2816, 2, 16, 4, 16384), None, 10240),
    "llama-hf-batch": Case("transformers", (512, 1408, 3, 8, 2, 8192), None, 6144, 2),
}
# Chosen before any of them had been run, then run once with the formulas frozen. The first set showed three errors in the
# formulas for transformers, which were mended (docs/planner.md); the second was chosen after that.
FIRST_HELD_OUT = {
    "native-1536": Case("native", (1536, 4096, 6, 12, 4, 32000), 512, 6144),
    "native-bf16-rows": Case("native", (768, 2048, 8, 12, 12, 50304), 1024, 5000, 2, "bfloat16"),
    "native-640-rows": Case("native", (640, 1728, 10, 10, 5, 24000), 128, 10000, 3),
    "native-plain": Case("native", (896, 3072, 4, 14, 2, 40000), None, 6000),
    "hf-768": Case("transformers", (768, 3072, 5, 12, 12, 32000), None, 6500),
    "hf-bf16-gqa": Case("transformers", (1280, 3456, 8, 20, 4, 64000), None, 5000, 1, "bfloat16", "bfloat16"),
    "hf-short-rows": Case("transformers", (1024, 2816, 4, 16, 8, 30000), None, 3000, 3),
}
HELD_OUT = {
    "native-1152": Case("native", (1152, 3072, 5, 9, 3, 26000), 256, 7000),
    "native-bf16-1280": Case("native", (1280, 5120, 4, 10, 10, 24000), 2048, 9000, 1, "bfloat16"),
    "native-plain-rows": Case("native", (768, 2304, 5, 12, 4, 30000), None, 3000, 2),
    "hf-896-gqa": Case("transformers", (896, 2432, 7, 14, 2, 50000), None, 7000),
    "hf-640-rows": Case("transformers", (640, 1792, 6, 10, 10, 20000), None, 4500, 2),
    "hf-bf16-short": Case("transformers", (1536, 4096, 6, 12, 3, 32000), None, 3500, 2, "bfloat16", "bfloat16"),
    "hf-512-long": Case("transformers", (512, 1536, 4, 8, 4, 40000), None, 12288),
}
TOYS = {TOY: Case("native", (64, 128, 2, 4, 4, 128), 16, 256)}
SETS = {"fitted": FITTED, "first": FIRST_HELD_OUT, "held-out": HELD_OUT, "all": FITTED | FIRST_HELD_OUT | HELD_OUT}
CASES = SETS["all"] | TOYS


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Run one case in this process."""
    case = CASES[name]
    _write_elsewhere(name, folder)
    load = LOADERS[case.engine](folder, case)
    before = used_bytes("cpu")
    restart_peak("cpu")
    run = load()
    loaded = peak_bytes("cpu") - before
    run(case.tokens, case.rows)
    measured = peak_bytes("cpu") - before
    plan = _plan(case, folder)
    parts = {
        "weights": plan.weights,
        "loading": plan.loading,
        "state": plan.state.total,
        "activations": plan.activations,
        "libraries": plan.libraries,
        "allocator": plan.allocator,
    }
    live = plan.weights + plan.libraries + max(plan.loading, plan.working - plan.allocator)
    return {"case": name, "planned": plan.planned, "live": live, "measured": measured, "loaded": loaded, **parts}


def planned_tensors(case: Case, folder: Path) -> int:
    """Planned bytes of the tensors beside the weights while the case's prompts are answered."""
    plan = _plan(case, folder)
    return plan.working - plan.allocator


def counted(case: Case, folder: Path) -> int:
    """The same, counted in this process."""
    from infini_eval.testing.tiny_models import peak_of_tensors

    run = LOADERS[case.engine](folder, case)()
    return peak_of_tensors(lambda: run(case.tokens, case.rows))


def _plan(case: Case, folder: Path) -> RankPlan:
    settings = Settings(dtype=case.dtype, batch=case.rows)
    return plan_stages(read_architecture(str(folder)), case.tokens + NEW_TOKENS, CPU, MeshShape(), settings)[0]


def _write_elsewhere(name: str, folder: Path) -> None:
    """Weights are written by a process of their own, so that writing leaves nothing in this one."""
    code = (
        "import sys, pathlib, benchmarks.planned_memory as p; p.write(p.CASES[sys.argv[1]], pathlib.Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, name, str(folder)], check=True, cwd=ROOT, capture_output=True)


def write(case: Case, folder: Path) -> None:
    """Write a case's random weights as a nanotron checkpoint or a Hugging Face folder."""
    if case.engine == "transformers":
        import torch
        from transformers import AutoModelForCausalLM, LlamaConfig

        from infini_eval.hf import InfiniLlamaConfig

        shape = {**case.shape, "max_position_embeddings": 1 << 17, "tie_word_embeddings": False}
        config = InfiniLlamaConfig(**shape, segment_length=case.segment) if case.segment else LlamaConfig(**shape)
        AutoModelForCausalLM.from_config(config).to(getattr(torch, case.saved)).save_pretrained(folder)
        return
    from infini_eval.testing.tiny_models import tiny_config, tiny_qwen2_config, write_tiny_checkpoint

    if case.qwen2 is not None:
        write_tiny_checkpoint(folder, tiny_qwen2_config(**case.shape, **case.qwen2))
        return
    changes: dict[str, Any] = {**case.shape, **({"segment_length": case.segment} if case.segment else {})}
    write_tiny_checkpoint(folder, tiny_config(infini=case.segment is not None, **changes))


def _native(folder: Path, case: Case) -> Callable[[], Callable[[int, int], Any]]:
    import numpy as np

    from infini_eval.engine.native_model import load_model

    def load() -> Callable[[int, int], Any]:
        model = load_model(folder, dtype=case.dtype, device="cpu")
        draw = np.random.default_rng(0)

        def run(tokens: int, rows: int) -> Any:
            prompts = [draw.integers(3, model.config.vocab_size, tokens, dtype=np.int32) for _ in range(rows)]
            return model.generate(prompts, NEW_TOKENS, stop_ids=(), batch_size=rows)

        return run

    return load


def _transformers(folder: Path, case: Case) -> Callable[[], Callable[[int, int], Any]]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    import infini_eval.hf  # noqa: F401  # lets transformers open exported checkpoints
    from infini_eval.backends.huggingface.load import skeleton
    from infini_eval.planning.memory import TRANSFORMERS_CHUNK

    skeleton(AutoConfig.from_pretrained(folder), trust_remote_code=False)  # the backend makes one before the plan

    def load() -> Callable[[int, int], Any]:
        kind = {"dtype": getattr(torch, case.dtype), "attn_implementation": "sdpa"}
        model = AutoModelForCausalLM.from_pretrained(folder, **kind).eval()

        def run(tokens: int, rows: int) -> Any:
            ids = torch.randint(3, model.config.vocab_size, (rows, tokens), generator=torch.Generator().manual_seed(0))
            chunk = TRANSFORMERS_CHUNK if tokens > TRANSFORMERS_CHUNK else None
            settings = GenerationConfig(
                max_new_tokens=NEW_TOKENS, do_sample=False, prefill_chunk_size=chunk, pad_token_id=0
            )
            with torch.inference_mode():
                return model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)

        return run

    return load


LOADERS = {"native": _native, "transformers": _transformers}


def run(toy: bool) -> list[Metric]:
    """For the suite: the least and the largest planned / measured of a few cases; the design asks for 10 %."""
    found = {name: _apart(name) for name in ((TOY,) if toy else JUDGED)}
    ratios = {name: each["planned"] / each["measured"] for name, each in found.items()}
    note = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    return [
        Metric("planned_memory_least", min(ratios.values()), "x", ">=", 0.9, note),
        Metric("planned_memory_most", max(ratios.values()), "x", "<=", 1.1),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, default="held-out", help="which cases (default: %(default)s)")
    parser.add_argument("--cases", help="names instead, separated by commas")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each case (default: %(default)s)")
    parser.add_argument("--live", action="store_true", help="measure what is alive, without freed blocks")
    parser.add_argument("--json", action="store_true", help="one JSON line a case")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(args.child, Path(folder))))
        return 0
    names = args.cases.split(",") if args.cases else list(SETS[args.set])
    near = [_compare(name, args.live, args.json) for name in names for _ in range(args.repeat)]
    return int(not all(near))


def _apart(name: str, live: bool = False) -> dict[str, Any]:
    """One case in a process of its own."""
    environment = os.environ | ({"MALLOC_MMAP_THRESHOLD_": "65536"} if live else {})
    command = [sys.executable, "-m", "benchmarks.planned_memory", "--child", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _compare(name: str, live: bool, as_json: bool) -> bool:
    """Run one case, print it; whether planned and measured are as near each other as they must be."""
    found = _apart(name, live)
    planned = found["live" if live else "planned"]
    ratio = planned / found["measured"]
    parts = ("weights", "libraries", "loading", "state", "activations", *(() if live else ("allocator",)))
    shown = ", ".join(f"{key} {found[key] / 1e6:.0f}" for key in parts)
    text = (
        f"{name:18} planned {planned / 1e6:7.1f} MB ({shown})  measured {found['measured'] / 1e6:7.1f} MB  {ratio:.3f}"
    )
    print(json.dumps({**found, "ratio": ratio}) if as_json else text, flush=True)
    missing = found["measured"] - planned
    return -max(SPARE * found["measured"], LEAST) <= missing <= max(SHORT * found["measured"], LEAST)


if __name__ == "__main__":
    sys.exit(main())
