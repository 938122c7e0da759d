"""infini_eval: how much of a very long context can a language model really use?"""

from typing import TYPE_CHECKING, Any

from infini_eval._version import __version__

__all__ = [
    "Backend",
    "EvalConfig",
    "EvalResult",
    "Report",
    "Sample",
    "Score",
    "Scorer",
    "Task",
    "TextBackend",
    "__version__",
    "analyze",
    "compare",
    "evaluate",
    "export",
    "generate_dataset",
    "import_model",
    "judge",
    "load_model",
]

if TYPE_CHECKING:
    from infini_eval.api import Backend, EvalConfig, Report, Sample, Score, Scorer, Task, TextBackend
    from infini_eval.engine.native_model import load_model
    from infini_eval.library import (
        EvalResult,
        analyze,
        compare,
        evaluate,
        export,
        generate_dataset,
        import_model,
        judge,
    )

_LIBRARY = ("EvalResult", "analyze", "compare", "evaluate", "export", "generate_dataset", "import_model", "judge")
_HOMES = {"load_model": "engine.native_model", **dict.fromkeys(_LIBRARY, "library")}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and most commands need none of these: each is imported on first use
    if name not in __all__:
        raise AttributeError(f"module 'infini_eval' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"infini_eval.{_HOMES.get(name, 'api')}"), name)
