"""The model in transformers' hands: any cut of a sequence, beams, training, and what a state of this kind cannot do."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import DynamicCache, LlamaConfig

from infini_eval.hf import InfiniLlamaConfig, InfiniLlamaForCausalLM
from infini_eval.hf import modeling_infini_llama as modeling
from infini_eval.testing.tiny_models import peak_of_tensors

LENGTH = 8


def new_model(**changes) -> InfiniLlamaForCausalLM:
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    ids = {"bos_token_id": None, "eos_token_id": None}
    config = InfiniLlamaConfig(**(shape | heads | ids | {"segment_length": LENGTH} | changes))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = InfiniLlamaForCausalLM(config).eval()
        for layer in model.model.layers:
            torch.nn.init.normal_(layer.self_attn.balance_factors)
    return model


@pytest.fixture(scope="module")
def model() -> InfiniLlamaForCausalLM:
    return new_model()


def some_ids(rows: int, tokens: int) -> torch.Tensor:
    return torch.randint(1, 64, (rows, tokens), generator=torch.Generator().manual_seed(tokens))


@torch.no_grad()
@pytest.mark.parametrize("cuts", [(37,), (8, 8, 8, 8, 5), (1,) * 37, (3, 5, 1, 8, 16, 4), (7, 30), (20, 17)])
def test_a_sequence_may_be_cut_anywhere(model: InfiniLlamaForCausalLM, cuts: tuple[int, ...]) -> None:
    ids = some_ids(2, 37)
    cache, logits = DynamicCache(config=model.config), []
    for part in ids.split(cuts, dim=1):
        logits.append(model(part, past_key_values=cache).logits)
    assert cache.get_seq_length() == 37
    with torch.enable_grad():  # the whole sequence in one piece, without a cache
        expected = model(ids, use_cache=False).logits
    torch.testing.assert_close(torch.cat(logits, dim=1), expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{"memory": "off"}, {"memory": "ablate"}, {"memory_query": "plain"}])
def test_settings_change_the_function_the_same_in_pieces(changes: dict[str, str]) -> None:
    ids, model = some_ids(1, 29), new_model(**changes)
    assert (model(ids).logits - new_model()(ids).logits).abs().max() > 1e-2
    cache = DynamicCache(config=model.config)
    pieces = [model(part, past_key_values=cache).logits for part in ids.split((11, 18), dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids).logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_eager_attention_computes_the_same(model: InfiniLlamaForCausalLM) -> None:
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    ids = some_ids(2, 29)
    torch.testing.assert_close(eager(ids).logits, model(ids).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}])
def test_generation_with_the_cache_equals_generation_without(model: InfiniLlamaForCausalLM, options) -> None:
    ids = some_ids(2, 21)
    asked = {"max_new_tokens": 15, "attention_mask": torch.ones_like(ids)} | options
    expected = model.generate(ids, use_cache=False, **asked)
    assert torch.equal(model.generate(ids, **asked), expected)
    assert torch.equal(model.generate(ids, prefill_chunk_size=5, **asked), expected)


@torch.no_grad()
def test_logits_to_keep_across_pieces(model: InfiniLlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = some_ids(1, 60)
    expected = model(ids).logits
    monkeypatch.setattr(modeling, "PREFILL_TOKENS", 16)
    for keep in (1, 3, 13, 60, 100):
        torch.testing.assert_close(model(ids, logits_to_keep=keep).logits, expected[:, -keep:], atol=1e-5, rtol=0)
    chosen = torch.tensor([0, 17, 59])
    torch.testing.assert_close(model(ids, logits_to_keep=chosen).logits, expected[:, chosen], atol=1e-5, rtol=0)


@torch.no_grad()
def test_memory_does_not_grow_with_the_prompt(model: InfiniLlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling, "PREFILL_TOKENS", 64)

    def peak(tokens: int) -> int:
        ids = some_ids(1, tokens)
        return peak_of_tensors(lambda: model(ids, logits_to_keep=1)) - ids.nbytes

    model(some_ids(1, 64))
    assert peak(4096) <= peak(256) + 1024


def state_bytes(cache: DynamicCache) -> int:
    tensors = [getattr(layer, name) for layer in cache.layers for name in ("keys", "values", "raw_keys", "memory", "z")]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors if tensor is not None)


@torch.no_grad()
def test_the_cache_does_not_grow_with_the_prompt(model: InfiniLlamaForCausalLM) -> None:
    short, long = (model(some_ids(1, tokens)).past_key_values for tokens in (2 * LENGTH + 3, 40 * LENGTH + 3))
    assert state_bytes(short) == state_bytes(long) > 0


def test_it_trains(model: InfiniLlamaForCausalLM) -> None:
    learner = copy.deepcopy(model).train()
    ids = some_ids(2, 30)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-2)
    losses = []
    for _ in range(5):
        loss = learner(ids, labels=ids).loss
        loss.backward()
        losses.append(float(loss.detach()))
        assert all(layer.self_attn.balance_factors.grad.abs().sum() > 0 for layer in learner.model.layers)
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]


def test_gradient_checkpointing_gives_the_same_gradient(model: InfiniLlamaForCausalLM) -> None:
    ids, gradients = some_ids(2, 30), []
    for checkpointing in (False, True):
        learner = copy.deepcopy(model).train()
        if checkpointing:
            learner.gradient_checkpointing_enable()
        learner(ids, labels=ids).loss.backward()
        gradients.append([parameter.grad for parameter in learner.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)
    with pytest.raises(ValueError, match="a cache would be written twice"):
        learner(ids, past_key_values=DynamicCache(config=model.config))


@torch.no_grad()
def test_right_padding_leaves_the_rows_tokens_alone(model: InfiniLlamaForCausalLM) -> None:
    ids, mask = some_ids(2, 30), torch.ones(2, 30, dtype=torch.int64)
    ids[0, 19:], mask[0, 19:] = 0, 0
    padded = model(ids, attention_mask=mask).logits
    torch.testing.assert_close(padded[0, :19], model(ids[:1, :19]).logits[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_generation_from_padded_rows_is_refused(model: InfiniLlamaForCausalLM, side: str) -> None:
    ids, mask = some_ids(2, 30), torch.ones(2, 30, dtype=torch.int64)
    mask[0, slice(None, 11) if side == "left" else slice(19, None)] = 0
    with pytest.raises(ValueError, match=r"batch size 1|position_ids are not"):
        model.generate(ids, attention_mask=mask, max_new_tokens=2)


@torch.no_grad()
def test_packed_rows_are_refused(model: InfiniLlamaForCausalLM) -> None:
    positions = torch.cat((torch.arange(10), torch.arange(20)))[None]
    with pytest.raises(ValueError, match=r"position_ids are not 0, 1, …(?s:.*)packed"):
        model(some_ids(1, 30), position_ids=positions)


@torch.no_grad()
def test_the_cache_cannot_be_cropped(model: InfiniLlamaForCausalLM) -> None:
    cache = model(some_ids(1, 30)).past_key_values
    assert not cache.is_croppable
    cache.crop(0)
    with pytest.raises(ValueError, match="cannot be cropped"):
        cache.crop(-1)
    ids = some_ids(1, 30)
    with pytest.raises(ValueError, match="cannot be cropped"):
        model.generate(ids, prompt_lookup_num_tokens=2, max_new_tokens=8, attention_mask=torch.ones_like(ids))


@torch.no_grad()
def test_a_cache_of_another_kind_is_refused(model: InfiniLlamaForCausalLM) -> None:
    ids = some_ids(1, 30)
    for cache in (DynamicCache(), DynamicCache(config=LlamaConfig(num_hidden_layers=2))):
        with pytest.raises(ValueError, match=r"valid: DynamicCache\(config=model\.config\)"):
            model(ids, past_key_values=cache)
    with pytest.raises(ValueError, match="leave cache_implementation out"):
        model.generate(ids, cache_implementation="static", max_new_tokens=2, attention_mask=torch.ones_like(ids))


@torch.no_grad()
def test_a_cache_can_be_used_again_after_reset(model: InfiniLlamaForCausalLM) -> None:
    ids = some_ids(2, 30)
    cache = model(ids).past_key_values
    cache.reset()
    assert cache.get_seq_length() == 0
    torch.testing.assert_close(model(ids, past_key_values=cache).logits, model(ids).logits)


@pytest.mark.parametrize(
    "wrong", [{"gate_activation": "relu"}, {"memory": "maybe"}, {"segment_length": 0}, {"segment_length": "8"}]
)
def test_a_configuration_that_cannot_be_computed_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(Exception, match=next(iter(wrong))):
        InfiniLlamaConfig(**wrong)


def test_hidden_states_are_recorded(model: InfiniLlamaForCausalLM) -> None:
    output = model(some_ids(1, 30), output_hidden_states=True)
    assert [state.shape for state in output.hidden_states] == [(1, 30, 32)] * 3
    assert torch.equal(model.lm_head(output.hidden_states[-1]), output.logits)


def test_the_file_imports_nothing_of_this_package() -> None:
    from pathlib import Path

    assert "import infini_eval" not in (code := Path(modeling.__file__).read_text()) and "from infini_eval" not in code
