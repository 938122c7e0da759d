"""Is the verdict of `infini-eval diagnose` true? Faults put into the shipped checkpoint, and what it says of each.

  python -m benchmarks.diagnosis_faults [NAME…]      the table of docs/diagnosis.md, as Markdown; exit 1 for a wrong blame

Beside copies of the checkpoint with one thing broken there are two instruments that break the memory alone. The split copy
computes the same function with twice the heads: one half only attends locally, the other only reads the memory, so that
what is broken in the second half leaves local attention as it was. And the code itself can write its memory wrongly.
`may` is what the fault truly is; "undecided" is never a wrong blame.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml

from benchmarks._harness import ROOT
from infini_eval.backends.nanotron import prepare_sample
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.checkpoint.writer import write_checkpoint
from infini_eval.data.reading import load_samples, select_samples
from infini_eval.diagnosis.diagnose import diagnose
from infini_eval.engine.text import open_tokenizer
from infini_eval.models import memory, naive
from infini_eval.tasks.passkey import TASK

CHECKPOINT = ROOT / "checkpoints/infini-demo/7102"
DATA = ROOT / "examples/infinite-context-length/data"
SHORT, LONG = DATA / "demo-1024-passkey-eval", DATA / "demo-16k-passkey-eval"
EMBEDDING = "model.token_position_embeddings.pp_block.token_embedding.weight"
FINAL_NORM, HEAD = "model.final_layer_norm.pp_block.weight", "model.lm_head.pp_block.weight"
HEADS, WIDTH, HIDDEN, LAYERS = 4, 32, 128, 3
ALL, ONE = range(LAYERS), (1,)
ELSEWHERE, UNDECIDED = "not_a_memory_failure", "undecided"
Weights = dict[str, torch.Tensor]
Config = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """One thing broken: how, what it truly is, and what must stand in the evidence."""

    name: str
    what: str
    may: tuple[str, ...]
    break_it: Callable[[Weights, Config], None]
    says: str = ""
    data: Path = SHORT
    code: str = ""
    held_out: bool = False


FAULTS: dict[str, Fault] = {}


def fault(name: str, what: str, *may: str, **settings: Any) -> Callable[[Callable[[Weights, Config], None]], None]:
    """Register a change of weights and configuration."""

    def register(break_it: Callable[[Weights, Config], None]) -> None:
        FAULTS[name] = Fault(name, what, may, break_it, **settings)

    return register


def layer(index: int, part: str) -> str:
    return f"model.decoder.{index}.pp_block.{part}"


def qkv(index: int) -> str:
    return layer(index, "attn.qkv_proj.weight")


def o_proj(index: int) -> str:
    return layer(index, "attn.o_proj.weight")


def gate(index: int) -> str:
    return layer(index, "attn.balance_factors")


def rows(part: str, head: int | None = None, heads: int = HEADS) -> slice:
    """A head's rows of qkv_proj, or all heads'."""
    start = "qkv".index(part) * heads * WIDTH
    return (
        slice(start, start + heads * WIDTH) if head is None else slice(start + head * WIDTH, start + (head + 1) * WIDTH)
    )


def split_heads(weights: Weights, config: Config) -> None:
    """The same function with heads 0-3 local only (gate 0) and 4-7 memory only (gate 1), in a model twice as wide.

    The local half's keys are a tenth and its queries ten times as large: the same attention, and little in its memory.
    """
    config["model"]["model_config"] |= {"hidden_size": 2 * HIDDEN, "num_attention_heads": 2 * HEADS}
    gates = {index: (0.2 * weights[gate(index)].flatten() + 0.5).clamp(0, 1).repeat_interleave(WIDTH) for index in ALL}
    for name, weight in list(weights.items()):
        wide = torch.cat([weight, torch.zeros(*weight.shape[:-1], HIDDEN)], -1)
        if "norm" in name:
            weights[name] = wide / 2**0.5  # half the channels are zero
        elif "qkv" in name:
            q, k, v = wide.split(HIDDEN)
            weights[name] = torch.cat([10 * q, q, k / 10, k, v, v])
        elif "o_proj" in name:
            share = gates[int(name.split(".")[2])]
            joined = torch.cat([weight * (1 - share), weight * share], 1)
            weights[name] = torch.cat([joined, torch.zeros_like(joined)])
        elif "balance" in name:
            weights[name] = torch.cat([torch.full_like(weight, -2.5), torch.full_like(weight, 2.5)])
        elif "down_proj" in name:
            weights[name] = torch.cat([weight, torch.zeros(HIDDEN, weight.shape[1])])
        else:
            weights[name] = wide


def split_fault(name: str, what: str, *may: str, **settings: Any) -> Callable[[Callable[[Weights], None]], None]:
    """Register a change of the split copy's weights."""

    def register(break_it: Callable[[Weights], None]) -> None:
        def both(weights: Weights, config: Config) -> None:
            split_heads(weights, config)
            break_it(weights)

        FAULTS[name] = Fault(name, f"split copy: {what}", may, both, **settings)

    return register


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def scale(weights: Weights, layers: Sequence[int], part: str, factor: float, head: int | None = None) -> None:
    for index in layers:
        weights[qkv(index)][rows(part, head)] *= factor


