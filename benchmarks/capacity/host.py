"""What a host does beside the GPUs, and how fast: the rates that the limits are computed from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HostRates:
    """Measured by `python -m benchmarks.capacity --measure`, except for the assumptions about a cluster.

    Measured 2026-11-21 on an AMD EPYC shared with other work (load 9), one core, Python 3.11, files in the page cache.
    """

    tokenise: float = 1.7e6  # bytes of text a CPU second of one core; the shipped checkpoint's tokenizer
    stored: float = 0.24  # bytes of the parquet file a byte of text
    read: float = 0.5e9  # bytes of text a CPU second, from a zstd parquet file to rows
    load: float = 1.5  # CPU seconds a GB of weights, from the page cache into the model
    start: float = 1.8  # CPU seconds of one process before it reads anything
    store: float = 6.7e4  # operations a second that one store answers to four processes
    merge: float = 47e-6  # CPU seconds a record
    characters: float = 4.5  # assumption: bytes of text a token, for a large vocabulary (the shipped one of 4,096: 2.3)
    storage: float = 10e9  # assumption: bytes a second that the shared file system gives all nodes together
    link: float = 450e9  # assumption: bytes a second that leave a GPU inside its node
    cores: int = 8  # assumption: CPU cores a GPU
    gpus_a_node: int = 8  # assumption
