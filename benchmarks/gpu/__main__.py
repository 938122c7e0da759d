"""`python -m benchmarks.gpu`: parity first, then MFU, decode latency, long prefill, peak memory and kernels on one GPU.

  python -m benchmarks.gpu [NAME…] [--device cuda] [--peak-tflops 989] [--toy]

A table, then one JSON line; status 1 when a target is missed or an answer is wrong. `--toy` runs tiny shapes on the CPU
and judges nothing: it shows that the script works.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import torch

from benchmarks._harness import Metric, WrongAnswer
from benchmarks.gpu import checks
from benchmarks.gpu.place import Place

PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}  # dense bf16, from the makers' data sheets (SXM)
STEPS: dict[str, Callable[[Place], list[Metric]]] = {
    "parity": checks.parity,
    "mfu": checks.mfu,
    "decode": checks.decode,
    "prefill": checks.prefill,
    "peak_memory": checks.peak_memory,
    "kernels": checks.kernels,
}


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    place = _place(args)
    print(place.conditions, flush=True)
    metrics, error, began = [], None, time.monotonic()
    try:
        for name in ["parity", *[name for name in args.names or STEPS if name != "parity"]]:
            found = STEPS[name](place)
            metrics += found
            for metric in found:
                show(metric, place.toy)
    except WrongAnswer as problem:
        error = f"wrong answer: {problem}"
        print(error, flush=True)
    missed = [] if place.toy else [metric.name for metric in metrics if not metric.met(metric.limit)]
    summary = {"missed": missed, "error": error, "seconds": round(time.monotonic() - began, 1), "toy": place.toy}
    summary |= {"conditions": place.conditions, "metrics": [metric.to_json() for metric in metrics]}
    print(json.dumps(summary))
    return int(bool(missed or error))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__, allow_abbrev=False)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument(
        "names", nargs="*", choices=[[], *STEPS], metavar="NAME", help=f"which: {', '.join(STEPS)} (default: all)"
    )
    made.add_argument("--device", default="cuda")
    made.add_argument("--peak-tflops", type=float, help="the device's dense bf16 peak, for MFU (default: by its name)")
    made.add_argument("--toy", action="store_true", help="tiny shapes on the CPU")
    return made


def _place(args: argparse.Namespace) -> Place:
    if args.toy:
        return Place("cpu", 1.0, toy=True)
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: torch sees no GPU\n  next:  --toy runs tiny shapes on the CPU")
    name = torch.cuda.get_device_name()
    known = next((peak for key, peak in PEAK_TFLOPS.items() if key in name), None)
    if args.peak_tflops is None and known is None:
        sys.exit(f"error: the peak of {name} is not known\n  next:  pass --peak-tflops")
    return Place(args.device, args.peak_tflops or known or 0.0, toy=False)


def show(metric: Metric, toy: bool) -> None:
    wanted = "" if toy or metric.limit is None else f"{metric.sense} {metric.limit:g}"
    verdict = "" if not wanted else "ok" if metric.met(metric.limit) else "MISSED"
    value = f"{metric.value:.4g} {metric.unit}"
    print(f"{metric.name:30}{value:>14}  {wanted:>9} {verdict:7}{metric.note}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
