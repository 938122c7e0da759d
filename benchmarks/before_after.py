"""The guide's full benchmark on two states of this repository in turn: seconds and accuracy by length, equal answers checked.

  python -m benchmarks.before_after --before REF [--after REF] [--lengths 1k,…,32k] [--samples 5] [--repeat 1] [--toy]
                                    [--before-flags '…'] [--after-flags '…']

The shipped checkpoint answers 11 depths at each length, on prompts with a haystack of their own and on prompts that share
one, by `run_passkey_eval.py`, one process and one thread a command. Data are generated once, and both states answer the
same files in the same Python environment, taking turns. `--after` is the working tree where it is not given. CPU seconds
are the command's own, start-up included; wall seconds mean something only on idle cores. An answer that goes on longer in
one state counts as the same (ending early is an optimisation); any other difference, or a different verdict, is an error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks._harness import DEMO, ROOT, WrongAnswer, children_cpu, gate, temporary_folder
from infini_eval.options import positive_int, token_count
from infini_eval.reports.plots import short_tokens

LENGTHS = (1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15)
DEPTHS = "0:100:10"
SETS = {"own": "prompt", "shared": "run"}  # name in the table: --haystack-per
COLUMNS = (
    "haystack", "length", "CPU s before", "CPU s after", "ratio", "wall s before", "wall s after", "ratio",
    "right before", "right after", "same answers",
)  # fmt: skip
EVALUATE = Path("examples/infinite-context-length/scripts/run_passkey_eval.py")


@dataclass(frozen=True)
class State:
    """A checkout: its name in the table, its folder, and flags that only it is given."""

    name: str
    folder: Path
    flags: tuple[str, ...]


@dataclass
class Outcome:
    """One set and length in one state: least seconds over the repetitions, and each sample's text and verdict by id."""

    cpu: float = float("inf")
    wall: float = float("inf")
    answers: dict[str, tuple[str, float | None]] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        verdicts = [correct for _, correct in self.answers.values() if correct is not None]
        gate(len(verdicts) == len(self.answers) > 0, f"{len(verdicts)} of {len(self.answers)} samples were judged")
        return sum(verdicts) / len(verdicts)


