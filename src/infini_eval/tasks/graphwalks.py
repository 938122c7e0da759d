"""graphwalks: parents, or nodes at a depth of a breadth-first search, in a directed graph given as a list of edges.

The form of question and the rule that judges it are those of the data set openai/graphwalks (licence MIT), whose files are
read as they are; the graphs and the wording of prompts made here are ours.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from infini_eval.api.task import DataFinding, Generator, LoadedData, Question, RowInputs, Span, Task
from infini_eval.data.passkey import duplicates, findings
from infini_eval.errors import ConfigError, DataError
from infini_eval.records import Sample
from infini_eval.tasks._fitting import filling, largest_that_fits, no_exact_prompt
from infini_eval.tasks._needles import locate as locate_needle
from infini_eval.tasks._needles import validate as validate_needles
from infini_eval.tasks._published import Layout, Row, text_of
from infini_eval.tasks._published import load as load_published

OPERATIONS = ("bfs", "parents")
NAME_DIGITS = 10  # hexadecimal digits of a node's name, as in the published graphs
EDGES_A_NODE = 2
FEWEST_EDGES = 8
LONGEST_NAME = 80  # digits of the one name, of a node that nothing leads to, that makes the length exact
FEWER_EDGES = 4  # that may go for the same purpose
BEFORE = "Below are the edges of a directed graph, one a line. A line `a -> b` is an edge that leads from node a to node b.\n\n"
ASKED = {
    "bfs": "Search the graph breadth first from node {node}. Which nodes stand at depth {steps}? These are the nodes that "
    "can be reached from {node} over {steps} edges, and not over fewer.",
    "parents": "Which nodes are the parents of node {node}? These are the nodes that have an edge leading to {node}.",
}
AFTER = (
    "\n\nOperation: {asked}\n\nEnd your answer with one line of this form and write nothing after it:\n"
    "Final Answer: [node, node, ...]\n"
)
NOTE = "graphwalks: graphs and wording are ours, so scores are not comparable with those on the published files"

Edge = tuple[str, str]


def answer_line(nodes: Sequence[str]) -> str:
    """The line that a complete answer ends with."""
    return f"Final Answer: [{', '.join(nodes)}]"


class Graph:
    """A random directed graph that grows: its first n edges are the same however many follow.

    Every second edge brings a new node, so that no node is without edges. No edge stands twice, none leads to itself.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._nodes: list[str] = []
        self._known: set[str] = set()
        self._edges: list[Edge] = []
        self._there: set[Edge] = set()

    def first(self, number: int) -> list[Edge]:
        """The first `number` edges."""
        while len(self._edges) < number:
            edge = self._new_edge()
            self._edges.append(edge)
            self._there.add(edge)
        return self._edges[:number]

    def _new_edge(self) -> Edge:
        if len(self._edges) % EDGES_A_NODE == 0:
            ends = [self._any() if self._nodes else self._new_node(), self._new_node()]
            self._rng.shuffle(ends)
            return ends[0], ends[1]
        while True:
            edge = self._any(), self._any()
            if edge[0] != edge[1] and edge not in self._there:
                return edge

    def _any(self) -> str:
        return self._nodes[self._rng.randrange(len(self._nodes))]

    def _new_node(self) -> str:
        name = _digits(self._rng, NAME_DIGITS)
        while name in self._known:
            name = _digits(self._rng, NAME_DIGITS)
        self._known.add(name)
        self._nodes.append(name)
        return name


def _digits(rng: random.Random, number: int) -> str:
    return f"{rng.getrandbits(4 * number):0{number}x}"


def parents(edges: Sequence[Edge], node: str) -> tuple[list[str], list[Edge]]:
    """The nodes with an edge to `node`, sorted, and these edges."""
    found = [edge for edge in edges if edge[1] == node]
    return sorted(before for before, _ in found), found


def at_depth(after: Mapping[str, Sequence[str]], node: str, steps: int) -> tuple[list[str], list[Edge]]:
    """The nodes that `steps` edges and no fewer lead to from `node`, sorted, and every edge of such shortest ways on the
    layers up to there. `after`: each node's successors.
    """
    seen, layer, used = {node}, [node], []
    for _ in range(steps):
        steps_on = [(a, b) for a in layer for b in after.get(a, ()) if b not in seen]
        used += steps_on
        layer = list(dict.fromkeys(b for _, b in steps_on))
        seen.update(layer)
    return sorted(layer), used


