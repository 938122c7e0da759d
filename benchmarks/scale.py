"""Curves of one process over the context's length: prefill seconds, memory growth, milliseconds a new token, with their fits.

  python -m benchmarks.scale [--longest 10m] [--plot FILE.png] [--toy]

The shipped checkpoint reads prompts with a passkey, each in a process of its own: 1k to 1m in about two minutes, 10m in ten
more. Up to 128k the passkey must be found, or there is no figure. Time is CPU time of one thread; memory is the peak while
reading and answering, above what was resident with model and token ids once two short prompts had been answered.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._harness import ROOT, WrongAnswer, gate, peak_bytes
from infini_eval.options import token_count

HIDDEN = "--child"
LENGTHS = (1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 17, 1 << 18, 1 << 20, 1 << 22, 10 << 20)
TOY_LENGTHS = (256, 512, 1024)
MUST_FIND = 1 << 17  # beyond, the shipped checkpoint may fail, and its time and memory are still its time and memory
WARM_TOKENS = 4200  # whole steps and an open segment, so that every kind of temporary has been made
DECODED = 64
REPEATED_TOKENS = 1 << 18  # a short prompt is read so often that this many tokens are read in all


@dataclass(frozen=True)
class Point:
    """One length. `growth` is in bytes, above the process with its model and token ids; `found`: the passkey was."""

    tokens: int
    prefill_seconds: float
    decode_milliseconds: float
    growth: int
    peak: int
    wall_seconds: float
    found: bool


@dataclass(frozen=True)
class Line:
    """y = intercept + slope x; `deviation` is the largest |y - line| / y, `r2` the share of variance explained."""

    slope: float
    intercept: float
    r2: float
    deviation: float


def fit(x: Sequence[float], y: Sequence[float], *, relative: bool) -> Line:
    """The least-squares line. relative: squares of y's relative deviations, so that no length outweighs the others."""
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    slope, intercept = np.polyfit(xs, ys, 1, w=1 / ys if relative else None)
    rest = ys - (intercept + slope * xs)
    variance = float(((ys - ys.mean()) ** 2).sum())
    r2 = 1 - float((rest**2).sum()) / variance if variance else 1.0
    deviation = float(np.abs(rest / ys).max()) if (ys != 0).all() else float("nan")
    return Line(float(slope), float(intercept), r2, deviation)


