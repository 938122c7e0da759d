"""Judged answers as files: a list of answers, and judges' folders beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infini_eval.records import RunManifest
from infini_eval.results.manifest import write_manifest
from infini_eval.tasks.aa_lcr.answers import Generation


def answers_file(path: Path, texts: dict[tuple[str, int], str], **head: Any) -> Path:
    """A file of answers by (question, repeat); categories and lengths follow the question's number."""
    rows = [
        {
            "key": f"{question}/{repeat}", "question_id": question, "repeat": repeat, "question": f"Q{question}?",
            "answer": "a", "text": text, "category": ("Legal", "Academia")[int(question) % 2],
            "document_set": f"set{int(question) // 2}", "input_tokens": 70_000 + 10_000 * int(question),
        }
        for (question, repeat), text in texts.items()
    ]  # fmt: skip
    path.write_text(json.dumps({"model": "tiny", "fingerprint": "f", "generations": rows} | head))
    return path


def add_judge(
    source: Path,
    name: str,
    verdicts: dict[tuple[str, int], Any],
    protocol: str = "v1.0",
    notes: str | None = None,
) -> None:
    """A judge's folder with these verdicts: True, False or the words of an unreadable reply."""
    folder = source.with_suffix(".judges") / name
    (folder / "samples").mkdir(parents=True)
    identity = {"task": "aa_lcr_judge", "data_settings": {"protocol": protocol, "grading_notes": notes}}
    write_manifest(folder, RunManifest(identity, {"name": f"model of {name}"}, {}, len(verdicts)))
    texts = {(row["question_id"], row["repeat"]): row["text"] for row in json.loads(source.read_text())["generations"]}
    with (folder / "samples" / "replica-00000.jsonl").open("w") as file:
        for (question, repeat), verdict in verdicts.items():
            key = f"{question}/{repeat}"
            one = Generation(key, question, repeat, "", "", texts[question, repeat])
            known = isinstance(verdict, bool)
            record = {
                "sample_key": f"{name}/{key}", "generation_key": key, "candidate_sha256": one.text_sha256,
                "question_id": question, "repeat": repeat,
                "status": "ok", "error": None, "correct": float(verdict) if known else None,
                "generation_text": ("CORRECT" if verdict else "INCORRECT") if known else verdict,
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")
