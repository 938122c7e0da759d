"""The host's own memory: freed blocks that glibc keeps, library code, transients of loading, mapped weights."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infini_eval.distributed.mesh import MeshShape
from infini_eval.planning.devices import Device
from infini_eval.planning.hf_config import from_hf_config, read_architecture
from infini_eval.planning.memory import (
    BLOCKS,
    HEAP_BLOCK,
    LIBRARIES,
    RankPlan,
    Settings,
    allocator_bytes,
    loading_bytes,
    plan_stages,
    unread_bytes,
)

CPU, GPU = Device("cpu", "cpu", 1 << 50), Device("gpu", "cuda", 1 << 50)
INFINI = read_architecture("infini-300m")
HF = {
    "model_type": "llama", "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 2, "dtype": "float32",
    "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 50000, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA = from_hf_config(HF, "small")


def planned(architecture, context: int, device: Device = CPU, **settings) -> RankPlan:
    return plan_stages(architecture, context, device, MeshShape(), Settings(**settings))[0]


def test_half_of_the_heap_is_holes_and_large_blocks_never_come_from_it():
    assert allocator_bytes([10.0, 20.0, HEAP_BLOCK, 5 * HEAP_BLOCK]) == 15


def test_a_gpu_has_neither_allocator_nor_libraries_nor_loading():
    plan = planned(INFINI, 8192, GPU)
    assert plan.allocator == plan.libraries == plan.loading == 0
    assert plan.planned == plan.weights + plan.state.total + plan.activations + plan.logits


def test_parts_add_up_and_loading_happens_before_the_rest():
    plan = planned(INFINI, 8192)
    working = plan.state.total + plan.activations + plan.logits + plan.allocator
    assert plan.libraries == LIBRARIES
    assert plan.planned == plan.weights + LIBRARIES + max(plan.loading, working)


def test_native_loading_keeps_one_mapped_file_beside_its_tensor():
    """Tied to checkpoint/reader.py, which copies, checks and converts by blocks while the file is mapped."""
    small = replace(INFINI, dtype="float32", embedding_parameters=1000, head_parameters=1000)
    down = INFINI.layers[0].mlp // 3
    assert loading_bytes(small, range(12), "float32") == down * 4 + BLOCKS  # what is not loaded yet does not count
    large = replace(small, embedding_parameters=10**9)
    rest = sum(layer.parameters for layer in INFINI.layers) + 1000
    assert loading_bytes(large, range(12), "bfloat16") == 10**9 * 4 + BLOCKS - rest * 2


def test_converting_a_mapped_checkpoint_keeps_its_pages():
    assert planned(LLAMA, 100).loading == 0
    assert planned(LLAMA, 100, dtype="bfloat16").loading == LLAMA.total_parameters * 4


def test_the_head_is_not_read_before_the_first_logits():
    head = LLAMA.head_parameters * 4
    assert unread_bytes(LLAMA, "float32", "none") == head
    assert unread_bytes(LLAMA, "bfloat16", "none") == unread_bytes(INFINI, "bfloat16", "none") == 0
    small = replace(LLAMA, head_parameters=1_000_000)
    assert planned(small, 4096).activations == planned(small, 4096, GPU).activations - 4_000_000
    assert planned(LLAMA, 4096).activations == 0  # the head that comes later is larger than what the step needed


def test_a_step_finds_the_cache_that_there_is_by_then():
    """The first 4,096 tokens need most, with their own cache beside them; the last few need little, with all of it."""
    whole, more = planned(LLAMA, 4096, GPU), planned(LLAMA, 4100, GPU)
    assert more.state.total > whole.state.total
    assert more.state.total + more.activations == whole.state.total + whole.activations


@pytest.mark.parametrize("keeps_memory", [True, False])
def test_segments_without_a_memory_need_no_more_at_length(keeps_memory: bool):
    architecture = replace(INFINI, keeps_memory=keeps_memory)
    assert planned(architecture, 1 << 23).planned == planned(architecture, 1 << 14).planned
