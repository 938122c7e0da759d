"""A data set as a task of the lm-evaluation-harness: its rows, a YAML, and our scoring as a file that needs no infini_eval."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from infini_eval._version import __version__
from infini_eval.api import registry
from infini_eval.api.export import export
from infini_eval.api.scorer import Scorer
from infini_eval.api.task import LoadedData, Task
from infini_eval.errors import ConfigError
from infini_eval.foreign import parse_json
from infini_eval.options import column_pairs, option, positive_int
from infini_eval.records import Sample
from infini_eval.results.files import make_folder, os_error, to_jsonable, write_atomically

PACKAGE = "infini_eval"
GIVEN = ("scorer", "Sample", "Score", "ConfigError")  # what the file has instead of ours
WRITABLE = (
    "exact_digits",
    "chat_digits",
    "contains",
    "exact_match",
    "string_match_all",
    "string_match_part",
    "rouge_l",
)
HEAD_IMPORTS = (
    "import sys",
    "from dataclasses import dataclass",
    "from pathlib import Path",
    "from types import ModuleType",
)
HEAD = '''"""{name}: rows and scoring of a task that infini-eval {version} exported; nothing of infini_eval is imported.

Scores: {scorers}, as `infini-eval run` gives them to the same answers.
"""

from __future__ import annotations

{imports}

sys.modules.setdefault(__name__, ModuleType(__name__))  # dataclasses look there; not every loader enters a file
BY_DEPTH = {by_depth}  # whether depths have different numbers of rows, so that a mean over rows is none over depths


def load(context_length=None, **_):
    """The rows, of one context length where there are several."""
    import datasets
    import pyarrow.parquet as pq

    filters = None if context_length is None else [("context_length", "==", context_length)]
    return {{"test": datasets.Dataset(pq.read_table(Path(__file__).with_suffix(".parquet"), filters=filters))}}


def process_results(doc, results):
    """The scores of one answer."""
    sample = Sample(doc["answer"], {{"outputs": doc["outputs"]}} if doc["outputs"] else {{}})
    scores = {{scorer.__name__: scorer(results[0], sample).value for scorer in SCORERS}}
    return {{name: (doc["depth_percent"], score) for name, score in scores.items()}} if BY_DEPTH else scores


def mean_over_depths(pairs):
    """The mean of the means at each depth, which infini-eval's reports call the accuracy."""
    depths = {{}}
    for depth, score in pairs:
        depths.setdefault(depth, []).append(score)
    return sum(sum(scores) / len(scores) for scores in depths.values()) / len(depths)


@dataclass
class Sample:
    """What a scorer reads of a row."""

    answer: str
    columns: dict


@dataclass
class Score:
    """A judgement from 0 to 1, and what was read as the answer."""

    value: float | None
    extracted: str | None = None


class ConfigError(Exception):
    """Something is missing."""

    def __init__(self, problem, next_step=""):
        super().__init__(f"{{problem}}: {{next_step}}")