def scale_memory(weights: Weights, layers: Sequence[int], part: str, factor: float, head: int | None = None) -> None:
    """Rows of the split copy's memory half."""
    for index in layers:
        for each in range(HEADS) if head is None else [head]:
            weights[qkv(index)][rows(part, HEADS + each, 2 * HEADS)] *= factor


def memory_out(weights: Weights, index: int, head: int | None = None) -> torch.Tensor:
    """The split copy's slice of o_proj for its memory half, or one head of it."""
    start = HEADS * WIDTH
    part = slice(start, None) if head is None else slice(start + head * WIDTH, start + (head + 1) * WIDTH)
    return weights[o_proj(index)][:, part]


def alike(layers: Sequence[int], factor: float) -> Callable[[Weights, Config], None]:
    """Keys x factor, queries / factor: local attention as it was, the memory's keys more alike."""

    def change(weights: Weights, config: Config) -> None:
        scale(weights, layers, "k", factor)
        scale(weights, layers, "q", 1 / factor)

    return change


def nothing(weights: Weights, config: Config) -> None:
    pass


fault("none", "nothing", "works")(nothing)


@fault("final_norm_zero", "final norm x 0", ELSEWHERE, says="final_layer_norm.weight is all zeros")
def _(weights: Weights, config: Config) -> None:
    weights[FINAL_NORM] *= 0


@fault("mlp_zero", "MLP of layer 0 zeroed", ELSEWHERE, says="decoder.0.mlp.down_proj.weight is all zeros")
def _(weights: Weights, config: Config) -> None:
    weights[layer(0, "mlp.down_proj.weight")] *= 0


@fault("o_proj_zero", "`o_proj` of layer 1 zeroed", ELSEWHERE, says="decoder.1.attn.o_proj.weight is all zeros")
def _(weights: Weights, config: Config) -> None:
    weights[o_proj(1)] *= 0


@fault("first_attention_zero", "`o_proj` of layer 0 zeroed", ELSEWHERE)
def _(weights: Weights, config: Config) -> None:
    weights[o_proj(0)] *= 0


@fault("embedding_noise", "noise on the embedding, twice its spread", ELSEWHERE)
def _(weights: Weights, config: Config) -> None:
    weights[EMBEDDING] += 2 * weights[EMBEDDING].std() * torch.randn(weights[EMBEDDING].shape, generator=generator())


@fault("rope_theta", "`rope_theta` 100 instead of 10,000", ELSEWHERE)
def _(weights: Weights, config: Config) -> None:
    config["model"]["model_config"]["rope_theta"] = 100.0


