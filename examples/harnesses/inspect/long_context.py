"""A data set of infini-eval as a task of Inspect: the same prompts, judged by the same scorers, for any model of Inspect.

inspect eval examples/harnesses/inspect/long_context.py -T data=/PATH/TO/DATA --model infini//PATH/TO/CHECKPOINT
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState, generate

from infini_eval import records
from infini_eval.api import registry
from infini_eval.data.reading import load_data, select_samples

EXAMPLES = Path(__file__).resolve().parents[2]
DATA = str(EXAMPLES / "infinite-context-length" / "data" / "demo-1024-passkey-eval")


@task
def long_context(data: str = DATA, kind: str = "passkey", samples: int | None = None) -> Task:
    """Ask the rows of a data set.

    Args:
        data: a file or folder of rows, or a hub id; `infini-eval generate` makes them. Inspect enters this file's folder
            before it asks for a task: name places from the root.
        kind: whose questions they are: passkey, niah, ruler_vt, qa, …
        samples: how many of each length and depth; all where None.
    """
    ours = registry.task(kind)
    chosen, _ = select_samples(load_data(ours, data).samples, samples, seed=42)
    by_id = {str(number): sample for number, sample in enumerate(chosen)}
    rows = [
        Sample(
            id=number, input=one.prompt, target=one.answer, metadata={"id": one.id, "depth_percent": one.depth_percent}
        )
        for number, one in by_id.items()
    ]
    return Task(
        dataset=MemoryDataset(rows, name=kind),
        solver=generate(),
        scorer=[_inspect_scorer(name)(by_id) for name in ours.scorers],
        config=GenerateConfig(max_tokens=ours.max_new_tokens, temperature=0.0),
    )


def _inspect_scorer(name: str) -> Callable[[dict[str, records.Sample]], Scorer]:
    """A scorer of infini-eval as one of Inspect."""
    judge = registry.scorer(name)

    @scorer(metrics=[mean(), stderr()], name=name)
    def made(by_id: dict[str, records.Sample]) -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            found = judge(state.output.completion, by_id[str(state.sample_id)])
            return Score(value=found.value or 0.0, answer=found.extracted, explanation=judge.__doc__)

        return score

    return made
