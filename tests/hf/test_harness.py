"""An exported checkpoint in lm-eval's own model class, where lm-eval is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

import infini_eval
import infini_eval.hf

DEMO = Path(__file__).resolve().parents[2] / "checkpoints" / "infini-demo"
PROMPTS = ["The pass key is 4711. Remember it. The pass key is", ("One two three. " * 40).strip()]


def test_lm_evals_hf_model_scores_and_generates(tmp_path: Path) -> None:
    huggingface = pytest.importorskip("lm_eval.models.huggingface", reason="lm-eval pins packages of its own")
    from lm_eval.api.instance import Instance

    infini_eval.export(DEMO, format="hf", output=tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    harness = huggingface.HFLM(pretrained=model, tokenizer=words, batch_size=1, device="cpu")

    def asked(kind: str, arguments: list[tuple]) -> list[Instance]:
        return [Instance(kind, {}, pair, place) for place, pair in enumerate(arguments)]

    scores = harness.loglikelihood(asked("loglikelihood", [(prompt, " 4711") for prompt in PROMPTS]), disable_tqdm=True)
    limits = {"until": ["\n"], "max_gen_toks": 5, "do_sample": False}
    answers = harness.generate_until(
        asked("generate_until", [(prompt, limits) for prompt in PROMPTS]), disable_tqdm=True
    )
    for prompt, (score, _), answer in zip(PROMPTS, scores, answers, strict=True):
        ids, four = (words(text, return_tensors="pt").input_ids for text in (prompt, " 4711"))
        with torch.no_grad():
            logits = model(torch.cat((ids, four), dim=1)).logits[0, ids.shape[1] - 1 : -1]
        assert score == pytest.approx(float(logits.log_softmax(-1).gather(1, four[0][:, None]).sum()), abs=1e-4)
        plain = model.generate(ids, max_new_tokens=5, attention_mask=torch.ones_like(ids))[0, ids.shape[1] :]
        assert words.decode(plain, skip_special_tokens=True).split("\n")[0] == answer
