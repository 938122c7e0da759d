"""Structure-aware fuzzing of what others may have written: configurations, manifests, records, replies, rows of data.

Each case is something good with one or more values replaced by odd ones. The reader takes it, or refuses it with an error of
ours; anything else is a defect. Seeded and short; INFINI_EVAL_FUZZ_CASES asks for more cases of each reader.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from infini_eval.backends._remote import Reply, ReplyCache
from infini_eval.checkpoint.config_yaml import read_config
from infini_eval.checkpoint.layout import find_step_folder
from infini_eval.data.reading import load_samples
from infini_eval.errors import InfiniEvalError
from infini_eval.planning.hf_config import from_hf_config, preset_names, read_architecture
from infini_eval.reports.analyze import analyze_any
from infini_eval.results.manifest import read_progress
from infini_eval.results.merge import merge_samples
from infini_eval.testing.fake_runs import FakeRun, write_fake_run

ROOT = Path(__file__).resolve().parents[2]
CASES = int(os.environ.get("INFINI_EVAL_FUZZ_CASES", "40"))
fuzzed = settings(
    max_examples=CASES, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=False
)
ODD_NUMBERS = [0, -1, 1, 2**31, 2**63, 10**12, 10**400, 0.5, 1e308, float("nan"), float("inf"), -float("inf")]
ODD_TEXTS = ["", "x", "5", "1e400", "\0", "\x1b[31m\r", "\u202e", "\ud800", "x" * 5_000, "[" * 2_000, "../..", "NaN"]
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(ODD_NUMBERS),
    st.sampled_from(ODD_TEXTS),
    st.sampled_from([[], {}, [1], ["x"], {"a": 1}, [[[]]], [None], {"x": {"y": [1]}}]),
    st.text(max_size=20),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where values stand in a JSON value, the whole excepted."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*path, key)
        yield from places(part, (*path, key))


@st.composite
def damaged(draw: Callable[..., Any], good: Any) -> Any:
    """Something good with some of its values replaced, left out, or added under another name."""
    found = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from(list(places(found)) or [()]))
        holder = found
        for key in where[:-1]:
            holder = holder[key]
        if not where:
            continue
        match draw(st.sampled_from(["replace", "replace", "replace", "leave out", "rename"])):
            case "replace":
                holder[where[-1]] = copy.deepcopy(draw(odd))
            case "leave out":
                del holder[where[-1]]
            case "rename" if isinstance(holder, dict):
                holder[draw(st.sampled_from(ODD_TEXTS))] = holder.pop(where[-1])
    return found


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def taken_or_refused(read: Callable[[], Any]) -> Any:
    """What a reader gives; None for an error of ours, whose message is short."""
    try:
        return read()
    except InfiniEvalError as error:
        message = str(error)
    assert len(message) < 20_000
    return None


GOOD_CONFIG = yaml.safe_load((find_step_folder(ROOT / "checkpoints/infini-demo") / "config.yaml").read_text())


@seed(1)
@fuzzed
@given(damaged(GOOD_CONFIG))
def test_configurations(scratch: Path, found: Any) -> None:
    (scratch / "config.yaml").write_text(json.dumps(found))  # JSON is YAML
    config = taken_or_refused(lambda: read_config(scratch))
    if config is not None:
        assert config[0].parameter_count < 10**18


PRESETS = [
    json.loads((ROOT / f"src/infini_eval/planning/presets/{name}.json").read_text()) for name in preset_names()[1:]
]


@seed(2)
@fuzzed
@given(st.sampled_from(PRESETS).flatmap(damaged))
def test_configurations_of_other_models(scratch: Path, found: Any) -> None:
    (scratch / "model.json").write_text(json.dumps(found))
    taken_or_refused(lambda: read_architecture(str(scratch / "model.json")))
    taken_or_refused(lambda: from_hf_config(found, "model"))


ROW = {
    "prompt": "What is it?", "answer": "5", "depth_percent": 50.0, "context_length": 10, "num_shots": 0, "num_digits": 1,
    "id": "a", "outputs": ["5", "five"], "needles": ["it"], "is_eval": "yes", "token_count": 5,
}  # fmt: skip
CHAT = {
    "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "b"}]
}


@seed(3)
@fuzzed
@given(st.lists(st.one_of(damaged(ROW), damaged(CHAT)), min_size=1, max_size=3))
def test_rows_of_data(scratch: Path, rows: list[Any]) -> None:
    path = scratch / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = taken_or_refused(lambda: load_samples(path))
    for sample in data.samples if data else ():
        assert sample.key and sample.prompt.encode() is not None


def _good_run() -> tuple[Any, list[Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = write_fake_run(Path(folder), FakeRun(depths=(0, 50), per_cell=2))
        lines = [line for one in (path / "samples").glob("*.jsonl") for line in one.read_text().splitlines()]
        return json.loads((path / "manifest.json").read_text()), [json.loads(line) for line in lines]


GOOD_MANIFEST, GOOD_RECORDS = _good_run()


@seed(4)
@fuzzed
@given(damaged(GOOD_MANIFEST), damaged(GOOD_RECORDS))
def test_run_folders(found: Any, records: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "samples").mkdir()
        (folder / "manifest.json").write_text(json.dumps(found))
        (folder / "samples" / "replica-00000.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
        taken_or_refused(lambda: analyze_any(folder))
        taken_or_refused(lambda: read_progress(folder))
        taken_or_refused(lambda: merge_samples(folder))


GOOD_REPLY = {
    "version": 1,
    "reply": {"text": "a", "finish_reason": "stop", "prompt_tokens": 5, "details": {"m": "x", "n": 1}},
}
BODY = {
    "id": "1",
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "5"}, "text": "5"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 0}},
}


@seed(5)
@fuzzed
@given(damaged(GOOD_REPLY), damaged(BODY), st.booleans())
def test_replies(kept: Any, body: Any, chat: bool) -> None:
    pytest.importorskip("openai")
    from infini_eval.backends.openai import SampleFailed, _reply

    with tempfile.TemporaryDirectory() as folder:
        cache = ReplyCache(Path(folder))
        cache.put({}, Reply("a", "stop", 5))
        (path,) = Path(folder).rglob("*.json")
        path.write_text(json.dumps(kept))
        replies = [cache.get({})]
    with contextlib.suppress(ValueError, SampleFailed):  # it is asked for again, or costs the sample
        replies.append(_reply(json.dumps(body).encode(), chat=chat))
    for reply in replies:
        assert reply is None or (isinstance(reply.text, str) and (reply.prompt_tokens or 0) < 2**41)
