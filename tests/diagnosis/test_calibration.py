"""Calibration: which rows are scaled, how far, when it is refused, and what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.cli.main import main
from infini_eval.config import ModelSettings
from infini_eval.diagnosis import calibration
from infini_eval.diagnosis.calibration import (
    chosen_heads,
    largest_safe,
    least_of,
    mixed_prompts,
    query_scale,
    sharpened,
)
from infini_eval.diagnosis.trace import load_weights
from infini_eval.engine.native_model import NativeModel
from infini_eval.engine.text import open_tokenizer
from infini_eval.testing.tiny_models import tiny_config, write_tiny_checkpoint

DEMO = Path(__file__).resolve().parents[2] / "checkpoints/infini-demo"


@pytest.fixture(scope="module")
def demo() -> Checkpoint:
    return Checkpoint(DEMO)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer prompts and scales than a real calibration."""
    monkeypatch.setattr(calibration, "MEASURED", 4)
    monkeypatch.setattr(calibration, "MEASURED_SEGMENTS", 5)
    monkeypatch.setattr(calibration, "SCALES", (1.1, 1.2, 3.0))
    mixed = calibration.mixed_prompts
    monkeypatch.setattr(calibration, "mixed_prompts", lambda tokenizer, length: mixed(tokenizer, length, 24))


def test_only_the_heads_queries_and_their_kv_heads_keys_grow(tmp_path: Path) -> None:
    """Four query heads share two kv heads: head 3 of layer 1 asks kv head 1."""
    checkpoint = Checkpoint(write_tiny_checkpoint(tmp_path / "1", tiny_config(num_key_value_heads=2)))
    config, weights = checkpoint.config, load_weights(checkpoint)
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)
    changed = sharpened(weights, config, ((1, 3),), 1.4)
    name = "model.decoder.1.pp_block.attn.qkv_proj.weight"
    assert [key for key in weights if not torch.equal(weights[key], changed[key])] == [name]
    width = config.head_dim
    ratio = (changed[name] / weights[name]).mean(1).view(-1, width).mean(1)  # of each head's rows: q 0-3, k 0-1, v 0-1
    torch.testing.assert_close(ratio, torch.tensor([1, 1, 1, 1.2, 1, 1.4, 1, 1]))


def test_heads_near_the_best_are_chosen_and_closed_ones_are_not() -> None:
    def row(layer: int, head: int, gate: float, equal: float | None) -> dict[str, float | int | None]:
        return {"layer": layer, "head": head, "gate": gate, "equal_tokens": equal}

    rows = [row(0, 0, 0.0, 1e9), row(1, 3, 0.5, 3e6), row(1, 2, 0.7, 1.2e5), row(1, 1, 0.7, 9e4), row(2, 0, 0.5, None)]
    assert chosen_heads({"heads": rows}) == ((1, 3), (1, 2))


def test_the_largest_scale_is_taken_whose_denominators_are_large_enough(
    demo: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "SCALES", (1.1, 1.2, 1.4, 1.8, 3.0))
    heads, weights = ((1, 2), (1, 3)), load_weights(demo)
    batches = [torch.randint(1024, (8, 384), generator=torch.Generator().manual_seed(0))]
    least = [
        least_of(sharpened(weights, demo.config, heads, scale), demo.config, batches) for scale in calibration.SCALES
    ]
    safe = [scale for scale, each in zip(calibration.SCALES, least, strict=True) if each >= calibration.LEAST]
    assert 0 < len(safe) < 5
    scale, found = largest_safe(weights, demo.config, heads, batches)
    assert scale == safe[-1] and found == least[len(safe) - 1]


def test_no_scale_is_safe_where_denominators_are_small_already(demo: Checkpoint) -> None:
    heads = ((1, 2), (1, 3))
    weights = sharpened(load_weights(demo), demo.config, heads, 3.0)
    batches = [torch.randint(1024, (8, 384), generator=torch.Generator().manual_seed(0))]
    assert largest_safe(weights, demo.config, heads, batches)[0] == 1.0


def test_mixed_prompts_are_as_many_as_asked(demo: Checkpoint) -> None:
    batches = mixed_prompts(open_tokenizer(None, demo), 128, 24)
    assert sum(len(batch) for batch in batches) == 24
    assert {batch.shape[1] for batch in batches} == {384, 449, 512}


def test_the_command_writes_a_checkpoint_that_holds_longer(
    few: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    new, output = tmp_path / "new", tmp_path / "calibration.json"
    assert main(["calibrate", "--ckpt-path", str(DEMO), "--save-path", str(new), "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    assert report["heads"] == [[1, 3], [1, 2]] and report["key_scale"] == 1.2
    assert report["query_scale"] == query_scale(1.2) == pytest.approx(1.1)
    assert report["after"]["breaks"]["tokens"] > 1.5 * report["before"]["breaks"]["tokens"]
    assert report["least_denominator"]["after"] >= 1e-6
    assert "keys x 1.2, queries x 1.1 of layer 1 head 3, layer 1 head 2" in capsys.readouterr().out
    saved = Checkpoint(new)
    assert saved.config == Checkpoint(DEMO).config and (new / "tokenizer/tokenizer.json").is_file()
    assert NativeModel.load(saved, ModelSettings()).logits([[5, 6, 7]]).isfinite().all()


def test_an_existing_folder_is_not_written_into(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").touch()
    assert main(["calibrate", "--ckpt-path", str(DEMO), "--save-path", str(tmp_path / "old")]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_model_that_finds_nothing_is_refused(few: None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tiny = write_tiny_checkpoint(tmp_path / "1", tiny_config(vocab_size=1024, segment_length=128))
    arguments = ["--ckpt-path", str(tiny), "--tokenizer", str(DEMO / "tokenizer"), "--save-path", str(tmp_path / "new")]
    assert main(["calibrate", *arguments]) == 2
    assert "would not help: it answers 0 of 4" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
