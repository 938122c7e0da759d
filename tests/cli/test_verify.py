"""`infini-eval verify` on what nanotron's main branch computed with dense Qwen2 checkpoints."""

from __future__ import annotations

import pytest

from infini_eval.cli.main import main
from infini_eval.errors import EXIT_CHECK_FAILED, EXIT_OK
from support.shared_material import shared_path

VARIANTS = ("gqa", "gqa_bias", "norope", "swa", "rope_interp")


def verify(checkpoint: str, reference: str) -> int:
    fixtures = shared_path("fixtures", "nanotron-main-qwen2")
    folder = fixtures / f"qwen2_{reference}"
    files = ["--reference", str(folder / "logits.safetensors"), "--generation", str(folder / "generation.json")]
    return main(["verify", "--ckpt-path", str(fixtures / f"qwen2_{checkpoint}" / "tp2_pp2"), "--device", "cpu", *files])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_qwen2_is_computed_as_training_did(variant: str, capsys) -> None:
    assert verify(variant, variant) == EXIT_OK
    assert "2 of 2 rows agree, 2 token for token" in capsys.readouterr().out


def test_another_models_logits_are_not(capsys) -> None:
    assert verify("swa", "gqa") == EXIT_CHECK_FAILED
