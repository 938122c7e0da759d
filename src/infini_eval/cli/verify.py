"""Prove that this toolkit computes what the training framework computed: compare logits and greedy tokens.

  infini-eval verify --ckpt-path CKPT --reference logits.safetensors --generation generation.json
  torchrun --nproc_per_node=4 --no-python infini-eval verify --ckpt-path CKPT --reference logits.safetensors --tp 2 --pp 2

Computes in float32 whatever the checkpoint's dtype and ignores end tokens. Exit status 0: within bounds; 1: not; 2: bad input.
"""

from __future__ import annotations

import argparse
from dataclasses import astuple, replace
from typing import TYPE_CHECKING

from infini_eval.cli import flags
from infini_eval.config import ModelSettings, Topology
from infini_eval.errors import EXIT_CHECK_FAILED, EXIT_OK
from infini_eval.options import tolerance

if TYPE_CHECKING:
    from infini_eval.distributed.launch import World
    from infini_eval.distributed.mesh import Mesh
    from infini_eval.engine.verification import LogitComparison, Reference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.add_checkpoint_flag(parser)
    flags.add_flag(
        parser,
        "--reference",
        required=True,
        metavar="FILE",
        help="safetensors with input_ids [B, T] and logits [B, T, V]",
    )
    flags.add_flag(parser, "--generation", metavar="FILE", help="JSON with prompt_ids and generated (greedy tokens)")
    flags.add_flag(
        parser,
        "--memory-query",
        choices=("rotary", "plain"),
        help="plain compares with the *_nope_query entries where present (default: as the checkpoint says)",
    )
    flags.add_flag(
        parser, "--atol", type=tolerance, default=1e-4, help="largest |difference| of logits (default: %(default)s)"
    )
    flags.add_flag(parser, "--device", metavar="DEVICE", help="cpu or cuda (default: cuda when present)")
    flags.add_topology_flags(parser)


def run(args: argparse.Namespace) -> int:
    from infini_eval.checkpoint.reader import Checkpoint
    from infini_eval.distributed.launch import launch
    from infini_eval.distributed.mesh import Mesh
    from infini_eval.engine.native_model import load_replica, mesh_shape
    from infini_eval.engine.verification import compare, read_reference

    with launch(args.device, args.timeout) as world:
        checkpoint = Checkpoint(args.ckpt_path)
        query = args.memory_query or checkpoint.config.memory_query
        reference = read_reference(args.reference, args.generation, query)
        mesh = Mesh.build(mesh_shape(checkpoint, flags.read_options(args, Topology), world.world_size), world.rank)
        settings = ModelSettings(dtype="float32", memory_query=query)
        model = load_replica(checkpoint, settings, mesh, world.device)
        rows = range(mesh.dp_rank, max(len(reference.input_ids), len(reference.prompts)), mesh.shape.dp)
        total = _add_up(compare(model, reference, rows), mesh, world)
        within = total.max_difference <= args.atol and total.rows_agreeing == total.rows_generated
        if world.is_main:
            print(_report(total, reference, str(checkpoint.folder), query, str(mesh.shape), args.atol, within))
    return EXIT_OK if within else EXIT_CHECK_FAILED


def _add_up(mine: LogitComparison, mesh: Mesh, world: World) -> LogitComparison:
    """The comparison over all replicas; each replica's leader contributes."""
    if world.store is None:
        return mine
    from infini_eval.distributed.store import get_json, put_json

    if mesh.is_leader:
        put_json(world.store, f"comparison/{mesh.dp_rank}", list(astuple(mine)))
    shares = [get_json(world.store, f"comparison/{dp}") for dp in range(mesh.shape.dp)]
    columns = list(zip(*shares, strict=True))
    return replace(
        mine,
        max_difference=max(columns[0]),
        total_difference=sum(columns[1]),
        values=sum(columns[2]),
        rows_generated=sum(columns[3]),
        rows_agreeing=sum(columns[4]),
        rows_identical=sum(columns[5]),
    )


def _report(
    total: LogitComparison, reference: Reference, checkpoint: str, query: str, shape: str, atol: float, within: bool
) -> str:
    lines = [
        f"checkpoint   {checkpoint}",
        f"topology     {shape}   memory query: {query}",
        f"logits       max |difference| {total.max_difference:.3g} (bound {atol:g}), mean {total.mean_difference:.3g}, "
        f"{total.values:,} values of {len(reference.input_ids)} rows",
    ]
    if reference.prompts:
        lines.append(
            f"generation   {total.rows_agreeing} of {total.rows_generated} rows agree, {total.rows_identical} token for token"
        )
    lines.append("OK: within bounds" if within else "FAILED: this toolkit computes something else than the reference")
    return "\n".join(lines)
