"""multistep: train in measured phases, keep only what the evaluation proves.

`train` does it; `predict`, `evaluate`, `generate` and `chat` use what came of it. help(multistep.train) tells all its
keywords.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multistep.api import (
        FunctionMetric,
        Result,
        chat,
        check,
        clean,
        evaluate,
        export,
        generate,
        predict,
        predict_file,
        push,
        resume,
        simulate,
        track,
        train,
        write_report,
    )
    from multistep.core.values.plan import DataSpec, ModelSpec, Phase, Plan
    from multistep.errors import DataError, MultistepError, PlanError, RunDirectoryError, RunFailed, Stopped

__all__ = [
    "DataError",
    "DataSpec",
    "FunctionMetric",
    "ModelSpec",
    "MultistepError",
    "Phase",
    "Plan",
    "PlanError",
    "Result",
    "RunDirectoryError",
    "RunFailed",
    "Stopped",
    "__version__",
    "chat",
    "check",
    "clean",
    "evaluate",
    "export",
    "generate",
    "predict",
    "predict_file",
    "push",
    "resume",
    "simulate",
    "track",
    "train",
    "write_report",
]

_ERRORS = ("DataError", "MultistepError", "PlanError", "RunDirectoryError", "RunFailed", "Stopped")
_PLANS = ("DataSpec", "ModelSpec", "Phase", "Plan")

__version__: str  # looked up on use: the look-up takes a tenth of a second


if not TYPE_CHECKING:  # else a checker would take every name for one that there is

    def __getattr__(name: str) -> Any:
        # Imported on use, so that `multistep --help` answers at once.
        if name == "__version__":
            from importlib.metadata import PackageNotFoundError, version

            try:
                return version("multistep")
            except PackageNotFoundError:  # run from a source tree that was never installed
                return "0"
        if name in _ERRORS:
            from multistep import errors

            return getattr(errors, name)
        if name in _PLANS:
            from multistep.core.values import plan

            return getattr(plan, name)
        if name in __all__:
            from multistep import api

            return getattr(api, name)
        raise AttributeError(f"module 'multistep' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING", "annotations"})
