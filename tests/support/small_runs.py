"""A task by its commands: `infini-eval generate` and `infini-eval run` with the fake backend, as a user types them."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from infini_eval.api import registry
from infini_eval.cli.main import main
from infini_eval.data.config import GenerateConfig
from infini_eval.data.generate import generate
from infini_eval.data.tokenizer import Tokenizer, load_tokenizer
from infini_eval.records import Sample

TOKENIZER = Path(__file__).resolve().parents[2] / "checkpoints" / "infini-demo" / "tokenizer"


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    return load_tokenizer(TOKENIZER)


def rows(task: str, length: int = 2_048, **settings: Any) -> list[dict[str, Any]]:
    """The rows that the task's generator makes, two a depth."""
    usual: dict[str, Any] = {"context_lengths": (length,), "num_prompts": 2, "task": task}
    config = GenerateConfig(**usual | settings)
    return list(generate(config, tokenizer(), registry.task(task).generator)[0])


def sample_of(row: dict[str, Any]) -> Sample:
    columns = {name: value for name, value in row.items() if name != "prompt"}
    return Sample(row["id"], row["prompt"], str(row["answer"]), row["depth_percent"], columns=columns)


def made(task: str, folder: Path, length: int = 2_048, *more: str) -> Path:
    """The data set that `infini-eval generate` writes, one prompt a depth."""
    given = ["--task", task, "--context_length", str(length), "--num_prompts", "1", "--tokenizer", str(TOKENIZER)]
    assert main(["generate", *given, "--save_path", str(folder / "data"), "--quiet", *more]) == 0
    return folder / "data"


def answered(task: str, data: Path, folder: Path, *more: str) -> list[dict[str, Any]]:
    """The records of `infini-eval run` on the data; by default the backend fake answers, which knows every answer."""
    model = [] if "--model" in more else ["--model", "fake:any"]
    given = ["--task", task, "--eval_dataset_path", str(data), "--save_path", str(folder), "--quiet", *model, *more]
    assert main(["run", *given]) == 0
    lines = [line for path in (folder / "samples").glob("*.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]
