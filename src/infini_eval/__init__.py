"""infini_eval: how much of a very long context can a language model really use?"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_model"]

if TYPE_CHECKING:
    from infini_eval.engine.native_model import load_model


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; nothing but this attribute needs it, so it is imported on first use
    if name == "load_model":
        from infini_eval.engine.native_model import load_model

        return load_model
    raise AttributeError(f"module 'infini_eval' has no attribute {name!r}")
