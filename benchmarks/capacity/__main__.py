"""`python -m benchmarks.capacity`: what a whole grid costs on 1 to 512 GPUs, and what breaks first, as Markdown.

  python -m benchmarks.capacity [--models 300M,8B,70B] [--gpus 1,8,64,512] [--device H100-80GB] [--utilisation 0.45,0.6]
                                [--lengths 1k,4k,…] [--depths 21] [--samples 50] [--rates tokenise=2e6,load=0.5]
  python -m benchmarks.capacity --write docs/capacity.md
  python -m benchmarks.capacity --measure [--records 1000000]

The share of the GPU's peak is an assumption until `python -m benchmarks.gpu` has measured it; `--measure` measures the host's
rates here, which `--rates` puts in. Arithmetic alone: nothing is loaded but for `--measure`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from benchmarks.capacity.grid import (
    Cost,
    Grid,
    bubble,
    cost_of,
    prefix_saving,
    rank_bytes,
    smallest_replica,
    total_flops,
)
from benchmarks.capacity.host import HostRates
from benchmarks.capacity.limits import limits_of
from benchmarks.capacity.models import NAMES, architecture
from infini_eval.distributed.mesh import MeshShape
from infini_eval.engine.batching import CHUNK_TOKENS
from infini_eval.errors import InfiniEvalError
from infini_eval.options import positive_int, token_count
from infini_eval.planning.architecture import Architecture
from infini_eval.planning.devices import Device, parse_gpus
from infini_eval.reports.plots import short_tokens


def duration(seconds: float) -> str:
    """Three digits with the unit that suits."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 0.095 else f"{seconds * 1e3:.2g} ms"


def percent(share: float) -> str:
    return "0 %" if share < 0.0005 else f"{100 * share:.1f} %"


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def header(*cells: str) -> str:
    return f"{row(*cells)}\n{row(*['---'] * len(cells))}"


