"""Write the demo checkpoint, its tokenizer and a passkey data set into a folder, to try everything anywhere.

  infini-eval demo                # ./infini-demo: 733k parameters, 3 MB, and 210 prompts of 1,024 tokens
  infini-eval demo somewhere/else

The same command again writes what is missing. The data are those that the repository ships, made anew from their seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import infini_eval
from infini_eval.cli.flags import add_flag
from infini_eval.errors import EXIT_OK, CheckpointError, RunFolderError
from infini_eval.results.files import os_error, write_atomically

NAME = "infini-demo"
PACKED = Path(infini_eval.__file__).parent / "demo" / NAME  # setup.py puts it into wheels
CLONE = Path(infini_eval.__file__).parents[2]
DATA = "data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", nargs="?", default=NAME, metavar="DIR", type=Path, help="where it goes (default: ./%(default)s)"
    )
    add_flag(parser, "--overwrite", action="store_true", help="replace files there that differ")


def run(args: argparse.Namespace) -> int:
    source = demo_checkpoint()
    write_checkpoint(source, args.folder, overwrite=args.overwrite)
    rows = _write_data(args.folder)
    print(f"{args.folder}: a checkpoint with its tokenizer, and {rows} prompts in {args.folder / DATA}")
    print(NEXT.format(folder=args.folder, data=args.folder / DATA))
    return EXIT_OK


NEXT = """next:
  infini-eval passkey --ckpt-path {folder} --eval_dataset_path {data} --num_samples 2 --save_path results/on
  infini-eval passkey --ckpt-path {folder} --eval_dataset_path {data} --num_samples 2 --save_path results/ablated --memory ablate
  infini-eval compare results/on results/ablated"""


def demo_checkpoint() -> Path:
    """Where the demo checkpoint lies: in the installed package, or in the clone that the package runs from.

    Raises:
        CheckpointError: in neither; the package was built without it.
    """
    for place in (PACKED, CLONE / "checkpoints" / NAME):
        if (place / "latest.txt").is_file():
            return place
    raise CheckpointError(
        f"this installation does not hold the demo checkpoint (looked at {PACKED})",
        valid="a wheel built from a whole clone, or a clone of the repository, in checkpoints/infini-demo",
        next_step="try everything without a model: infini-eval run --task passkey --model fake:any …",
    )


def write_checkpoint(source: Path, folder: Path, *, overwrite: bool = False) -> None:
    """Copy the checkpoint's files, those that are there already left alone.

    Raises:
        RunFolderError: a file there differs and must not be replaced, or one cannot be written.
    """
    files = {path.relative_to(source): path.read_bytes() for path in sorted(source.rglob("*")) if path.is_file()}
    try:
        there = {name for name in files if (folder / name).is_file()}
        differing = [name for name in there if (folder / name).read_bytes() != files[name]]
    except OSError as error:
        raise os_error(folder, error, "read") from error
    if differing and not overwrite:
        raise RunFolderError(
            f"{folder / min(differing)} is another file than the demo's",
            next_step="name another folder, or pass --overwrite",
        )
    for name, content in files.items():
        if name not in there or name in differing:
            write_atomically(folder / name, content)


def _write_data(folder: Path) -> int:
    """Make the 210 prompts of 1,024 tokens (answer included) of the shipped set; returns their number."""
    from infini_eval.data.config import GenerateConfig
    from infini_eval.data.dataset import generate_dataset
    from infini_eval.data.reading import load_samples

    data = folder / DATA
    if any(data.glob("*.parquet")):
        return len(load_samples(data).samples)
    config = GenerateConfig(
        context_lengths=(1024,),
        depths=tuple(range(0, 101, 5)),
        num_digits=(4, 5),
        seed=1,
        length_includes_answer=True,
        id="inside",
    )
    return generate_dataset(config, data, folder).num_rows
