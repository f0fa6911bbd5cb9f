"""multistep: train in measured phases, keep only what the evaluation proves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multistep.api import FunctionMetric, Result, chat, evaluate, generate, predict, predict_file, resume, train

__all__ = [
    "FunctionMetric",
    "Result",
    "__version__",
    "chat",
    "evaluate",
    "generate",
    "predict",
    "predict_file",
    "resume",
    "train",
]

__version__: str  # looked up on use: the look-up takes a tenth of a second


def __getattr__(name: str) -> Any:
    # Imported on use, so that `multistep --help` answers at once.
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("multistep")
        except PackageNotFoundError:  # run from a source tree that was never installed
            return "0"
    if name in __all__:
        from multistep import api

        return getattr(api, name)
    raise AttributeError(f"module 'multistep' has no attribute '{name}'")