class Tables:
    """The Markdown of one set of assumptions."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.grid = Grid(lengths=tuple(args.lengths), depths=args.depths, samples=args.samples)
        self.device: Device = parse_gpus(args.device)[1]
        if self.device.flops is None:
            raise InfiniEvalError(f"the peak of {self.device.name} is not known")
        self.gpus, self.utilisations, self.rates = args.gpus, args.utilisation, args.rates
        self.models: dict[str, Architecture] = {name: architecture(name) for name in args.models}
        self._costs: dict[tuple[str, int, float], Cost] = {}

    def all(self) -> Iterator[str]:
        yield self._conditions()
        yield from ("", *self._cost_rows(), "", *self._limit_rows(), "", *self._bubble_rows(), "", self._prefix())

    def _replica(self, name: str, gpus: int) -> MeshShape | None:
        return smallest_replica(self.models[name], self.grid, self.device, gpus)

    def _cost(self, name: str, gpus: int, replica: MeshShape, utilisation: float) -> Cost:
        key = (name, gpus, utilisation)
        if key not in self._costs:
            self._costs[key] = cost_of(self.models[name], self.grid, self.device, gpus, replica, utilisation)
        return self._costs[key]

    def _conditions(self) -> str:
        grid, listed = self.grid, ", ".join(short_tokens(length) for length in self.grid.lengths)
        shares = " and ".join(f"{100 * share:g} %" for share in self.utilisations)
        return (
            f"{grid.depths} depths x {grid.samples} samples x {{{listed}}}: {len(grid.prompts):,} prompts, "
            f"{grid.tokens / 1e9:.3f} G tokens; {self.device.name}, bf16, at {shares} of its peak "
            "(**targets, not measured**)."
        )

    def _cost_rows(self) -> Iterator[str]:
        longest = short_tokens(max(self.grid.lengths))
        times = [f"time at {100 * share:g} %" for share in self.utilisations]
        hours = [f"GPU-hours at {100 * share:g} %" for share in self.utilisations]
        ends = ["idle, whole grid", f"idle, {longest} alone", f"one prompt of {longest}"]
        yield header("model", "prefill", "GPUs", "replicas", "one replica", "memory a GPU", *times, *hours, *ends)
        for name, model in self.models.items():
            flops = f"{total_flops(model, self.grid):.2e} FLOPs"
            for gpus in self.gpus:
                replica = self._replica(name, gpus)
                if replica is None:
                    yield row(name, flops, gpus, "does not fit", *["—"] * (5 + 2 * len(times)))
                    continue
                costs = [self._cost(name, gpus, replica, share) for share in self.utilisations]
                need = f"{rank_bytes(model, self.grid, self.device, replica) / 1e9:.1f} GB"
                last = costs[-1]
                yield row(
                    name, flops, gpus, gpus // replica.world_size, f"tp {replica.tp}, pp {replica.pp}", need,
                    *(duration(cost.seconds) for cost in costs), *(f"{cost.gpu_hours:.3g}" for cost in costs),
                    percent(last.idle), percent(last.idle_longest), duration(last.one_longest),
                )  # fmt: skip

    def _limit_rows(self) -> Iterator[str]:
        started = False
        for name, model in self.models.items():
            for gpus in self.gpus:
                replica = self._replica(name, gpus)
                if replica is None:
                    continue
                cost = self._cost(name, gpus, replica, self.utilisations[-1])
                limits = limits_of(model, self.grid, cost, gpus, replica, self.rates)
                if not started:
                    parts = [*limits.serial, *(f"*{name}*" for name in limits.overlapped)]
                    yield header("model", "GPUs", "GPUs' work", *parts, "text a node holds", "first to break")
                    started = True
                seconds = [*limits.serial.values(), *limits.overlapped.values()]
                text = f"{limits.node_text / 1e9:.0f} GB"
                yield row(name, gpus, duration(cost.ideal), *map(duration, seconds), text, limits.first(cost))

    def _bubble_rows(self) -> Iterator[str]:
        chunk = CHUNK_TOKENS["cuda"]
        yield header("pp, one prompt alone", *(short_tokens(length) for length in self.grid.lengths))
        for stages in (2, 4, 8):
            shares = [percent(bubble(-(-length // chunk), stages)) for length in self.grid.lengths]
            yield row(stages, *shares)

    def _prefix(self) -> str:
        depths, saved = self.grid.depths, prefix_saving(self.grid.depths)
        return (
            f"A haystack shared by its {depths} depths, read as a tree: {saved:.2f} times less prefill "
            f"({prefix_saving(11):.2f} times with 11 depths; never more than 2)."
        )


def rates_of(text: str) -> HostRates:
    """ "tokenise=2e6,load=0.5" on top of the rates measured here."""
    names = {field.name: type(field.default) for field in fields(HostRates)}
    changes = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            changes[name] = names[name](float(value))
        except (KeyError, ValueError):
            raise argparse.ArgumentTypeError(f"{part!r} is not NAME=NUMBER (valid: {', '.join(names)})") from None
    return replace(HostRates(), **changes)


def _several(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Values separated by commas."""
    return lambda text: [kind(part) for part in text.split(",")]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__, allow_abbrev=False)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    grid = Grid()
    made.add_argument("--models", type=_several(str), default=list(NAMES), help="300M, 8B, 70B, or as `plan --model`")
    made.add_argument("--gpus", type=_several(positive_int), default=[1, 8, 64, 512])
    made.add_argument("--device", default="H100-80GB", help="as `infini-eval plan --gpus` names one")
    made.add_argument("--utilisation", type=_several(float), default=[0.45, 0.6], help="shares of the dense bf16 peak")
    made.add_argument("--lengths", type=_several(token_count), default=list(grid.lengths))
    made.add_argument("--depths", type=positive_int, default=grid.depths)
    made.add_argument("--samples", type=positive_int, default=grid.samples)
    made.add_argument("--rates", type=rates_of, default=HostRates(), help="host rates to put in, NAME=NUMBER,…")
    made.add_argument("--write", type=Path, help="put the tables into this page instead of printing them")
    made.add_argument("--measure", action="store_true", help="measure this host's rates instead")
    made.add_argument("--records", type=positive_int, default=100_000, help="records to merge with --measure")
    made.add_argument("--toy", action="store_true", help="--measure at tiny sizes")
    return made


def measure(args: argparse.Namespace) -> None:
    import torch

    from benchmarks.__main__ import conditions
    from benchmarks.capacity.measure import measure_host

    torch.set_num_threads(1)
    print(conditions(), "", header("rate", "measured", "unit", "taken from"), sep="\n", flush=True)
    for rate in measure_host(args.toy, args.records):
        print(row(rate.what, f"{rate.value:.3g}", rate.unit, rate.note), flush=True)


def write(page: Path, text: str) -> None:
    """Put the printed blocks, in their order, between the page's markers `<!-- block N -->` and `<!-- end -->`."""
    content = page.read_text()
    for number, block in enumerate(text.split("\n\n")):
        between = re.compile(rf"(<!-- block {number} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        content, found = between.subn(lambda match, block=block: match[1] + block + match[2], content)
        if found != 1:
            raise InfiniEvalError(
                f"{page} has {found} places for block {number}", valid=f"<!-- block {number} -->, once"
            )
    page.write_text(content)


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    if args.measure:
        measure(args)
        return 0
    try:
        text = "\n".join(Tables(args).all())
        write(args.write, text) if args.write else print(text)
    except InfiniEvalError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
