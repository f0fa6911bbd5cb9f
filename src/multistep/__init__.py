"""multistep: train in measured phases, keep only what the evaluation proves."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multistep.api import Result, resume, train

__all__ = ["Result", "__version__", "resume", "train"]

try:
    __version__ = version("multistep")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0"


def __getattr__(name: str) -> Any:
    # Imported on use, so that `multistep --help` answers at once.
    if name in ("Result", "resume", "train"):
        from multistep import api

        return getattr(api, name)
    raise AttributeError(f"module 'multistep' has no attribute '{name}'")