@fault("rope_pairs", "`rope_interleaved` false", ELSEWHERE)
def _(weights: Weights, config: Config) -> None:
    config["model"]["model_config"]["rope_interleaved"] = False


@fault(
    "values_zero",
    "values of every head zero",
    ELSEWHERE,
    says="values in decoder.1.attn.qkv_proj.weight of heads 0, 1, 2, 3",
)
def _(weights: Weights, config: Config) -> None:
    scale(weights, ALL, "v", 0)


@fault("queries_zero", "queries of every head zero", ELSEWHERE)
def _(weights: Weights, config: Config) -> None:
    scale(weights, ALL, "q", 0)


@fault("keys_constant", "keys of every head zero: all alike", ELSEWHERE)
def _(weights: Weights, config: Config) -> None:
    scale(weights, ALL, "k", 0)


@fault("keys_tenth", "keys of every head x 0.1", ELSEWHERE)
def _(weights: Weights, config: Config) -> None:
    scale(weights, ALL, "k", 0.1)


@fault("values_permuted", "value rows of layer 1 permuted", ELSEWHERE)
def _(weights: Weights, config: Config) -> None:
    block = weights[qkv(1)][rows("v")]
    weights[qkv(1)][rows("v")] = block[torch.randperm(len(block), generator=generator())]


@fault("query_swapped", "query of head 1.3 replaced by its neighbour's", ELSEWHERE)
def _(weights: Weights, config: Config) -> None:
    weights[qkv(1)][rows("q", 3)] = weights[qkv(1)][rows("q", 2)].clone()


def untied(weights: Weights, config: Config) -> torch.Tensor:
    config["model"]["model_config"]["tie_word_embeddings"] = False
    weights[HEAD] = weights[EMBEDDING].clone()
    return weights[HEAD]


def digits() -> list[int]:
    tokenizer = open_tokenizer(None, Checkpoint(CHECKPOINT))
    return [int(tokenizer.encode(digit)[0]) for digit in "0123456789"]


@fault("unembedding_shuffled", "unembedding's rows shuffled", ELSEWHERE)
def _(weights: Weights, config: Config) -> None:
    head = untied(weights, config)
    head[:] = head[torch.randperm(len(head), generator=generator())]


@fault("digits_unembedded_wrongly", "digits' rows rotated in the unembedding alone", ELSEWHERE)
def _(weights: Weights, config: Config) -> None:
    head, ids = untied(weights, config), digits()
    head[ids] = head[ids[1:] + ids[:1]].clone()


@fault("digits_renamed", "digits' rows rotated in embedding and unembedding: renamed, and given back so", "works")
def _(weights: Weights, config: Config) -> None:
    ids = digits()
    weights[EMBEDDING][ids] = weights[EMBEDDING][ids[1:] + ids[:1]].clone()


@fault("digits_alike", "all digits with one embedding", ELSEWHERE)
def _(weights: Weights, config: Config) -> None:
    weights[EMBEDDING][digits()] = weights[EMBEDDING][digits()].mean(0)


@fault("nan", "one value of `o_proj` of layer 2 is NaN", ELSEWHERE, says="1 of 16384 values")
def _(weights: Weights, config: Config) -> None:
    weights[o_proj(2)][0, 0] = float("nan")


@fault("gates_shut", "all gates shut", ELSEWHERE, "not_read", says="with every gate at 0.5")
def _(weights: Weights, config: Config) -> None:
    for index in ALL:
        weights[gate(index)][:] = -9


@fault("gates_open", "all gates wide open", ELSEWHERE, "memory_harms", says="closing the memory would help")
def _(weights: Weights, config: Config) -> None:
    for index in ALL:
        weights[gate(index)][:] = 9


@fault("carrier_shut", "gate of head 1.3, which carries the answer, shut", "not_read", says="gates at exactly 0 or 1")
def _(weights: Weights, config: Config) -> None:
    weights[gate(1)][3] = -9


