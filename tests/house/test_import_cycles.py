"""No module imports itself by way of others: imports for type checkers and inside functions count as well."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"

# Circles that are still there, each as its modules; one that has gone must leave this list.
KNOWN = {
    frozenset({"infini_eval.cli.generate", "infini_eval.cli.suite"}),
}

Graph = Mapping[str, set[str]]


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Everything that an absolute import names, as "package.module" and as "package.module.attribute"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name: str, modules: Mapping[str, str]) -> str | None:
    """The module that an imported name is, or is an attribute of; None for other packages."""
    if name in modules:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in modules else None


def import_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Which of the modules each module imports, anywhere in its file."""
    return {
        module: {found for name in imported_names(ast.parse(text)) if (found := module_of(name, sources))} - {module}
        for module, text in sources.items()
    }


def circles(graph: Graph) -> set[frozenset[str]]:
    """The strongly connected components of more than one module (Tarjan 1972)."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    components = set()

    def visit(module: str) -> None:
        index[module] = lowest[module] = len(index)
        stack.append(module)
        for other in graph[module]:
            if other not in index:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], index[other])
        if lowest[module] == index[module]:
            place = stack.index(module)
            components.add(frozenset(stack[place:]))
            del stack[place:]

    for module in graph:
        if module not in index:
            visit(module)
    return {component for component in components if len(component) > 1}


def test_there_are_no_circles_but_the_known_ones():
    sources = {module_name(path): path.read_text() for path in SOURCE.rglob("*.py")}
    present = circles(import_graph(sources))
    assert present - KNOWN == set(), "new circles"
    assert KNOWN - present == set(), "circles that have gone: take them out of KNOWN"


def test_a_circle_is_found_wherever_its_imports_stand():
    sources = {
        "p": "",
        "p.a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.b import B",
        "p.b": "def f():\n    import p.c",
        "p.c": "from p import a",
        "p.d": "from p.a import A\nimport json",
    }
    assert circles(import_graph(sources)) == {frozenset({"p.a", "p.b", "p.c"})}
