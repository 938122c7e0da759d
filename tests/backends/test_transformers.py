"""The transformers backend with tiny random models: equal to plain generate, whatever the chunk, batch or topology."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from infini_eval.backends.huggingface.load import max_memory
from infini_eval.config import EvalConfig, LoadSettings, ModelSettings, PromptSettings, Sampling, Topology
from infini_eval.errors import BackendError, CheckpointError, ConfigError, DataError, TopologyError
from infini_eval.evaluation.run import evaluate as run_evaluation
from infini_eval.testing.distributed import run_distributed_test
from infini_eval.testing.tiny_models import CHAT_TEMPLATE, write_tiny_hf_model

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
TOKENIZER = ROOT / "checkpoints/infini-demo/tokenizer"

NO_LOADING = LoadSettings()


def config_of(
    model: Path | str, save_path: Path | str, *, chat_template="auto", loading=NO_LOADING, **fields
) -> EvalConfig:
    settings = (PromptSettings(chat_template), loading)
    common = {"backend": "transformers", "model": ModelSettings(device="cpu"), "max_new_tokens": 6}
    return EvalConfig(str(model), str(save_path), str(DATA), backend_settings=settings, **(common | fields))


@pytest.fixture
def config(hf_model, tmp_path) -> EvalConfig:
    return config_of(hf_model, tmp_path)


def plain_greedy(model: Path, ids: list[int]) -> list[int]:
    """Six tokens, each from the whole sequence so far: neither cache nor chunks nor generate()."""
    import transformers

    loaded = transformers.AutoModelForCausalLM.from_pretrained(model).eval()
    vocabulary = 1024  # the head has padding rows
    with torch.inference_mode():
        for _ in range(6):
            ids = [*ids, int(loaded(torch.tensor([ids])).logits[0, -1, :vocabulary].argmax())]
    return ids[-6:]


def test_answers_equal_the_models_own(config, opened, hf_model, in_order) -> None:
    with opened(config, 2) as it:
        it.backend.load(it.plan)
        got = in_order(it.backend, it.prepared)
        assert [list(one.token_ids) for one in got] == [plain_greedy(hf_model, row.ids.tolist()) for row in it.prepared]
        assert all(one.prompt_tokens == 1008 and one.finish_reason == "length" for one in got)


def test_a_long_prompt_is_counted_while_it_is_read(hf_model, opened, tmp_path) -> None:
    loading = LoadSettings(prefill_chunk=400)
    with opened(config_of(hf_model, tmp_path, loading=loading), 1) as it:
        it.backend.load(it.plan)
        counted: list[int] = []
        work = ((batch, it.prepared) for batch in it.plan.batches)
        list(it.backend.answer(work, on_tokens=counted.append))
        assert counted[:3] == [400, 400, 208]
        assert set(counted[3:]) == {1}  # new tokens
        assert not it.backend._generator._model._forward_hooks


@pytest.mark.parametrize("change", [{"prefill_chunk": 100}, {"prefill_chunk": 1007}, {"prefill_chunk": 0}], ids=str)
def test_a_chunked_prefill_is_exact(config, answers, change) -> None:
    chunked = replace(config, backend_settings=(LoadSettings(**change),))
    assert [one.text for one in answers(chunked, 2)] == [one.text for one in answers(config, 2)]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.8, 50, 0.9, 3)], ids=["greedy", "sampled"])
def test_answers_do_not_depend_on_the_batch(config, answers, sampling) -> None:
    alone = answers(replace(config, batch_size=1, sampling=sampling))
    together = answers(replace(config, batch_size=3, sampling=sampling))
    assert [one.text for one in alone] == [one.text for one in together]


def test_seeds_matter_when_sampling(config, answers) -> None:
    one, other = (answers(replace(config, sampling=Sampling(1.0, seed=seed)), 2) for seed in (1, 2))
    assert [a.text for a in one] != [b.text for b in other]


def test_the_checkpoints_own_sampling_habits_are_dropped(config, answers, hf_model, tmp_path) -> None:
    habits = tmp_path / "habits"
    shutil.copytree(hf_model, habits)
    own = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 3.0, "eos_token_id": [7, 8]}
    (habits / "generation_config.json").write_text(json.dumps(own))
    assert [one.text for one in answers(config_of(habits, tmp_path / "run"), 2)] == [
        one.text for one in answers(config, 2)
    ]


def test_a_stop_token_ends_the_answer_and_is_no_part_of_it(config, answers, hf_model, tmp_path) -> None:
    ids = list(answers(config, 1)[0].token_ids)
    stopping = tmp_path / "stopping"
    shutil.copytree(hf_model, stopping)
    (stopping / "generation_config.json").write_text(json.dumps({"eos_token_id": [ids[3], 1020]}))
    (response,) = answers(config_of(stopping, tmp_path / "run"), 1)
    assert list(response.token_ids) == ids[: ids.index(ids[3])] and response.finish_reason == "stop"


def test_chat_models_are_asked_in_their_format(hf_chat_model, tmp_path, opened) -> None:
    with opened(config_of(hf_chat_model, tmp_path), 2) as it:
        tokenizer = it.backend._prompts.tokenizer
        for row in it.prepared:
            text = tokenizer.decode(row.ids)
            assert text.startswith("[user]") and text.endswith("[assistant]")
            needle = tokenizer.decode(row.ids[row.position.token_start : row.position.token_end])
            assert row.sample.answer in needle and needle.strip().startswith("The pass key")
        assert it.backend.identity()["chat_template"] == CHAT_TEMPLATE
    with opened(config_of(hf_chat_model, tmp_path, chat_template="off"), 1) as it:
        assert it.backend.identity()["chat_template"] is None and it.prepared[0].tokens == 1008


def test_memory_that_runs_out_halves_the_batch(config, opened, monkeypatch, in_order) -> None:
    with opened(config, 3) as it:
        it.backend.load(it.plan)
        expected = [one.text for one in in_order(it.backend, it.prepared)]
        generate, tried = it.backend._generator._generate, []

        def limited(ids_BT, draw, ending):
            tried.append(len(ids_BT))
            if len(ids_BT) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            return generate(ids_BT, draw, ending)

        monkeypatch.setattr(it.backend._generator, "_generate", limited)
        assert [one.text for one in in_order(it.backend, it.prepared)] == expected
        assert tried[0] == 3 and tried.count(1) == 3


def test_nan_fails_the_sample(config, opened, in_order) -> None:
    with opened(config, 1) as it:
        it.backend.load(it.plan)
        it.backend._generator._model.model.norm.weight.data.fill_(float("nan"))
        (response,) = in_order(it.backend, it.prepared)
        assert response.finish_reason == "error" and "NaN" in response.error


def sharded_answers(model: str, save_path: str) -> list[str]:
    from infini_eval.backends.huggingface.backend import TransformersBackend
    from infini_eval.data.reading import load_samples
    from infini_eval.distributed.launch import launch
    from infini_eval.tasks.passkey import TASK

    with launch("cpu") as world:
        backend = TransformersBackend(config_of(model, save_path, topology=Topology(tp=2)), world)
        samples = load_samples(DATA, depths=(0, 50, 100)).samples[:2]
        prepared = [backend.prepare(sample, TASK.locate(sample)) for sample in samples]
        plan = backend.plan(prepared)
        backend.load(plan)
        work = ((batch, prepared) for batch in plan.batches)
        return [response.text for _, responses in backend.answer(work) for response in responses]


@pytest.mark.distributed
def test_tensor_parallel_gives_the_same_answers(config, answers, hf_model, tmp_path) -> None:
    single = [one.text for one in answers(config, 2)]
    by_rank = run_distributed_test(sharded_answers, 2, None, (str(hf_model), str(tmp_path)))
    assert by_rank == [single, single]


@pytest.mark.parametrize(
    ("topology", "words"),
    [(Topology(pp=2), "no pipeline"), (Topology(tp=2), "--tp 2 with 1 processes"), (Topology(dp=3), "--dp 3")],
)
def test_topologies_that_cannot_be(config, opened, topology, words) -> None:
    with pytest.raises(TopologyError, match=words), opened(replace(config, topology=topology)):
        pass


def test_what_is_no_model_is_said_so(tmp_path, opened) -> None:
    with pytest.raises(CheckpointError, match="no model that transformers"), opened(config_of(tmp_path, tmp_path)):
        pass
    with pytest.raises(CheckpointError, match="no model"), opened(config_of("nobody/nothing", tmp_path)):
        pass


def test_pickled_weights_are_not_opened(hf_model, tmp_path, opened) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(hf_model, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with opened(config_of(pickled, tmp_path), 1) as it, pytest.raises(BackendError, match="convert the weights"):
        it.backend.load(it.plan)


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(tmp_path, opened) -> None:
    small = write_tiny_hf_model(tmp_path / "small", TOKENIZER, vocab_size=500)
    with pytest.raises(DataError, match="vocabulary 500"), opened(config_of(small, tmp_path)):
        pass


@pytest.mark.parametrize(
    ("text", "gpus", "expected"),
    [
        ("80GiB", 2, {0: "80GiB", 1: "80GiB"}),
        ("8GiB", 0, {"cpu": "8GiB"}),
        ("0=70GiB, 1=70GiB,cpu=200GB", 2, {0: "70GiB", 1: "70GiB", "cpu": "200GB"}),
    ],
)
def test_sizes_of_memory(text, gpus, expected) -> None:
    assert max_memory(text, gpus) == expected


@pytest.mark.parametrize("text", ["auto", "cpu=auto", "gpu=3GiB", "80", "0=1GiB,2GiB"])
def test_sizes_of_memory_that_make_no_sense(text) -> None:
    with pytest.raises(ConfigError, match="--max-memory"):
        max_memory(text, 2)


def test_a_model_spread_by_device_map_answers_alike(config, answers, tmp_path) -> None:
    pytest.importorskip("accelerate")
    loading = LoadSettings(device_map="auto", max_memory="cpu=1GiB", offload_folder=str(tmp_path / "offload"))
    spread = replace(config, backend_settings=(loading,))
    assert [one.text for one in answers(spread, 1)] == [one.text for one in answers(config, 1)]


def test_a_device_map_from_a_file_is_followed(config, answers, opened, tmp_path) -> None:
    pytest.importorskip("accelerate")
    placed = {"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "cpu", "model.rotary_emb": "cpu"}
    file = tmp_path / "map.json"
    file.write_text(json.dumps({**placed, "lm_head": "cpu"}))
    loading = LoadSettings(device_map=str(file), offload_folder=str(tmp_path / "offload"))
    mapped = replace(config, backend_settings=(loading,))
    with opened(mapped, 1) as it:
        it.backend.load(it.plan)
        assert it.backend._generator._model.hf_device_map == {**placed, "lm_head": "cpu"}
    assert [one.text for one in answers(mapped, 1)] == [one.text for one in answers(config, 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "holds no object"),
        ('{"lm_head": "gpu"}', "'lm_head' is put on 'gpu'"),
        ('{"lm_head": "disk"}', "puts modules on disk"),
    ],
)
def test_device_maps_that_make_no_sense(config, opened, tmp_path, content, message) -> None:
    file = tmp_path / "map.json"
    if content is not None:
        file.write_text(content)
    wrong = replace(config, backend_settings=(LoadSettings(device_map=str(file)),))
    with pytest.raises(ConfigError, match=message), opened(wrong):
        pass


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_take_what_was_planned(tmp_path, opened, tied, dtype) -> None:
    model = write_tiny_hf_model(tmp_path / "m", TOKENIZER, tie_word_embeddings=tied)
    config = replace(config_of(model, tmp_path / "run"), model=ModelSettings(device="cpu", dtype=dtype))
    with opened(config, 1) as it:
        it.backend.load(it.plan)
        real = it.backend._generator._model.get_memory_footprint(return_buffers=False)
        assert it.backend._planned.bytes == real == it.backend.model_facts()["weight_bytes"]


def test_layers_on_disk_answer_alike(answers, opened, in_order, tmp_path) -> None:
    """The shipped model in two megabytes of memory: all layers are read from disk as they are needed."""
    pytest.importorskip("accelerate")
    model = ROOT / "checkpoints/llama-demo"
    loading = LoadSettings(device_map="auto", max_memory="cpu=2MB", offload_folder=str(tmp_path / "offload"))
    with opened(config_of(model, tmp_path / "disk", loading=loading), 2) as it:
        it.backend.load(it.plan)
        placed = it.backend._generator._model
        assert placed.hf_device_map["model.layers"] == "disk"
        assert sum(each.device.type == "meta" for each in placed.parameters()) > 30
        got = [one.text for one in in_order(it.backend, it.prepared)]
    assert got == [one.text for one in answers(config_of(model, tmp_path / "memory"), 2)]


OWN_CODE = """
import pathlib
from transformers import LlamaConfig, LlamaForCausalLM
pathlib.Path({mark!r}).touch()
class OwnConfig(LlamaConfig):
    model_type = "llama_of_its_own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_a_models_own_code_runs_only_when_asked_for(hf_model, tmp_path, answers, opened, monkeypatch) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    model, mark = tmp_path / "own", tmp_path / "ran"
    shutil.copytree(hf_model, model)
    settings = json.loads((model / "config.json").read_text()) | {"model_type": "llama_of_its_own"}
    settings["auto_map"] = {"AutoConfig": "code.OwnConfig", "AutoModelForCausalLM": "code.OwnModel"}
    (model / "config.json").write_text(json.dumps(settings))
    (model / "code.py").write_text(OWN_CODE.format(mark=str(mark)))
    with pytest.raises(CheckpointError, match="--trust-remote-code"), opened(config_of(model, tmp_path / "run"), 1):
        pass
    assert not mark.exists()
    trusting = answers(config_of(model, tmp_path / "run", loading=LoadSettings(trust_remote_code=True)), 1)
    assert mark.exists()
    assert [one.text for one in trusting] == [one.text for one in answers(config_of(hf_model, tmp_path / "plain"), 1)]