def command(state: State, *arguments: str) -> tuple[float, float]:
    """CPU and wall seconds of a Python command in a state, on one thread."""
    environment = os.environ | {
        "PYTHONPATH": str(state.folder / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    cpu, wall = children_cpu(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=state.folder, env=environment, capture_output=True, text=True
    )
    gate(
        done.returncode == 0,
        f"{state.name}: {shlex.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}",
    )
    return children_cpu() - cpu, time.perf_counter() - wall


def generate(state: State, folder: Path, owner: str, length: int, samples: int) -> None:
    flags = f"--context_length {length} --depths {DEPTHS} --num_prompts {samples} --haystack-per {owner} --quiet"
    command(
        state, "-m", "infini_eval", "generate", *flags.split(), "--tokenizer_path", str(DEMO), "--save_path", str(folder)
    )  # fmt: skip


def evaluate(state: State, data: Path, results: Path, samples: int, into: Outcome) -> None:
    """Answer a data set and keep the lesser times."""
    flags = f"--num_shots 0 --num_digits 0 --seed 42 --num_samples {samples} --max-new-tokens 15 --dp 1 --tp 1 --pp 1"
    paths = ["--ckpt-path", str(DEMO), "--save_path", str(results), "--eval_dataset_path", str(data)]
    cpu, wall = command(state, str(state.folder / EVALUATE), *paths, *flags.split(), "--quiet", *state.flags)
    into.cpu, into.wall = min(into.cpu, cpu), min(into.wall, wall)
    answers = {}
    for file in (results / "samples").glob("*.jsonl"):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            answers[record["id"]] = (record["generation_text"], record["correct"])
    gate(not into.answers or into.answers == answers, f"{state.name} answers differently the second time")
    into.answers = answers


def compared(before: Outcome, after: Outcome) -> int:
    """How many answers are the same but for where they end; WrongAnswer where one differs otherwise."""
    gate(before.answers.keys() == after.answers.keys(), "the two states answered different samples")
    ended = 0
    for name, (old, old_verdict) in before.answers.items():
        new, verdict = after.answers[name]
        gate(old_verdict == verdict, f"sample {name}: {old!r} was judged {old_verdict}, {new!r} is judged {verdict}")
        short, long = sorted((old.strip(), new.strip()), key=len)
        gate(bool(short) == bool(long) and long.startswith(short), f"sample {name}: {old!r} before, {new!r} after")
        ended += old != new
    return ended


@contextlib.contextmanager
def checkout(ref: str | None, folder: Path) -> Iterator[Path]:
    """The files of a git reference in a folder of their own; None is the working tree."""
    if ref is None:
        yield ROOT
        return
    git = ["git", "-C", str(ROOT), "worktree"]
    done = subprocess.run([*git, "add", "--detach", "--force", str(folder), ref], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: git cannot check out {ref!r}: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True, capture_output=True)


def table_row(name: str, length: int, before: Outcome, after: Outcome) -> str:
    ended = compared(before, after)
    same = f"all {len(before.answers)}" + (f", {ended} end elsewhere" if ended else "")
    cells = [
        name, short_tokens(length), f"{before.cpu:.2f}", f"{after.cpu:.2f}", f"{before.cpu / after.cpu:.2f}",
        f"{before.wall:.2f}", f"{after.wall:.2f}", f"{before.wall / after.wall:.2f}",
        f"{100 * before.accuracy:.1f} %", f"{100 * after.accuracy:.1f} %", same,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def total_row(outcomes: list[tuple[Outcome, Outcome]]) -> str:
    cpu = [sum(pair[side].cpu for pair in outcomes) for side in (0, 1)]
    wall = [sum(pair[side].wall for pair in outcomes) for side in (0, 1)]
    cells = ["all", "", *(f"{x:.1f}" for x in cpu), f"{cpu[0] / cpu[1]:.2f}"]
    cells += [*(f"{x:.1f}" for x in wall), f"{wall[0] / wall[1]:.2f}", "", "", ""]
    return f"| {' | '.join(cells)} |"


def run(states: list[State], folder: Path, lengths: list[int], samples: int, repeat: int) -> None:
    """Print the table as it fills."""
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    outcomes = []
    for name, owner in SETS.items():
        for length in lengths:
            data = folder / "data" / f"{name}-{length}"
            generate(states[-1], data, owner, length, samples)
            pair = (Outcome(), Outcome())
            for turn in range(repeat):
                for state, outcome in zip(states, pair, strict=True):
                    evaluate(state, data, folder / "results" / f"{state.name}-{name}-{length}-{turn}", samples, outcome)
            outcomes.append(pair)
            print(table_row(name, length, *pair), flush=True)
    print(total_row(outcomes))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.before_after", description=__doc__, allow_abbrev=False)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--before", required=True, help="a git reference")
    made.add_argument("--after", help="a git reference (default: the working tree)")
    made.add_argument("--before-flags", default="", help="more flags of run_passkey_eval.py for that state alone")
    made.add_argument("--after-flags", default="", help="the same for the other one")
    made.add_argument(
        "--lengths", type=lambda text: [token_count(part) for part in text.split(",")], default=list(LENGTHS)
    )
    made.add_argument("--samples", type=positive_int, default=5, help="at each depth (default: 5)")
    made.add_argument("--repeat", type=positive_int, default=1, help="times each is run; the least counts (default: 1)")
    made.add_argument("--toy", action="store_true", help="one length, one sample a depth: shows that it runs")
    return made


def main(argv: list[str]) -> int:
    from benchmarks.__main__ import conditions

    args = parser().parse_args(argv)
    if args.toy:
        args.lengths, args.samples = [256], 1
    print(
        f"{conditions()}; 11 depths x {args.samples} samples, {args.before} against {args.after or 'the working tree'}\n"
    )
    with (
        temporary_folder() as folder,
        checkout(args.before, folder / "before") as before,
        checkout(args.after, folder / "after") as after,
    ):
        states = [
            State("before", before, tuple(shlex.split(args.before_flags))),
            State("after", after, tuple(shlex.split(args.after_flags))),
        ]
        try:
            run(states, folder, args.lengths, args.samples, args.repeat)
        except WrongAnswer as problem:
            print(f"wrong answer: {problem}")
            return 1
    print(f"\n{conditions()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
