"""What is said before a run: prompts beyond a model's window, which Infini-Attention does not have."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from infini_eval.api.backend import WorkItem, no_ids
from infini_eval.config import EvalConfig, ModelSettings
from infini_eval.distributed.launch import launch
from infini_eval.errors import DataError
from infini_eval.evaluation.messages import check_context_window, log_notes
from infini_eval.records import NeedlePosition, Sample
from infini_eval.testing.tiny_models import tiny_config, write_tiny_checkpoint

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "checkpoints/infini-demo/tokenizer"
LONG = WorkItem(Sample("long", "prompt", "1", 50.0), no_ids(), 5000, NeedlePosition(None, None), "")


def told(folder: Path, infini: bool, caplog, **settings) -> list[str]:
    """Warnings about a prompt of 5,000 tokens for a checkpoint with 4,096 positions."""
    from infini_eval.backends.nanotron import NanotronBackend

    path = write_tiny_checkpoint(folder / "1", tiny_config(infini=infini, vocab_size=1040))
    options = {"tokenizer": str(TOKENIZER), "model": ModelSettings(device="cpu"), "max_new_tokens": 15} | settings
    config = EvalConfig(str(path), str(folder / "run"), "unused", **options)
    with launch("cpu") as world:
        check_context_window(config, world, NanotronBackend(config, world).model_facts(), [LONG])
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_infini_attention_reads_prompts_longer_than_its_positions(tmp_path, caplog) -> None:
    assert told(tmp_path, True, caplog, strict_data=True) == []


def test_a_plain_llama_is_warned_about_and_refused_where_data_are_strict(tmp_path, caplog) -> None:
    assert "1 prompt(s) exceed the model's window of 4,096 tokens" in told(tmp_path, False, caplog)[0]
    with pytest.raises(DataError, match="window of 4,096"):
        told(tmp_path, False, caplog, strict_data=True)


def test_a_window_that_the_user_names_holds_for_every_model(tmp_path, caplog) -> None:
    with pytest.raises(DataError, match="window of 1,000"):
        told(tmp_path, True, caplog, strict_data=True, context_window=1000)


def test_only_what_asks_for_action_is_a_warning(caplog) -> None:
    with launch("cpu") as world, caplog.at_level("INFO", logger="infini_eval"):
        log_notes(world, ["continuing: 12 of 12 are done"])
        log_notes(world, ["2 samples are alike"], logging.WARNING)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "continuing: 12 of 12 are done"),
        ("WARNING", "2 samples are alike"),
    ]