def test_no_limit_of_the_tokenizer_cuts_a_prompt(hf_model, tmp_path, answers) -> None:
    """Neither model_max_length nor a truncation that tokenizer.json was saved with."""
    model = tmp_path / "limited"
    shutil.copytree(hf_model, model)
    settings = json.loads((model / "tokenizer_config.json").read_text()) | {"model_max_length": 64}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    whole = json.loads((model / "tokenizer.json").read_text())
    whole["truncation"] = {"max_length": 64, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    (model / "tokenizer.json").write_text(json.dumps(whole))
    (response,) = answers(config_of(model, tmp_path / "run"), 1)
    assert response.error is None and response.prompt_tokens == 1008
    assert response.text == answers(config_of(hf_model, tmp_path / "plain"), 1)[0].text


@pytest.mark.parametrize("chunk", [None, 0, 100])
def test_logprobs_of_a_text_are_those_of_one_plain_pass(hf_model, tmp_path, opened, chunk) -> None:
    import transformers

    text = " 48151. Remember it."
    loading = LoadSettings(prefill_chunk=chunk)
    with opened(config_of(hf_model, tmp_path / "run", loading=loading), 1) as it:
        it.backend.load(it.plan)
        item = it.prepared[0]
        answer = it.backend._prompts.tokenizer.encode(text, add_special_tokens=False).tolist()
        got = it.backend.logprobs(item, text)
    model = transformers.AutoModelForCausalLM.from_pretrained(hf_model).eval()
    ids = torch.tensor([[*item.ids.tolist(), *answer]])
    with torch.inference_mode():
        whole = model(ids).logits[0].float().log_softmax(-1)
    first = len(item.ids) - 1
    assert got == pytest.approx([float(whole[first + at, token]) for at, token in enumerate(answer)], abs=1e-4)


def test_perplexity_is_recorded_where_a_sample_asks_for_it(hf_model, tmp_path) -> None:
    from support.tiny_aa_lcr import write_tiny_aa_lcr

    config = EvalConfig(
        str(hf_model), str(tmp_path / "run"), str(write_tiny_aa_lcr(tmp_path / "lcr")), task="aa_lcr", scorer="judge",
        backend="transformers", max_new_tokens=2, model=ModelSettings(device="cpu"),
        task_options=(("metrics", "perplexity,steps"),),
    )  # fmt: skip
    run_evaluation(config)
    rows = [json.loads(line) for path in (tmp_path / "run/samples").glob("*.jsonl") for line in path.open()]
    assert len(rows) == 4 and all(row["perplexity"] > 1 and row["perplexity_tokens"] >= 1 for row in rows)
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["identity"]["data_settings"]["metrics"] == ["perplexity", "steps"]
    with pytest.raises(ConfigError, match="backend fake cannot measure it") as caught:
        run_evaluation(replace(config, backend="fake", save_path=str(tmp_path / "fake")))
    assert "--backend nanotron or transformers" in str(caught.value)


def test_an_exported_checkpoint_answers_as_the_checkpoint(tmp_path) -> None:
    import infini_eval

    demo = ROOT / "checkpoints/infini-demo"
    exported = tmp_path / "exported"
    infini_eval.export(demo, format="hf", output=exported)
    asked = {"data": DATA, "num_samples": 2, "depths": (0, 50, 100), "batch_size": 2}
    native = infini_eval.evaluate(demo, save_path=tmp_path / "native", **asked)
    theirs = infini_eval.evaluate(exported, save_path=tmp_path / "hf", **asked)
    same = ["sample_key", "generation_text", "needle_segment", "question_segment", "compressions"]
    ours, got = (run.to_pandas().sort_values("sample_key")[same].values.tolist() for run in (native, theirs))
    assert got == ours
    summary = theirs.summary
    assert summary.segment_length == 128
    assert theirs.accuracy == native.accuracy


def test_an_exported_checkpoint_is_not_split_over_processes(tmp_path) -> None:
    from infini_eval.backends.huggingface.load import mesh_shape
    from infini_eval.hf import InfiniLlamaConfig

    with pytest.raises(TopologyError, match="no tensor-parallel plan for infini_llama"):
        mesh_shape(Topology(tp=2), NO_LOADING, InfiniLlamaConfig(), 2)
