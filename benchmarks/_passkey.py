"""Passkey prompts for the shipped checkpoint, of exact length; made in a process of their own where memory is measured.

python -m benchmarks._passkey TOKENS FILE.json
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._harness import DEMO, ROOT, temporary_folder


@dataclass(frozen=True)
class Prompt:
    """Token ids [T] int32, and the digits to be found."""

    ids: np.ndarray
    answer: str


def tokenizer() -> Any:
    from infini_eval.data.tokenizer import load_tokenizer

    return load_tokenizer(str(DEMO / "tokenizer"))


def prompt(tokens: int, depth: int = 50) -> Prompt:
    return shared_haystack(tokens, (depth,))[0]


def shared_haystack(tokens: int, depths: tuple[int, ...]) -> list[Prompt]:
    """A prompt for each depth, all in one haystack."""
    from infini_eval.api import registry
    from infini_eval.data.config import GenerateConfig
    from infini_eval.data.generate import generate

    config = GenerateConfig(context_lengths=(tokens,), depths=depths, num_prompts=1, haystack_per="run")
    tok = tokenizer()
    rows, _ = generate(config, tok, registry.load("tasks", "passkey").generator, verify=False)
    return [Prompt(tok.encode(row["prompt"]), str(row["answer"])) for row in rows]


def prompt_elsewhere(tokens: int) -> Prompt:
    """The same, leaving nothing behind in this process's memory."""
    with temporary_folder() as folder:
        file = folder / "prompt.json"
        command = [sys.executable, "-m", "benchmarks._passkey", str(tokens), str(file)]
        subprocess.run(command, cwd=ROOT, check=True)
        return Prompt(np.load(file.with_suffix(".npy")), json.loads(file.read_text()))


def main(tokens: str, file: str) -> None:
    made = prompt(int(tokens))
    np.save(Path(file).with_suffix(".npy"), made.ids.astype(np.int32))
    Path(file).write_text(json.dumps(made.answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
