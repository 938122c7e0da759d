"""The nearest settings that fit: the fewest changes on these devices, then fewer changes on more devices."""

from __future__ import annotations

import itertools
import re

import pytest

from infini_eval.distributed.mesh import MeshShape
from infini_eval.planning.devices import parse_gpus
from infini_eval.planning.hf_config import read_architecture
from infini_eval.planning.memory import Settings, plan_stages
from infini_eval.planning.nearest import nearest_settings

H100 = parse_gpus("1xH100-80GB")[1]
LLAMA = read_architecture("llama-3.1-8b")
SCOUT = read_architecture("llama-4-scout")
INFINI = read_architecture("infini-300m")


def fits(architecture, context: int, mesh: MeshShape, settings: Settings) -> bool:
    return all(rank.fits for rank in plan_stages(architecture, context, H100, mesh, settings))


@pytest.mark.parametrize(
    ("settings", "context", "expected"),
    [
        (Settings(batch=8), 100_000, "--batch 4"),
        (Settings(), 450_000, "--attention flash"),
        (Settings(kernel="eager"), 100_000, "--attention sdpa"),
        (Settings(dtype="float32"), 262_144, "--dtype bfloat16"),
        (Settings(), 700_000, "--dp 1 --tp 2 --pp 1 (2 devices)"),
        (Settings(), 700_000, "--attention flash --kv-dtype fp8"),
    ],
)
def test_one_line_for_each_way(settings: Settings, context: int, expected: str):
    assert not fits(LLAMA, context, MeshShape(), settings)
    assert expected in nearest_settings(LLAMA, context, H100, MeshShape(), settings)


def test_scout_at_10m_tokens_on_8_gpus():
    found = nearest_settings(SCOUT, 10 * 2**20, H100, MeshShape(tp=8), Settings())
    assert found[0] == "--attention flash --kv-dtype fp8"  # on the 8 there are
    assert found[1] == "--attention flash --dp 1 --tp 4 --pp 3 (12 devices)"  # one change, not 64 devices
    assert "contexts of up to" in found[-1]


def test_what_is_offered_fits_and_nothing_smaller_does():
    """Against every combination of attention and kv dtype on every mesh, tried one by one."""
    changes = {"": {}, "--attention flash": {"kernel": "flash"}, "--kv-dtype fp8": {"kv_dtype": "fp8"}}
    found = nearest_settings(SCOUT, 10 * 2**20, H100, MeshShape(tp=8), Settings())
    both = [re.fullmatch(r"(.*?) ?--dp 1 --tp (\d+) --pp (\d+) \((\d+) devices\)", line) for line in found]
    offered = {match[1]: int(match[4]) for match in both if match}
    assert offered
    for words, changed in changes.items():
        meshes = [MeshShape(tp=tp, pp=pp) for tp, pp in itertools.product((1, 2, 4, 8), (1, 2, 3, 4, 6, 8))]
        smallest = min(
            (mesh.world_size for mesh in meshes if fits(SCOUT, 10 * 2**20, mesh, Settings(**changed))), default=999
        )
        if words in offered:
            assert smallest == offered[words]
        else:
            assert smallest >= min(offered.values())


def test_what_fits_needs_no_change():
    assert nearest_settings(LLAMA, 1000, H100, MeshShape(), Settings())[0].startswith("contexts of up to")


def test_a_smaller_batch_is_not_offered_where_a_larger_one_fits():
    found = nearest_settings(LLAMA, 100_000, H100, MeshShape(), Settings(batch=8))
    assert not [line for line in found if "--batch 2" in line or "--batch 1" in line]


def test_another_topology_of_the_same_devices_is_no_more_devices():
    found = nearest_settings(SCOUT, 2**17, H100, MeshShape(dp=4), Settings())
    assert found[0] == "--dp 1 --tp 4 --pp 1"


def test_flags_of_run_are_its_own():
    found = nearest_settings(LLAMA, 450_000, H100, MeshShape(), Settings(), "run")
    assert any("--attn-implementation flash_attn" in line for line in found)
    assert not [line for line in found if "--kv-dtype" in line or "--pp 2" in line]


def test_on_a_cpu_more_processes_are_no_more_memory():
    _, device = parse_gpus("cpu-16GB")
    found = nearest_settings(LLAMA, 1000, device, MeshShape(), Settings(), "run")
    assert found == []
    found = nearest_settings(INFINI, 2**20, parse_gpus("cpu-2GB")[1], MeshShape(), Settings(batch=16), "run")
    assert found
    assert not [line for line in found if "devices" in line or "flash" in line]


def test_nothing_fits_nowhere():
    _, device = parse_gpus("gpu-1GB")
    assert nearest_settings(read_architecture("llama-3.1-405b"), 2**20, device, MeshShape(), Settings()) == []
