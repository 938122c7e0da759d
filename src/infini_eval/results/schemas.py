"""What a manifest must hold to be used, as typed models: run folders travel, and other hands and tools write into them.

Only values that somebody reads are described; whatever else is there is kept. Imported where a manifest is read.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from infini_eval.foreign import shown
from infini_eval.results.files import to_jsonable

Text = Annotated[str, StringConstraints(max_length=100_000)] | None
Count = Annotated[int, Field(ge=0, le=1 << 53)] | None
Finite = Annotated[float, Field(allow_inf_nan=False)]
Section = dict[str, Any] | None


class _Part(BaseModel):
    model_config: ClassVar[ConfigDict] = {"extra": "allow", "strict": True}


class _Gates(_Part):
    mean: Finite | None = None


class _Model(_Part):
    name: Text = None
    kind: Text = None
    dtype: Text = None
    memory: Text = None
    memory_query: Text = None
    gate_activation: Text = None
    parameters: Count = None
    segment_length: Count = None
    max_position_embeddings: Count = None
    gates: _Gates | None = None


class _Identity(_Part):
    task: Text = None
    scorer: Text = None
    seed: int | None = None
    num_samples: Count = None
    max_new_tokens: Count = None
    checkpoint: Text | Section = None
    data_settings: Section = None
    filters: Section = None
    sampling: Section = None


class _Environment(_Part):
    ckpt_path: Text = None
    eval_dataset_path: Text = None
    device: Text = None
    started: Text = None
    command: list[str] | None = None
    batch_sizes: dict[str, Count] | None = None
    previous_attempts: list[dict[str, Any]] | None = None
    seconds: dict[str, dict[str, Finite] | Finite] | None = None
    topology: Section = None


class _Manifest(_Part):
    schema_version: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    identity: _Identity = _Identity()
    model: _Model = _Model()
    environment: _Environment = _Environment()
    samples_planned: Count = None


def checked_manifest(found: Any) -> tuple[dict[str, Any], list[str]]:
    """A manifest's content without the values that are not of their kind, and a sentence on each of these."""
    if not isinstance(found, dict):
        return {}, [f"it does not hold an object, but {shown(found)}"]
    data = to_jsonable(found)
    problems = {}
    try:
        _Manifest.model_validate(data)
    except ValidationError as error:
        for one in error.errors(include_url=False, include_context=False):
            section, key = one["loc"][0], next(iter(one["loc"][1:2]), None)
            holder, name = (data, section) if key is None else (data.get(section), key)
            if isinstance(holder, dict) and name in holder:
                where = str(section) if key is None else f"{section}.{key}"
                problems[where] = f"{where} is {shown(holder.pop(name))}: {one['msg']}"
    return data, list(problems.values())
