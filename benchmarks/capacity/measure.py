"""Measures a host's rates: tokenising, reading data, composing prompts, loading weights, the store, merging records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._harness import ROOT, children_cpu, gate, peak_bytes, temporary_folder


@dataclass(frozen=True)
class Measured:
    """One rate, with what it was taken from."""

    what: str
    value: float
    unit: str
    note: str


def measure_host(toy: bool, records: int) -> Iterator[Measured]:
    """Every rate in turn; CPU seconds of one thread, but for the store, which is wall clock."""
    with temporary_folder() as folder:
        yield from text(folder, tokens=4096 if toy else 1 << 17, prompts=2 if toy else 8)
        yield from loading(folder, toy)
        yield starting()
        yield from store(0.2 if toy else 3.0)
        yield merging(2000 if toy else records)


def _cpu(run: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    result = run()
    return time.process_time() - began, result


def text(folder: Path, tokens: int, prompts: int) -> Iterator[Measured]:
    """Making, reading and tokenising prompts of `tokens` tokens, with the shipped checkpoint's tokenizer."""
    from benchmarks._passkey import tokenizer
    from infini_eval.api import registry
    from infini_eval.data.config import GenerateConfig
    from infini_eval.data.generate import generate
    from infini_eval.data.reading import load_samples
    from infini_eval.data.write import write_parquet

    tok, file = tokenizer(), folder / "rows.parquet"
    config = GenerateConfig(context_lengths=(tokens,), depths=(50,), num_prompts=prompts)

    def make() -> None:
        rows, _ = generate(config, tok, registry.load("tasks", "passkey").generator)
        write_parquet(rows, file, {})

    making, _ = _cpu(make)
    reading, data = _cpu(lambda: load_samples(str(file)))
    texts = [sample.prompt for sample in data.samples]
    size = sum(len(each.encode()) for each in texts)
    spent, ids = _cpu(lambda: [tok.encode(each) for each in texts])
    gate([len(each) for each in ids] == [tokens] * prompts, "a prompt does not have its length")
    several = f"{prompts} prompts of {tokens:,} tokens"
    yield Measured("tokenise", size / spent, "bytes/s", f"{several}: {tokens * prompts / spent:,.0f} tokens/s")
    yield Measured("characters", size / (tokens * prompts), "bytes/token", "generated English, vocabulary of 4,096")
    yield Measured("stored", file.stat().st_size / size, "", "bytes of zstd parquet a byte of that text")
    yield Measured("read", size / reading, "bytes/s", f"{size / 1e6:.1f} MB of text, zstd parquet to rows")
    yield Measured("make", tokens * prompts / making, "tokens/s", f"{several}, haystack and check included")


def loading(folder: Path, toy: bool) -> Iterator[Measured]:
    """A checkpoint just written, so it comes from the page cache, read into a model in its own dtype."""
    from benchmarks._models import TOY, shape, write_random
    from infini_eval.checkpoint.reader import Checkpoint
    from infini_eval.config import ModelSettings
    from infini_eval.engine.native_model import NativeModel

    path = write_random(folder / "weights", TOY if toy else shape(2048, 8192, 4, 16, 16, 8192, 1024))
    size = sum(file.stat().st_size for file in path.rglob("*.safetensors"))
    seconds, _ = _cpu(lambda: NativeModel.load(Checkpoint(path), ModelSettings(dtype="float32", device="cpu")))
    yield Measured("load", seconds / (size / 1e9), "CPU s/GB", f"{size / 1e9:.2f} GB, page cache, fp32 into fp32")


def starting() -> Measured:
    before = children_cpu()
    command = "import torch, torch.distributed, infini_eval.evaluation.run, infini_eval.backends.nanotron"
    subprocess.run([sys.executable, "-c", command], check=True, cwd=ROOT)
    return Measured("start", children_cpu() - before, "CPU s", "a process up to its first line of work")


def store(seconds: float) -> Iterator[Measured]:
    """Increments of the work queue's counter on one store, by one process and by four at once."""
    from infini_eval.testing.distributed import run_distributed_test

    for clients in (1, 4):
        counts = run_distributed_test(draw, clients, None, args=(seconds,), poison=False, timeout_s=seconds + 120)
        last = max(count["last"] for count in counts)
        drawn = sum(count["drawn"] for count in counts)
        gate(last == drawn, f"{drawn} increments left the counter at {last}")
        yield Measured("store", drawn / seconds, "operations/s", f"wall clock, {clients} process(es)")


def draw(seconds: float) -> dict[str, int]:
    """In each process: increments for some seconds, once all are there."""
    from torch.distributed import TCPStore

    client = TCPStore("127.0.0.1", int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False)
    client.add("here", 1)
    while client.add("here", 0) < int(os.environ["WORLD_SIZE"]):
        time.sleep(0.01)
    drawn, last, deadline = 0, 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        last = client.add("work/next", 1)
        drawn += 1
    return {"drawn": drawn, "last": last}


def merging(records: int) -> Measured:
    """`merge_samples` over records of eight replicas, in a process of its own."""
    with temporary_folder() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.capacity.measure", str(folder), str(records)],
            cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
    gate(done.returncode == 0, done.stderr[-2000:])
    found = json.loads(done.stdout.splitlines()[-1])
    note = f"{found['rows']:,} records, {found['jsonl'] / 1e9:.2f} GB of jsonl, peak {found['peak'] / 1e9:.1f} GB"
    return Measured("merge", found["seconds"] / found["rows"], "CPU s/record", note)


def merge_here(folder: Path, records: int) -> dict[str, float]:
    """Write made-up records and merge them; the peak is this process's."""
    from infini_eval.results.merge import merge_samples
    from infini_eval.testing.fake_runs import DEPTHS, FakeRun, write_fake_run

    per_cell = -(-records // len(DEPTHS))
    write_fake_run(folder, FakeRun(per_cell=per_cell), files=8)
    seconds, summary = _cpu(lambda: merge_samples(folder))
    gate(summary.rows == per_cell * len(DEPTHS), "the merge lost records")
    size = sum(file.stat().st_size for file in (folder / "samples").glob("*.jsonl"))
    return {"seconds": seconds, "rows": summary.rows, "jsonl": size, "peak": peak_bytes()}


if __name__ == "__main__":
    print(json.dumps(merge_here(Path(sys.argv[1]), int(sys.argv[2]))))
