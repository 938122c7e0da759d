"""A run whose every foreign text tries to become markup, to run, or to hide."""

from __future__ import annotations

import json
from pathlib import Path

from infini_eval.testing.fake_runs import FakeRun, write_fake_run

HOSTILE = (
    '</script><script>document.title="owned"</script><img src=x onerror=alert(1)><svg onload=alert(2)>'
    "<!-- <script> {{ 7 * 7 }} {% raw %} \"'& javascript:alert(3) \u2028 \x1b[31m \u202e"
)


def hostile_run(folder: Path) -> Path:
    """Hostile names, task, answers, ids, errors and texts; one answer of ten million characters."""
    identity = {"task": HOSTILE, HOSTILE: HOSTILE}
    run = FakeRun(depths=(0, 50), per_cell=3, name=f"M{HOSTILE}", identity=identity, model={"memory": HOSTILE})
    write_fake_run(folder, run)
    path = folder / "samples" / "replica0.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records[:3]:
        excerpt = f"{HOSTILE} {record['answer']} {HOSTILE}"
        record |= {"generation_text": HOSTILE, "excerpt": excerpt, "id": HOSTILE, "correct": 0.0, "extracted": HOSTILE}
    records[3] |= {"generation_text": "x" * 10_000_000, "correct": 0.0, "error": HOSTILE}
    records[4] |= {"status": "failed", "correct": None, "error": HOSTILE}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder
