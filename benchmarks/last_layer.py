"""What a prefill gains where the last layer computes only tokens whose logits are read, on the shipped checkpoint."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks._harness import Metric, WrongAnswer, interleaved, paired_ratio
from benchmarks._models import demo_model, random_prompts
from infini_eval.engine.native_model import NativeModel
from infini_eval.models.state import BatchState

CHUNK = 1024  # tokens of a step on a CPU


def run(toy: bool) -> list[Metric]:
    model, tokens = demo_model(), CHUNK * (2 if toy else 24)
    ids_BT = torch.from_numpy(random_prompts(model, tokens)[0].astype("int64"))[None]
    whole, saved = (partial(read, model, ids_BT, whole=each) for each in (True, False))
    for one, other in zip(whole().layers, saved().layers, strict=True):
        if one.memory is None or other.memory is None or not torch.allclose(one.memory, other.memory, rtol=1e-4):
            raise WrongAnswer("the memories differ from those of whole layers")
    seconds = interleaved({"whole": whole, "saved": saved}, 1 if toy else 15)
    ratio = paired_ratio(seconds["whole"], seconds["saved"])
    return [Metric("last_layer", ratio, "x", note=f"{tokens:,} tokens in chunks of {CHUNK:,}")]


@torch.inference_mode()
def read(model: NativeModel, ids_BT: torch.Tensor, *, whole: bool) -> BatchState:
    """Read the tokens into a new state: by all of every layer, or by what later tokens need of the last."""
    llama = model.llama
    state = llama.new_state(1, model.config.segment_length or CHUNK)
    for ids in ids_BT.split(CHUNK, dim=1):
        step = state.cursor.step_segments(CHUNK // (model.config.segment_length or CHUNK))
        if whole:
            llama.run_layers(llama.embed(ids), state, step)
        else:
            llama.run_layers_to_ends(llama.embed(ids), state, step, None)
    return state