'''


@dataclass(frozen=True)
class LmEvalTaskSettings:
    """What the data ask, and how the answers are judged."""

    TITLE: ClassVar[str] = "the format lm-eval-task"

    task: str | None = option(
        None, "whose question the data hold: passkey, niah, … (default: as generated data say)", metavar="NAME"
    )
    task_name: str | None = option(None, "lm-eval's name of the task (default: infini_TASK)", metavar="NAME")
    scorer: str | None = option(None, "what counts first (default: the task's own)", metavar="NAME")
    max_new_tokens: int | None = option(
        None, "tokens of an answer at most (default: the task's own)", read=positive_int, metavar="N"
    )
    columns: tuple[tuple[str, str], ...] = option(
        (), "as of run: prompt=question,answer=target", read=column_pairs, metavar="MAP"
    )
    split: str | None = option(None, "as of run: the split to take", metavar="NAME")


@export("lm-eval-task", place="lm-eval-tasks", made_from="data", settings=LmEvalTaskSettings)
def lm_eval_task(data: str, place: Path, settings: LmEvalTaskSettings) -> list[str]:
    """lm-eval-task: a data set as a task of the lm-evaluation-harness, judged as here: lm_eval --include_path DIR --tasks NAME

    NAME.yaml, NAME.parquet (the rows) and NAME.py (our scorers), which lie together wherever they are moved. Of several
    context lengths NAME is a group with a task each, NAME_4096, and the mean over lengths. The mean is over depths, as in
    our reports: where depths have different numbers of rows, by a function of NAME.py, for which lm-eval has no error bar.
    """
    from infini_eval.data.reading import load_data  # numpy, which --help does without

    task = _task(data, settings.task)
    options: dict[str, Any] = {"options": task.with_defaults({})} if task.options else {}
    loaded = load_data(task, data, columns=dict(settings.columns), split=settings.split, **options)
    scorers = _scorers(task, settings.scorer)
    name = settings.task_name or f"infini_{task.name}"
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ConfigError(f"--task-name {name!r}", valid="letters, digits and underscores, a letter first")
    by_depth = not _even(loaded.samples)
    scoring = _scoring(name, scorers, by_depth)  # before anything is written: not every scorer can be
    _write_rows(loaded.samples, place / f"{name}.parquet")
    write_atomically(place / f"{name}.py", scoring.encode())
    lengths = sorted({sample.context_length for sample in loaded.samples if sample.context_length is not None})
    budget = settings.max_new_tokens or task.max_new_tokens
    files = _configurations(name, loaded, _metrics(name, scorers, by_depth), lengths, budget)
    for file, configuration in files.items():
        write_atomically(place / file, _yaml(configuration))
    shown = f"{len(loaded.samples):,} rows" + (f", {len(lengths)} lengths" if len(lengths) > 1 else "")
    return [
        f"{place}/{name}.yaml: {shown}, judged by {scorers[0].name}",
        f"lm_eval --include_path {place} --tasks {name} --model …",
    ]


def _task(data: str, named: str | None) -> Task:
    """The task that was named, or the one that generated data say they were made for."""
    named = named or _generated_for(data)
    if named is None:
        raise ConfigError(
            f"{data} does not say which task it is for",
            next_step="infini-eval export … --task passkey (or niah, qa, …)",
        )
    task = registry.task(named)
    if task.report != "depths":
        raise ConfigError(
            f"the answers to {task.name} wait for a judge, which lm-eval does not have", valid="other data"
        )
    return task


def _generated_for(data: str) -> str | None:
    """The task that stands in a parquet file that `infini-eval generate` wrote."""
    import pyarrow.parquet as pq

    from infini_eval.data.reading import find_files
    from infini_eval.data.write import METADATA_KEY

    files = find_files(data)
    if files.kind != "parquet":
        return None
    settings = (pq.read_schema(files.files[0]).metadata or {}).get(METADATA_KEY.encode(), b"{}")
    try:
        made = parse_json(settings.decode())
    except ValueError:
        return None
    task = made.get("task") if isinstance(made, dict) else None
    return task if isinstance(task, str) else None


def _even(samples: Sequence[Sample]) -> bool:
    """Whether the mean over rows is the report's mean over depths: every depth of a length has as many rows."""
    cells: dict[int | None, Counter[float]] = {}
    for sample in samples:
        cells.setdefault(sample.context_length, Counter())[sample.depth_percent] += 1
    return all(len(set(depths.values())) == 1 for depths in cells.values())


def _metrics(name: str, scorers: Sequence[Scorer], by_depth: bool) -> list[dict[str, Any]]:
    """The metrics of a task, the one that counts first."""
    mean = _Function(f"{name}.mean_over_depths") if by_depth else "mean"
    return [{"metric": one.name, "aggregation": mean, "higher_is_better": True} for one in scorers]


def _write_rows(samples: Sequence[Sample], file: Path) -> None:
    """The rows as lm-eval is given them: text, what counts as right, and where the row belongs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "id": pa.array([sample.id for sample in samples], pa.string()),
            "prompt": pa.array([sample.prompt for sample in samples], pa.large_string()),
            "answer": pa.array([sample.answer for sample in samples], pa.string()),
            "outputs": pa.array([_outputs(sample) for sample in samples], pa.list_(pa.string())),
            "context_length": pa.array([sample.context_length for sample in samples], pa.int64()),
            "depth_percent": pa.array([sample.depth_percent for sample in samples], pa.float64(), from_pandas=True),
        }
    )
    make_folder(file.parent)
    try:
        pq.write_table(table, file, compression="zstd")
    except OSError as error:
        raise os_error(file, error) from error


def _outputs(sample: Sample) -> list[str]:
    """The references of a row that has several, empty where the answer alone counts."""
    found = sample.columns.get("outputs")
    if isinstance(found, str):
        found = json.loads(found) if found.startswith("[") else [found]
    return [str(one) for one in found or ()]


def _configurations(
    name: str, data: LoadedData, metrics: Sequence[Mapping[str, Any]], lengths: Sequence[int], budget: int
) -> dict[str, dict[str, Any]]:
    """The YAML files by name: a task, or a task for each length and their group."""
    common = {
        "custom_dataset": _Function(f"{name}.load"),
        "test_split": "test",
        "output_type": "generate_until",
        "num_fewshot": 0,
        "doc_to_text": "prompt",
        "doc_to_target": "answer",
        "target_delimiter": "",  # prompts end as they were made
        "generation_kwargs": {"until": [], "max_gen_toks": budget, "do_sample": False, "temperature": 0.0},
        "process_results": _Function(f"{name}.process_results"),
        "metric_list": metrics,
        "metadata": {"version": 1.0, "infini_eval": __version__, "data": data.fingerprint},
    }
    if len(lengths) < 2:
        return {f"{name}.yaml": {"task": name, **common}}
    tasks = {f"{name}_{length}": {"dataset_kwargs": {"context_length": length}} for length in lengths}
    group = {
        "group": name,
        "task": list(tasks),
        "aggregate_metric_list": [
            {"metric": one["metric"], "aggregation": "mean", "weight_by_size": False} for one in metrics
        ],
        "metadata": {"version": 1.0},
    }
    return {f"{name}.yaml": group} | {f"{one}.yaml": {"task": one, **own, **common} for one, own in tasks.items()}


class _Function(str):
    """The name of a function in a Python file beside the YAML."""


def _yaml(configuration: Mapping[str, Any]) -> bytes:
    """The configuration as YAML, where a function is a name with the tag that lm-eval has for it."""
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        """The safe one, with one tag more."""

    Dumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))
    text: str = yaml.dump(to_jsonable(configuration), Dumper=Dumper, sort_keys=False, allow_unicode=True)
    return text.encode()


def _scorers(task: Task, first: str | None) -> list[Scorer]:
    """The scorers of a task, the one that counts first."""
    names = list(task.scorers) if first is None else [first, *(name for name in task.scorers if name != first)]
    return [registry.scorer(name) for name in names]


def _scoring(name: str, scorers: Sequence[Scorer], by_depth: bool) -> str:
    """The Python file of a task: what lm-eval calls, and the source of the scorers with all that they use.

    Raises:
        ConfigError: a scorer needs more than its own module and other packages.
    """
    imports, parts = set(HEAD_IMPORTS), []
    for module in dict.fromkeys(scorer.__module__ for scorer in scorers):
        source = _Source(module)
        needed = source.needed([scorer.name for scorer in scorers if scorer.__module__ == module])
        imports |= source.imports(needed)
        parts += source.definitions(needed)
    names = ", ".join(scorer.name for scorer in scorers)
    lines = "\n".join(sorted(imports, key=_plain_first))
    head = HEAD.format(name=name, version=__version__, scorers=names, imports=lines, by_depth=by_depth)
    return head + "\n\n\n".join(parts) + f"\n\n\nSCORERS = ({names},)\n"


def _plain_first(line: str) -> tuple[bool, str]:
    return line.startswith("from"), line


class _Source:
    """The top level of a scorers' module: what it imports and defines, by name."""

    def __init__(self, module: str) -> None:
        text = inspect.getsource(importlib.import_module(module))
        self._lines = text.splitlines()
        self._defined: dict[str, ast.stmt] = {}
        self._imported: dict[str, str] = {}  # by the name that it is bound to, the line that imports it
        self._ours: set[str] = set()
        for node in ast.parse(text).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._add_import(node)
            else:
                self._defined |= dict.fromkeys(_bound(node), node)

    def _add_import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            one = ast.Import([alias]) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, [alias], 0)
            self._imported[name] = ast.unparse(one)
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE:
                self._ours.add(name)

    def needed(self, names: Sequence[str]) -> set[str]:
        """These functions and all names of the top level that they use, by way of others included."""
        found, waiting = set(names), list(names)
        while waiting:
            node = self._defined.get(waiting.pop())
            used = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)} if node is not None else set()
            new = (used & (self._defined.keys() | self._imported.keys())) - found
            found |= new
            waiting += new
        if more := sorted((found & self._ours) - set(GIVEN)):
            raise ConfigError(
                f"the scorer {names[0]} cannot stand in a file of its own: it uses {more[0]} of infini_eval",
                valid="a scorer that uses its own module and other packages: " + ", ".join(WRITABLE),
            )
        return found

    def imports(self, names: set[str]) -> set[str]:
        """The lines that import some of the names, those aside that the file itself stands in for."""
        return {line for name, line in self._imported.items() if name in names - self._ours}

    def definitions(self, names: set[str]) -> list[str]:
        """The source of some names, in the module's order, without the decorator that makes a scorer."""
        nodes = {id(node): node for name, node in self._defined.items() if name in names}
        ordered = sorted(nodes.values(), key=lambda node: node.lineno)
        return [
            "\n".join(line for line in self._lines[_first_line(node) - 1 : node.end_lineno] if line != "@scorer")
            for node in ordered
        ]


def _bound(node: ast.stmt) -> Iterator[str]:
    """The names that a statement of the top level binds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    yield from (target.id for target in targets if isinstance(target, ast.Name))


def _first_line(node: ast.stmt) -> int:
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])