@fault("carrier_faint", "gate of head 1.3 at 0.05 instead of 0.56", "not_read")
def _(weights: Weights, config: Config) -> None:
    weights[gate(1)][3] = -2.25


@fault("carrier_keys_tenth", "keys of head 1.3 x 0.1", "overwritten", "never_written")
def _(weights: Weights, config: Config) -> None:
    scale(weights, ONE, "k", 0.1, 3)


fault("keys_alike_all", "keys x 0.3, queries / 0.3, every layer", "overwritten")(alike(ALL, 0.3))
fault("keys_faint_all", "keys x 0.25, queries / 0.25, every layer", "overwritten", "never_written")(alike(ALL, 0.25))
fault("keys_alike_one", "keys x 0.3, queries / 0.3, layer 1", "overwritten")(alike(ONE, 0.3))
fault("keys_nearly_constant", "keys x 0.1, queries / 0.1, every layer", "overwritten", "never_written")(alike(ALL, 0.1))
fault("dilution_all", "16k haystack, keys x 0.5, queries / 0.5, every layer", "overwritten", data=LONG)(alike(ALL, 0.5))
fault("dilution_one", "16k haystack, keys x 0.5, queries / 0.5, layer 1", "overwritten", data=LONG)(alike(ONE, 0.5))
fault("code_never_writes", "code: M is never written", "never_written", code="never")(nothing)
fault("code_forgets", "code: each segment's write empties the memory first", "overwritten", code="forgets")(nothing)


@split_fault("split", "nothing", "works")
def _(weights: Weights) -> None:
    pass


@split_fault("memory_values_zero", "values of layer 1's memory half zero", "never_written")
def _(weights: Weights) -> None:
    scale_memory(weights, ONE, "v", 0)


@split_fault("memory_keys_constant", "keys of layer 1's memory half zero", "overwritten", "never_written")
def _(weights: Weights) -> None:
    scale_memory(weights, ONE, "k", 0)


@split_fault("carrier_values_zero", "values of 1.3's memory half zero", "never_written")
def _(weights: Weights) -> None:
    scale_memory(weights, ONE, "v", 0, 3)


@split_fault("memory_queries_zero", "queries of layer 1's memory half zero", "not_read")
def _(weights: Weights) -> None:
    scale_memory(weights, ONE, "q", 0)


@split_fault("carrier_query_zero", "query of 1.3's memory half zero", "not_read")
def _(weights: Weights) -> None:
    scale_memory(weights, ONE, "q", 0, 3)


@split_fault(
    "memory_gates_shut", "gates of every memory half shut", "not_read", ELSEWHERE, says="with every gate at 0.5"
)
def _(weights: Weights) -> None:
    """Not the memory alone: a memory half whose gate is shut attends locally at full weight."""
    for index in ALL:
        weights[gate(index)][HEADS:] = -9


@split_fault(
    "memory_out_zero", "`o_proj` of layer 1's memory half zero", "read_but_not_used", says="outputs in decoder.1"
)
def _(weights: Weights) -> None:
    memory_out(weights, 1).zero_()


@split_fault("carrier_out_zero", "`o_proj` of 1.3's memory half zero", "read_but_not_used", says="outputs in decoder.1")
def _(weights: Weights) -> None:
    memory_out(weights, 1, 3).zero_()


@split_fault("memory_out_negative", "`o_proj` of layer 1's memory half x -1", "read_but_not_used", "memory_harms")
def _(weights: Weights) -> None:
    memory_out(weights, 1).neg_()


@split_fault("memory_values_permuted", "values of layer 1's memory half permuted", "read_but_not_used", "memory_harms")
def _(weights: Weights) -> None:
    for head in range(HEADS):
        place = rows("v", HEADS + head, 2 * HEADS)
        weights[qkv(1)][place] = weights[qkv(1)][place][torch.randperm(WIDTH, generator=generator())]


