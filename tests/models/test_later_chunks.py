"""A plain Llama's chunks after the first: what plain causality over all tokens gives, and no mask of queries times keys."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention.bias import causal_lower_right

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings
from infini_eval.engine.native_model import NativeModel
from infini_eval.models import kernels
from infini_eval.models.naive import naive_logits
from infini_eval.models.state import Cursor
from infini_eval.testing.tiny_models import peak_of_tensors, tiny_config, write_tiny_checkpoint


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def masked(q, k, v, positions, scale: float) -> torch.Tensor:
    """Attention by one whole mask of [B or 1, 1, T, S]."""
    visible = (torch.arange(k.shape[1]) <= positions[..., None]).view(-1, 1, q.shape[1], k.shape[1])
    return kernels._sdpa(q, k, v, scale, visible, causal=False)


@pytest.mark.parametrize("starts", [(40, 40), (40, 17), (3, 0)])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_way_is_the_masked_attention(starts, kv_heads, dtype, monkeypatch) -> None:
    tokens = 37
    cursor = Cursor(2, None, torch.device("cpu"))
    cursor.step_tail(max(starts), starts)
    step = cursor.step_tail(tokens)
    assert step.mask is None and not step.causal
    q, k, v = (drawn(2, size, heads, 8).to(dtype) for size, heads in ((tokens, 4), *2 * ((step.span, kv_heads),)))
    expected = masked(q, k, v, step.positions, 0.3)
    near = {"atol": 1e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 1e-2, "rtol": 1e-2}
    torch.testing.assert_close(kernels.cached_attention(q, k, v, step, 0.3, "sdpa"), expected, **near)
    if starts[0] == starts[1]:  # what a GPU in half precision is given
        bias = causal_lower_right(tokens, step.span)
        torch.testing.assert_close(kernels._sdpa(q, k, v, 0.3, bias, causal=False), expected, **near)
    for entries in (1 << 24, 40 * step.span, 1):  # what other GPU steps are: one block, some, and the most there are
        monkeypatch.setattr(kernels, "MASK_ENTRIES", entries)
        torch.testing.assert_close(kernels._attend_by_blocks(q, k, v, step, 0.3), expected, **near)


def test_logits_and_answers_over_chunks_are_those_of_naive(tmp_path, monkeypatch) -> None:
    checkpoint = Checkpoint(write_tiny_checkpoint(tmp_path / "1", tiny_config(infini=False, num_key_value_heads=2)))
    monkeypatch.setattr("infini_eval.engine.native_model.CHUNK_TOKENS", {"cpu": 34})
    model = NativeModel.load(checkpoint, ModelSettings(device="cpu"))
    ids = torch.randint(96, (2, 90), generator=torch.Generator().manual_seed(0))
    weights = {name: checkpoint.read(name) for name in checkpoint.specs}
    expected = naive_logits(weights, checkpoint.config, ids, memory="off", memory_query="rotary")
    torch.testing.assert_close(model.logits(ids), expected, atol=1e-4, rtol=0)
    prompts = [ids[0, :80].tolist(), ids[1, :23].tolist(), ids[1, :61].tolist()]  # rows that end in different chunks
    assert model.generate(prompts, 5, stop_ids=()) == [model.generate([one], 5, stop_ids=())[0] for one in prompts]


def test_memory_for_masks_is_bounded(monkeypatch) -> None:
    tokens, span = 1024, 32_768
    cursor = Cursor(1, None, torch.device("cpu"))
    cursor.step_tail(span - tokens)
    step = cursor.step_tail(tokens)
    q, k = drawn(1, tokens, 1, 4), drawn(1, span, 1, 4)
    assert peak_of_tensors(lambda: kernels.cached_attention(q, k, k, step, 1.0, "sdpa")) < 0.05 * tokens * span
    monkeypatch.setattr(kernels, "MASK_ENTRIES", 1 << 20)  # 32 queries, as bool and as float32
    peak = peak_of_tensors(lambda: kernels._attend_by_blocks(q, k, k, step, 1.0))
    assert peak < 1.2 * 5 * (1 << 20) < tokens * span
