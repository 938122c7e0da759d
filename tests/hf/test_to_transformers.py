"""A checkpoint exported for transformers: the same logits and tokens as the reference's and the native engine's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

import infini_eval
import infini_eval.hf
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.cli.main import main
from infini_eval.config import ModelSettings
from infini_eval.engine.native_model import NativeModel
from infini_eval.errors import ConfigError, DataError
from infini_eval.testing.tiny_models import tiny_config, write_tiny_checkpoint
from support.limits import PROCESS_S
from support.shared_material import shared_path

REFERENCES = [
    *(f"nanotron/{name}" for name in ("mha", "gqa_neox", "tied", "act_tanh_abs", "act_hard_sigmoid")),
    *(f"nanotron/{name}" for name in ("act_orig_sigmoid", "act_orig_tanh", "memory_off", "bf16_disk")),
    *(f"nanotron-main/{name}" for name in ("llama_gqa", "llama_mha_tied")),
]
DEMO = Path(__file__).resolve().parents[2] / "checkpoints" / "infini-demo"


def opened(folder: Path, **options) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **options).eval()


def exported(checkpoint: Path, place: Path, tokenizer: Path, **options) -> Path:
    infini_eval.export(checkpoint, format="hf", output=place, tokenizer=str(tokenizer), **options)
    return place


@pytest.mark.parametrize("variant", REFERENCES)
def test_logits_and_tokens_are_the_references(variant: str, small_tokenizer: Path, tmp_path: Path) -> None:
    folder = shared_path("fixtures", *variant.split("/"))
    reference = load_file(folder / "logits.safetensors")
    generation = json.loads((folder / "generation.json").read_text())
    model = opened(exported(next(folder.glob("tp*")), tmp_path / "hf", small_tokenizer, dtype="float32"))
    with torch.no_grad():
        torch.testing.assert_close(model(reference["input_ids"]).logits, reference["logits"], atol=1e-4, rtol=0)
    prompt = torch.tensor(generation["prompt_ids"])
    prompt = prompt if prompt.dim() == 2 else prompt[None]
    model.generation_config.eos_token_id = None
    model.generation_config.suppress_tokens = None
    answer = model.generate(prompt, max_new_tokens=generation["new_tokens"], attention_mask=torch.ones_like(prompt))
    answer = answer[:, prompt.shape[1] :].tolist()
    assert answer in (generation["generated"], [generation["generated"]])


def test_the_demo_answers_as_natively_far_beyond_its_training(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    infini_eval.export(DEMO, format="hf", output=folder)
    native = NativeModel.load(Checkpoint(DEMO), ModelSettings(device="cpu"))
    ids = torch.randint(1, 1024, (1, 4500), generator=torch.Generator().manual_seed(1))
    model = opened(folder)
    with torch.no_grad():
        difference = (model(ids).logits - native.logits(ids)).abs().max()
    assert difference < 2e-4
    expected = native.generate(ids.tolist(), 40, stop_ids=())
    got = model.generate(ids, max_new_tokens=40, eos_token_id=None, attention_mask=torch.ones_like(ids))
    assert got[:, 4500:].tolist() == expected
    words = transformers.AutoTokenizer.from_pretrained(folder)
    assert words("The key is 1234.").input_ids == native_ids("The key is 1234.")


def native_ids(text: str) -> list[int]:
    from infini_eval.data.tokenizer import open_tokenizer

    return open_tokenizer(DEMO).encode(text).tolist()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(num_key_value_heads=2, num_hidden_layers=2, memory_query="plain")
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "1", config, tp=2)


def test_weights_in_many_files_and_another_dtype(tiny: Path, small_tokenizer: Path, tmp_path: Path) -> None:
    folder = exported(tiny, tmp_path / "hf", small_tokenizer, shard_gb=1e-5, dtype="bfloat16")
    files = sorted(file.name for file in folder.glob("*.safetensors"))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(files) > 3 and set(index["weight_map"].values()) == set(files)
    assert index["metadata"]["total_size"] == sum(
        tensor.nbytes for file in files for tensor in load_file(folder / file).values()
    )
    model = opened(folder)
    assert model.dtype == torch.bfloat16
    rounded = opened(exported(tiny, tmp_path / "fp32", small_tokenizer)).bfloat16()
    for ours, theirs in zip(model.parameters(), rounded.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_vocabulary_rows_beyond_the_tokenizer_are_never_generated(
    tiny: Path, small_tokenizer: Path, tmp_path: Path
) -> None:
    model = opened(exported(tiny, tmp_path / "hf", small_tokenizer))
    ids = torch.tensor([[1, 2, 3] * 7])
    answer = model.generate(
        ids, max_new_tokens=20, do_sample=True, eos_token_id=None, attention_mask=torch.ones_like(ids)
    )
    assert int(answer.max()) <= 3


def test_the_self_contained_folder_needs_no_infini_eval(tiny: Path, small_tokenizer: Path, tmp_path: Path) -> None:
    folder = exported(tiny, tmp_path / "hf", small_tokenizer, self_contained=True)
    code = """
import sys
sys.modules["infini_eval"] = None  # any import of it fails
import torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
ids = torch.arange(1, 30)[None] % 90
answer = model.generate(ids, max_new_tokens=5, eos_token_id=None, attention_mask=torch.ones_like(ids))
print(type(model).__module__, answer[0, 29:].tolist())
"""
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=PROCESS_S, env=environment
    )
    assert result.returncode == 0, result.stderr
    ids = torch.arange(1, 30)[None] % 90
    expected = opened(folder, trust_remote_code=False).generate(
        ids, max_new_tokens=5, eos_token_id=None, attention_mask=torch.ones_like(ids)
    )
    assert result.stdout.startswith("transformers_modules.")
    assert result.stdout.strip().endswith(str(expected[0, 29:].tolist()))


def test_what_cannot_be_exported_is_said(
    tiny: Path, small_tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(ConfigError, match="taken is there already"):
        exported(tiny, tmp_path / "taken", small_tokenizer)
    with pytest.raises(DataError, match="1024 tokens, the checkpoint's vocabulary 96"):
        exported(tiny, tmp_path / "hf", DEMO / "tokenizer")
    assert not (tmp_path / "hf").exists()
    assert main(["export", str(tmp_path / "none"), "--format", "hf"]) == 2
    assert "checkpoint not found" in capsys.readouterr().err
    mup = tiny_config(infini=False, num_hidden_layers=1)
    mup["model"]["init_method"] = {"use_mup": True}
    with pytest.raises(ConfigError, match="trained with muP: its softmax scale is 1 / 8"):
        exported(write_tiny_checkpoint(tmp_path / "mup" / "1", mup), tmp_path / "hf", small_tokenizer)


def test_the_command_says_how_to_open_it(
    tiny: Path, small_tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["export", "--format", "hf", "--ckpt-path", str(tiny), "--output", str(tmp_path / "hf")]
    assert main([*asked, "--tokenizer", str(small_tokenizer), "--self-contained"]) == 0
    said = capsys.readouterr().out
    assert "segments of 8" in said and "import infini_eval.hf" in said and "trust_remote_code=True" in said
