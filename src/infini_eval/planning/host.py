"""What a CPU's memory holds beside live tensors: blocks that glibc keeps after they were freed, and loading's transients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from infini_eval.planning.architecture import Architecture
from infini_eval.planning.weights import bits_of, stage_weight_bytes

# glibc serves larger blocks by mmap and gives them back at once (DEFAULT_MMAP_THRESHOLD_MAX on 64 bits); the threshold
# of smaller ones rises to the largest that was ever freed, after which they come from the heap.
HEAP_BLOCK = 32 << 20
# Code of torch's libraries that is paged in when they first compute, beside some workspaces: 11 to 31 MB were measured
# with models of width 64 (native and transformers, fp32 and bf16), where nothing else counts.
LIBRARIES = 20_000_000
BLOCKS = 3 << 22  # a block of a weight file, converted, and its mask


def allocator_bytes(blocks: Iterable[float]) -> int:
    """Freed heap between live blocks: half of what is alive in blocks of the heap.

    Knuth's fifty-percent rule (The Art of Computer Programming, 2.5): where blocks of various sizes come and go and free
    neighbours are joined, as in glibc, there is one hole for every two live blocks.
    """
    return round(sum(block for block in blocks if block < HEAP_BLOCK) / 2)


def unread_bytes(architecture: Architecture, dtype: str, quantizer: str, tp: int = 1) -> int:
    """The head during the first step: transformers maps its files, and these pages come with the first logits."""
    mapped = architecture.engine != "native" and architecture.dtype == dtype and quantizer == "none" and tp == 1
    return architecture.head_parameters * bits_of(dtype) // 8 if mapped else 0


def loading_bytes(architecture: Architecture, layers: range, dtype: str, tp: int = 1) -> int:
    """The most that loading a stage into host memory holds beyond the weights themselves."""
    saved, value = bits_of(architecture.dtype) / 8, bits_of(dtype) / 8
    if architecture.engine != "native":  # the files' pages stay mapped while their values are converted
        return 0 if saved == value else stage_weight_bytes(architecture, layers, architecture.dtype, "none", tp)
    return max(0, *(round(moment) for moment in _native_moments(architecture, layers, saved, value, tp)))


def _native_moments(architecture: Architecture, layers: range, saved: float, value: float, tp: int) -> Iterator[float]:
    """Embedding and head come first, then the layers: what reading a tensor adds to it, less the weights still to come.

    checkpoint/reader.py maps the file while it copies it by blocks, so its pages stand beside the tensor; the rows of q
    and k may be put into another order, which copies them once more.
    """
    rest = sum(architecture.layers[index].parameters for index in layers) / tp
    last = architecture.layers[layers.stop - 1]
    head = architecture.head_parameters / tp if layers.stop == len(architecture.layers) else 0.0
    embedding = architecture.embedding_parameters / tp if layers.start == 0 else 0.0
    projections = (last.query / 2 + last.kv) / tp
    in_order = [
        (embedding * saved, head + rest),
        (head * saved, rest),
        (projections * (saved + value), (last.query / 2 + last.mlp) / tp),  # q, k and v
        (last.mlp * 2 / 3 / tp * saved, last.mlp / 3 / tp),  # gate and up
        (last.mlp / 3 / tp * saved, 0.0),  # down
    ]
    for beside, still_to_come in in_order:
        yield beside + BLOCKS - still_to_come * value