def question(draw: RowInputs) -> Question:
    """As many edges as fit, in a drawn order; one more, of a node that nothing leads to, makes the length exact."""
    operation = _operation(draw)
    steps, most = draw.int_option("steps"), draw.int_option("answers")
    graph = Graph(random.Random(draw.rng.getrandbits(64)))
    order, chosen = draw.rng.getrandbits(64), draw.rng.getrandbits(64)
    digits, end = _digits(draw.rng, LONGEST_NAME), _digits(draw.rng, NAME_DIGITS)
    widest = ASKED[operation].format(node="0" * NAME_DIGITS, steps=steps)

    def made(number: int, asked: str = widest, name: str = "") -> str:
        lines = [f"{a} -> {b}" for a, b in graph.first(number)]
        random.Random(order).shuffle(lines)
        lines.append(f"{name.replace(' ', '')} -> {end}")
        return BEFORE + "\n".join(lines) + AFTER.format(asked=asked)

    fits = largest_that_fits(lambda n: draw.tokenizer.count(made(n)), draw.target, smallest=FEWEST_EDGES)
    for number in range(fits, max(FEWEST_EDGES, fits - FEWER_EDGES) - 1, -1):
        node, nodes, used = _choice(graph.first(number), operation, steps, most, random.Random(chosen))
        asked = ASKED[operation].format(node=node, steps=steps)
        name = filling(partial(made, number, asked), digits, draw.target, draw.tokenizer)
        if name is not None:
            return _asked(made(number, asked, name), nodes, used, operation)
    raise no_exact_prompt(draw.target, draw.tokenizer)


def _operation(draw: RowInputs) -> str:
    given = draw.options["operation"]
    if given == "both":
        return OPERATIONS[draw.number % len(OPERATIONS)]
    if given not in OPERATIONS:
        raise ConfigError(f"--option operation={given} is not known", valid="operation=both, bfs or parents")
    return given


def _choice(
    edges: Sequence[Edge], operation: str, steps: int, most: int, rng: random.Random
) -> tuple[str, list[str], list[Edge]]:
    """A node whose answer has 1 to `most` nodes, that answer, and the edges that it follows from."""
    after: dict[str, list[str]] = {}
    before: dict[str, list[str]] = {}
    for a, b in edges:
        after.setdefault(a, []).append(b)
        before.setdefault(b, []).append(a)
    nodes = sorted({*after, *before})
    rng.shuffle(nodes)
    for node in nodes:
        if operation == "parents" and 1 <= len(before.get(node, ())) <= most:
            return node, *parents(edges, node)
        if operation == "bfs":
            found, used = at_depth(after, node, steps)
            if 1 <= len(found) <= most:
                return node, found, used
    raise DataError(
        f"a graph of {len(edges)} edges has no node whose answer ({operation}, steps={steps}) has 1 to {most} nodes",
        next_step="ask for another length, more --option answers=N or fewer --option steps=N",
    )


def _asked(text: str, nodes: list[str], used: list[Edge], operation: str) -> Question:
    """The question with the places of the edges that its answer follows from; its depth is that of the first of them."""
    start, end = len(BEFORE), text.rindex("\n\nOperation: ")
    needles: list[Span] = []
    for a, b in used:
        place = text.index(f"{a} -> {b}\n", start - 1)
        needles.append((place, place + len(f"{a} -> {b}")))
    needles.sort()
    depth = round(100 * (needles[0][0] - start) / (end - start - sum(b - a for a, b in needles)))
    return Question(
        None,
        answer_line(nodes),
        tuple(nodes),
        text=text,
        needles=tuple(needles),
        context=(start, end),
        columns={"depth_percent": float(depth), "haystack": "graph", "problem_type": operation},
    )


def load(path: str, **filters: Any) -> LoadedData:
    """Rows made here, or those of openai/graphwalks."""
    return load_published(path, LAYOUT, filters)


def _published(row: Row, number: int) -> Sample:
    nodes = row["answer_nodes"]
    if not isinstance(nodes, list) or not all(isinstance(node, str) for node in nodes):
        raise ValueError("answer_nodes is no list of names")
    columns = {name: value for name, value in row.items() if name not in ("prompt", "answer_nodes")}
    return Sample(
        str(number),
        text_of(row, "prompt"),
        answer_line(nodes),
        0.0,
        columns=columns | {"id": str(number), "depth_percent": 0.0, "outputs": nodes},
    )


LAYOUT = Layout(
    columns=("prompt", "answer_nodes", "problem_type"),
    sample=_published,
    source="hf download --repo-type dataset openai/graphwalks",
)


def locate(sample: Sample) -> Span | None:
    """The first edge that the answer follows from; None in published prompts, which do not say it."""
    return locate_needle(sample) if "needles" in sample.columns else None


def validate(samples: Sequence[Sample]) -> list[DataFinding]:
    """Edges that are missing or stand there more than once, and ids that repeat."""
    if all("needles" in sample.columns for sample in samples):
        return validate_needles(samples)
    return findings({"duplicate_id": duplicates(sample.id for sample in samples)})


TASK = Task(
    name="graphwalks",
    scorers=("set_f1",),
    max_new_tokens=256,
    validate=validate,
    locate=locate,
    load=load,
    generator=Generator(
        question,
        answer_budget=256,
        needs_haystack=False,
        options={"operation": "both", "steps": "2", "answers": "8"},
        notes=(NOTE,),
        depths="random",
    ),
)
