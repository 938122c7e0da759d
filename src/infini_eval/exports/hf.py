"""A checkpoint as a folder that transformers opens."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from infini_eval.api.export import export
from infini_eval.config import DTYPES
from infini_eval.options import gigabytes, option


@dataclass(frozen=True)
class HfSettings:
    """What can be chosen of the folder."""

    TITLE: ClassVar[str] = "a folder for transformers"

    tokenizer: str | None = option(None, "tokenizer folder, file or hub id (default: the checkpoint's)", metavar="PATH")
    dtype: str | None = option(None, "dtype of the weights (default: the checkpoint's)", choices=DTYPES)
    shard_gb: float = option(
        5.0, "size of the largest weight file, in gigabytes (default: %(default)s)", read=gigabytes, metavar="GB"
    )
    self_contained: bool = option(
        False, "put the model's code into the folder: it then opens with trust_remote_code, without infini_eval"
    )


@export("hf", place="hf-model", made_from="checkpoint", settings=HfSettings)
def hf(checkpoint: Path, place: Path, settings: HfSettings) -> list[str]:
    """hf: a folder for transformers (AutoModelForCausalLM), whose cache does not grow with the context"""
    from infini_eval.hf.to_transformers import export_checkpoint

    return export_checkpoint(checkpoint, place, **asdict(settings))
