"""Plans: what fits, the longest context that does, topologies, and what each rank holds."""

from __future__ import annotations

import pytest

from infini_eval.config import Topology
from infini_eval.distributed.mesh import MeshShape
from infini_eval.errors import ConfigError, TopologyError
from infini_eval.planning.devices import Device, parse_gpus
from infini_eval.planning.hf_config import read_architecture
from infini_eval.planning.memory import Settings, plan_stages
from infini_eval.planning.plan import longest_context, make_plan

H100 = parse_gpus("1xH100-80GB")[1]
LLAMA = read_architecture("llama-3.1-8b")
INFINI = read_architecture("infini-300m")
SCOUT = read_architecture("llama-4-scout")


def test_scout_in_4_bits_never_fitted_80_gb():
    for quantization in ("bnb-4bit", "fp8", "none"):
        plan = make_plan(SCOUT, [2500], H100, 1, settings=Settings(quantization=quantization))
        assert not plan.contexts[0].fits
        assert plan.contexts[0].longest == 0
    assert make_plan(SCOUT, [2500], H100, 1, settings=Settings(quantization="nf4")).contexts[0].fits


def test_the_longest_context_is_the_last_that_fits():
    mesh = MeshShape(tp=2)
    longest = longest_context(LLAMA, H100, mesh, Settings())
    assert longest is not None
    assert longest > 131_072
    fits = [all(rank.fits for rank in plan_stages(LLAMA, n, H100, mesh, Settings())) for n in (longest, longest + 1)]
    assert fits == [True, False]


def test_a_compressive_memory_fits_at_any_length():
    (context,) = make_plan(INFINI, [1 << 30], H100, 1).contexts
    assert context.fits
    assert context.longest is None


def test_recommended_topology_has_most_replicas_then_most_shards():
    assert make_plan(INFINI, [2**20], H100, 4).contexts[0].recommended == MeshShape(dp=4)
    assert make_plan(SCOUT, [2**17], H100, 4).contexts[0].recommended == MeshShape(tp=4)
    assert make_plan(SCOUT, [2**17], H100, 8).contexts[0].recommended == MeshShape(dp=2, tp=4)
    assert make_plan(read_architecture("llama-3.1-405b"), [2**17], H100, 4).contexts[0].recommended is None


def test_asked_topology_is_planned_even_where_it_does_not_fit():
    (context,) = make_plan(SCOUT, [2**17], H100, 4, asked=Topology(dp=4)).contexts
    assert context.mesh == MeshShape(dp=4)
    assert not context.fits
    assert context.recommended == MeshShape(tp=4)


def test_impossible_topology_is_an_error():
    with pytest.raises(TopologyError, match="tp=3"):
        make_plan(SCOUT, [2**17], H100, 3, asked=Topology(tp=3))


@pytest.mark.parametrize("mesh", [MeshShape(tp=2), MeshShape(pp=2), MeshShape(tp=4, pp=3)])
def test_shards_and_stages_add_up(mesh: MeshShape):
    whole = plan_stages(LLAMA, 8192, H100, MeshShape(), Settings())[0]
    parts = plan_stages(LLAMA, 8192, H100, mesh, Settings())
    assert [layer for part in parts for layer in part.layers] == list(range(32))
    assert sum(part.state.total for part in parts) * mesh.tp == whole.state.total
    together = sum(part.weights for part in parts) * mesh.tp
    assert 0 <= together - whole.weights < 0.001 * whole.weights  # only norms are replicated


def test_more_shards_than_kv_heads_replicate_them():
    one = plan_stages(LLAMA, 8192, H100, MeshShape(tp=8), Settings())[0].state.total
    assert plan_stages(LLAMA, 8192, H100, MeshShape(tp=16), Settings())[0].state.total == one


def test_stages_are_those_of_the_engine():
    from infini_eval.checkpoint.config_yaml import read_config_file
    from infini_eval.distributed.mesh import stage_layers
    from infini_eval.planning.memory import stages_of
    from infini_eval.testing.tiny_models import _dump, tiny_config

    def check(tmp, **sizes):
        (tmp / "config.yaml").write_text(_dump(tiny_config(**sizes)))
        config, _ = read_config_file(tmp / "config.yaml")
        assert stages_of(read_architecture(str(tmp)), 3) == stage_layers(config, 3)

    import tempfile
    from pathlib import Path

    for sizes in ({"num_hidden_layers": 7}, {"num_hidden_layers": 8, "vocab_size": 96000, "num_key_value_heads": 2}):
        with tempfile.TemporaryDirectory() as folder:
            check(Path(folder), **sizes)


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [
        ("4xH100-80GB", 4, "H100-80GB"),
        ("h200", 1, "H200-141GB"),
        ("2X a100-40gb".replace(" ", ""), 2, "A100-40GB"),
        ("cpu-64GB", 1, "cpu-64GB"),
    ],
)
def test_devices(text: str, count: int, name: str):
    found, device = parse_gpus(text)
    assert (found, device.name) == (count, name)


@pytest.mark.parametrize("text", ["", "0xH100-80GB", "4xTPU", "A100", "cpu", "gpu-80"])
def test_unknown_devices_list_the_known_ones(text: str):
    with pytest.raises(ConfigError) as refusal:
        parse_gpus(text)
    assert "H100-80GB" in str(refusal.value)


def test_reserve_counts():
    device = Device("gpu", "cuda", 10**10)
    rank = plan_stages(INFINI, 1024, device, MeshShape(), Settings())[0]
    assert rank.total - rank.planned == rank.reserve == device.reserve(rank.planned) > 1e9
