"""Passkey questions as tasks of lighteval: to answer, to choose from, and as texts (data: scripts/harnesses.sh lighteval)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lighteval.metrics.metrics import Metrics
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc

DATA = Path("results/harnesses/lighteval")  # a folder for each task, with test.jsonl


def question(line: dict[str, Any], task_name: str) -> Doc:
    return Doc(task_name=task_name, query=line["prompt"], choices=[line["answer"]], gold_index=0)


def choice(line: dict[str, Any], task_name: str) -> Doc:
    return Doc(task_name=task_name, query=line["prompt"], choices=line["choices"], gold_index=line["label"])


def text(line: dict[str, Any], task_name: str) -> Doc:
    return Doc(task_name=task_name, query=line["text"], choices=[], gold_index=[])


def task(name: str, prompt: Any, metric: Metrics) -> LightevalTaskConfig:
    return LightevalTaskConfig(
        name=f"demo_{name}",
        prompt_function=prompt,
        hf_repo=str(DATA / name),
        hf_subset="default",
        hf_avail_splits=["test"],
        evaluation_splits=["test"],
        few_shots_split=None,
        few_shots_select=None,
        generation_size=15,
        stop_sequence=[".", "\n"],
        metrics=[metric],
    )


TASKS_TABLE = [
    task("passkey", question, Metrics.exact_match),
    task("choice", choice, Metrics.loglikelihood_acc),
    task("text", text, Metrics.byte_perplexity),
]