@split_fault(
    "memory_garbage", "`o_proj` of layer 2's memory half x -50", "memory_harms", says="closing the memory would help"
)
def _(weights: Weights) -> None:
    memory_out(weights, 2).mul_(-50)


# Held out: written down with what they truly are before they were first run, after the rules of the verdict were settled.


def permute_memory(weights: Weights, part: str) -> None:
    """The rows of each memory head of layer 1 in another order."""
    for head in range(HEADS):
        place = rows(part, HEADS + head, 2 * HEADS)
        weights[qkv(1)][place] = weights[qkv(1)][place][torch.randperm(WIDTH, generator=generator())]


@split_fault("held_keys_permuted", "key rows of layer 1's memory half permuted", "not_read", held_out=True)
def _(weights: Weights) -> None:
    permute_memory(weights, "k")


@split_fault("held_queries_permuted", "query rows of layer 1's memory half permuted", "not_read", held_out=True)
def _(weights: Weights) -> None:
    permute_memory(weights, "q")


@split_fault("held_out_faint", "`o_proj` of layer 1's memory half x 0.02", "read_but_not_used", held_out=True)
def _(weights: Weights) -> None:
    memory_out(weights, 1).mul_(0.02)


@split_fault(
    "held_out_swapped", "`o_proj` of 1.3's and 1.0's memory halves exchanged", "read_but_not_used", held_out=True
)
def _(weights: Weights) -> None:
    first, last = memory_out(weights, 1, 0), memory_out(weights, 1, 3)
    kept = first.clone()
    first.copy_(last)
    last.copy_(kept)


@fault("held_norm_zero", "input norm of layer 1 zero", ELSEWHERE, held_out=True)
def _(weights: Weights, config: Config) -> None:
    weights[layer(1, "input_layernorm.weight")] *= 0


@fault("held_digits_embedded_wrongly", "digits' rows rotated in the embedding alone", ELSEWHERE, held_out=True)
def _(weights: Weights, config: Config) -> None:
    untied(weights, config)
    ids = digits()
    weights[EMBEDDING][ids] = weights[EMBEDDING][ids[1:] + ids[:1]].clone()


fault("held_dilution", "16k haystack, keys x 0.4, queries / 0.4, layer 1", "overwritten", data=LONG, held_out=True)(
    alike(ONE, 0.4)
)
fault("held_code_fades", "code: M and z halved before each write", "overwritten", "works", code="fades", held_out=True)(
    nothing
)


# Held out a second time: after a route to "read_but_not_used" was taken away.


@split_fault("again_queries_negative", "queries of layer 1's memory half x -1", "not_read", held_out=True)
def _(weights: Weights) -> None:
    scale_memory(weights, ONE, "q", -1)


@split_fault("again_out_tenth", "`o_proj` of 1.3's memory half x 0.1", "read_but_not_used", held_out=True)
def _(weights: Weights) -> None:
    memory_out(weights, 1, 3).mul_(0.1)


fault("again_keys_alike", "keys x 0.28, queries / 0.28, layer 1", "overwritten", "never_written", held_out=True)(
    alike(ONE, 0.28)
)
fault(
    "again_dilution", "16k haystack, keys x 0.45, queries / 0.45, every layer", "overwritten", data=LONG, held_out=True
)(alike(ALL, 0.45))