def measure(tokens: int) -> Point:
    """One length, in this process; its prompt is made in another."""
    from benchmarks import _passkey
    from benchmarks._models import decode_steps, demo_model, started

    prompt = _passkey.prompt_elsewhere(tokens)
    model, tok = demo_model(), _passkey.tokenizer()
    for _ in range(2):
        decode_steps(started(model, [np.resize(prompt.ids, WARM_TOKENS)], 1 << 20), 2)
    before = resident_bytes(reset_peak=True)
    generation, prefill, wall = None, [], []
    for _ in range(max(1, min(8, REPEATED_TOKENS // tokens))):
        generation = None  # its state goes before the next one's is made
        began, began_wall = time.process_time(), time.perf_counter()
        generation = started(model, [prompt.ids], 1 << 20)
        prefill.append(time.process_time() - began)
        wall.append(time.perf_counter() - began_wall)
    assert generation is not None
    steps = [cpu_of(lambda: decode_steps(generation, 1)) for _ in range(DECODED)]
    peak = peak_bytes()
    text = tok.decode(generation.completions[0].token_ids[:8])
    return Point(
        tokens=tokens,
        prefill_seconds=min(prefill),
        decode_milliseconds=sorted(steps)[DECODED // 2] * 1e3,
        growth=peak - before,
        peak=peak,
        wall_seconds=min(wall),
        found=text.split()[:1] == [prompt.answer],
    )


def cpu_of(run: Any) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def resident_bytes(*, reset_peak: bool) -> int:
    """Resident size of this process (Linux); its highest size starts anew from there."""
    if reset_peak:
        Path("/proc/self/clear_refs").write_text("5")
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def run_apart(tokens: int) -> Point:
    """One length in a process of its own with one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "benchmarks.scale", HIDDEN, str(tokens)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise WrongAnswer(f"{tokens:,} tokens: status {done.returncode}\n{done.stderr[-3000:]}")
    return Point(**json.loads(done.stdout.splitlines()[-1]))


def lines_of(points: Sequence[Point]) -> dict[str, Any]:
    """The fits: microseconds a token, bytes a token, and the exponent of prefill seconds over tokens (1: linear)."""
    tokens = [point.tokens for point in points]
    seconds = [point.prefill_seconds for point in points]
    prefill = fit(tokens, seconds, relative=True)
    memory = fit(tokens, [point.growth for point in points], relative=False)
    decode = [point.decode_milliseconds for point in points]
    return {
        "prefill_us_a_token": prefill.slope * 1e6,
        "prefill_intercept_s": prefill.intercept,
        "prefill_r2": prefill.r2,
        "prefill_largest_deviation": prefill.deviation,
        "prefill_exponent": float(np.polyfit(np.log(tokens), np.log(seconds), 1)[0]),
        "memory_bytes_a_token": memory.slope,
        "memory_intercept_bytes": memory.intercept,
        "decode_longest_over_shortest": decode[-1] / decode[0],
        "decode_spread": max(decode) / min(decode) - 1,
    }


def draw_plot(points: Sequence[Point], lines: dict[str, Any], path: Path) -> None:
    """Prefill seconds with the line, growth of memory, milliseconds a new token: one above the other."""
    from infini_eval.reports import plots

    def draw() -> bytes:
        figure, (top, middle, bottom) = plots.stacked(3, height=2.2)
        tokens = [point.tokens for point in points]
        line = [lines["prefill_intercept_s"] + lines["prefill_us_a_token"] * 1e-6 * x for x in tokens]
        blue, orange, green = plots.COLOURS[:3]
        label = f"{lines['prefill_us_a_token']:.1f} µs a token, R² = {lines['prefill_r2']:.5f}"
        top.plot(tokens, line, color=plots.GREY, linewidth=1.2, label=label)
        top.plot(tokens, [point.prefill_seconds for point in points], "o", color=blue)
        top.set(yscale="log", ylabel="prefill, CPU s", title="One CPU thread, the shipped checkpoint, streamed")
        top.legend()
        middle.plot(tokens, [point.growth / 1e6 for point in points], "o-", color=orange)
        middle.set(ylabel="memory growth, MB", ylim=(0, max(16, 1.2 * max(point.growth for point in points) / 1e6)))
        bottom.plot(tokens, [point.decode_milliseconds for point in points], "o-", color=green)
        bottom.set(ylabel="ms a new token", ylim=(0, 1.5 * max(point.decode_milliseconds for point in points)))
        bottom.set_xscale("log", base=2)
        bottom.set_xticks(tokens, [plots.short_tokens(x) for x in tokens])
        bottom.set_xlabel("tokens of context")
        return plots.png(figure)

    data = plots.styled(draw)()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__, allow_abbrev=False)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--longest", type=token_count, default=1 << 20, help="the longest prompt, to 10m (default: 1m)")
    made.add_argument("--plot", type=Path, help="draw the curves into this PNG file")
    made.add_argument("--toy", action="store_true", help="three short lengths: shows that it runs")
    return made


def show(point: Point) -> None:
    found = "found" if point.found else "not found"
    print(
        f"{point.tokens:>12,}{point.prefill_seconds:>14.3f}{point.wall_seconds:>10.2f}{point.growth / 1e6:>14.2f}"
        f"{point.peak / 1e6:>10.0f}{point.decode_milliseconds:>14.3f}  {found}",
        flush=True,
    )


def main(argv: list[str]) -> int:
    if argv[:1] == [HIDDEN]:
        import torch

        torch.set_num_threads(1)
        print(json.dumps(asdict(measure(int(argv[1])))))
        return 0
    from benchmarks.__main__ import conditions

    args = parser().parse_args(argv)
    lengths = TOY_LENGTHS if args.toy else [tokens for tokens in LENGTHS if tokens <= args.longest]
    print(conditions())
    print(
        f"{'tokens':>12}{'prefill CPU s':>14}{'wall s':>10}{'growth MB':>14}{'peak MB':>10}{'ms a token':>14}  passkey"
    )
    points = []
    try:
        for tokens in lengths:
            points.append(run_apart(tokens))
            show(points[-1])
            gate(points[-1].found or args.toy or tokens > MUST_FIND, f"the passkey of {tokens:,} tokens was not found")
    except WrongAnswer as problem:
        print(f"wrong answer: {problem}")
        return 1
    lines = lines_of(points)
    if args.plot:
        draw_plot(points, lines, args.plot)
    print(json.dumps({"conditions": conditions(), "toy": args.toy, **lines, "points": [asdict(x) for x in points]}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