@contextmanager
def broken_code(how: str) -> Iterator[None]:
    """The memory's write in the engine and in `models/naive`, broken in the same way."""
    write, naive_write = memory._write, naive._write

    def never(memory_BGHE: torch.Tensor, phi: torch.Tensor, target: torch.Tensor) -> None:
        write(memory_BGHE, phi, torch.cat([torch.zeros_like(target[..., :-1]), target[..., -1:]], -1))

    def never_naive(phi: torch.Tensor, v: torch.Tensor, state: Any) -> Any:
        matrix, z = naive_write(phi, v, state)
        return torch.zeros_like(matrix), z

    def forgets(memory_BGHE: torch.Tensor, phi: torch.Tensor, target: torch.Tensor) -> None:
        write(memory_BGHE.zero_(), phi, target)

    def forgets_naive(phi: torch.Tensor, v: torch.Tensor, state: Any) -> Any:
        matrix, z = naive_write(phi, v, state)
        return (matrix, z) if state is None else (matrix - state[0], z - state[1])

    def fades(memory_BGHE: torch.Tensor, phi: torch.Tensor, target: torch.Tensor) -> None:
        write(memory_BGHE.mul_(0.5), phi, target)

    def fades_naive(phi: torch.Tensor, v: torch.Tensor, state: Any) -> Any:
        matrix, z = naive_write(phi, v, state)
        return (matrix, z) if state is None else (matrix - state[0] / 2, z - state[1] / 2)

    broken = {
        "": (write, naive_write),
        "fades": (fades, fades_naive),
        "never": (never, never_naive),
        "forgets": (forgets, forgets_naive),
    }[how]
    with mock.patch.object(memory, "_write", broken[0]), mock.patch.object(naive, "_write", broken[1]):
        yield


def write_broken(name: str, folder: Path) -> Checkpoint:
    """A copy of the shipped checkpoint with this fault."""
    source = Checkpoint(CHECKPOINT)
    weights = {each: source.read(each).clone() for each in source.specs}
    config = yaml.safe_load((CHECKPOINT / "config.yaml").read_text())
    config["tokenizer"]["tokenizer_name_or_path"] = str(CHECKPOINT.parent / "tokenizer")
    FAULTS[name].break_it(weights, config)
    return Checkpoint(write_checkpoint(folder / name / "1", weights, config))


def verdict_on(name: str, folder: Path, per_depth: int = 4) -> dict[str, Any]:
    """The diagnosis of a fault, on prompts with the needle at depths 0, 20 and 40."""
    checkpoint, found = write_broken(name, folder), FAULTS[name]
    tokenizer, length = open_tokenizer(None, checkpoint), checkpoint.config.segment_length
    samples, _ = select_samples(load_samples(found.data, depths=[0, 20, 40]).samples, per_depth, 0)
    with broken_code(found.code):
        return diagnose(
            checkpoint, tokenizer, [prepare_sample(each, TASK.locate(each), tokenizer, length) for each in samples]
        )


def is_true(name: str, report: dict[str, Any]) -> bool:
    """Whether the verdict blames nothing wrongly and the evidence says what it must."""
    label, found = report["verdict"]["label"], FAULTS[name]
    return label in (*found.may, *([] if found.may == ("works",) else [UNDECIDED])) and found.says in " ".join(
        report["evidence"]
    )


def row(name: str, report: dict[str, Any]) -> str:
    found, control = FAULTS[name], report["control"]
    right = f"{report['correct']} of {report['samples']}" if report["samples"] else "none asked"
    asked = f"{control['right']} of {control['n']}" if control["n"] else "none asked"
    verdict = f"`{report['verdict']['label']}`" + ("" if is_true(name, report) else " WRONG")
    return f"| {found.what} | {right} | {asked} | {', '.join(f'`{each}`' for each in found.may)} | {verdict} |"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnosis_faults", allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones (default: all): {', '.join(FAULTS)}")
    parser.add_argument(
        "--per-depth", type=int, default=4, metavar="N", help="prompts of each of three depths (default: 4)"
    )
    args = parser.parse_args(argv)
    names = args.names
    if unknown := [name for name in names if name not in FAULTS]:
        parser.error(f"no fault is named {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    print("| broken | right | control | truly | verdict |\n|---|---|---|---|---|")
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in names or FAULTS:
            report = verdict_on(name, Path(folder), args.per_depth)
            wrong += not is_true(name, report)
            print(row(name, report), flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
