"""What a written graph says beside what torch says, and what lies beside the graph to use it by."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistep.errors import PlanError
from multistep.exports.graph import Batch, Graph
from multistep.exports.order import Order

TOLERANCE = 1e-4  # of a value, or of one of 1
ABOUT, SCRIPT = "pipeline.json", "run.py"


def require(packages: Sequence[str], what: str, extra: str) -> None:
    """Raises PlanError that names the extra where one of the packages is not installed."""
    for name in packages:
        try:
            import_module(name)
        except ImportError as error:
            raise PlanError(f"exporting to {what} needs {name} ({error}); pip install '{extra}'") from None


def name_of(graph: Graph) -> str:
    """What messages call the network."""
    return type(getattr(graph.module, "module", graph.module)).__name__


def agreement(graph: Graph, run: Callable[[Batch], Sequence[NDArray[Any]]], kind: str) -> float:
    """The largest difference between torch and what `run` gives. Raises PlanError where it is more than TOLERANCE."""
    largest = 0.0
    for batch in graph.batches:
        with torch.inference_mode():
            said = graph.module(*batch)
        wanted = [tensor.numpy() for tensor in ((said,) if isinstance(said, Tensor) else said)]
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in batch)
        try:
            given = run(batch)
        except Exception as error:  # of runtimes, whose kinds have no common parent
            raise PlanError(
                f"the {kind} graph of {name_of(graph)} does not run for inputs of shape {shapes}, so nothing was "
                f"written ({str(error).strip().splitlines()[0][:200]})"
            ) from error
        for name, own, other in zip(graph.outputs, wanted, given, strict=True):
            apart = np.inf if own.shape != other.shape else _apart(own, other)
            largest = max(largest, apart)
            if not apart <= TOLERANCE:  # nor where it is not a number
                raise PlanError(
                    f"the {kind} graph does not say what torch says: '{name}' differs by {apart:.2g} for inputs of "
                    f"shape {shapes}, where {TOLERANCE:g} is allowed; nothing was written. Please report it with the "
                    "model's architecture"
                )
    return largest


def _apart(own: NDArray[Any], other: NDArray[Any]) -> float:
    if not own.size:
        return 0.0
    return float((np.abs(own.astype(np.float64) - other) / np.maximum(1.0, np.abs(own))).max())


def describe(graph: Graph, order: Order, folder: Path, said: Mapping[str, Any], packages: Sequence[str]) -> None:
    """Write what inputs are read and answers told by: files of the model folder, the script, and pipeline.json."""
    for name in graph.files:
        shutil.copyfile(Path(order.model) / name, folder / name)
    if graph.script is not None:
        shutil.copyfile(Path(__file__).with_name("scripts") / graph.script, folder / SCRIPT)
    versions = {name: str(import_module(name).__version__) for name in ("multistep", "torch", *packages)}
    inputs = {name: {str(k): axis for k, axis in axes.items()} for name, axes in graph.inputs.items()}
    about = {"inputs": inputs, "outputs": list(graph.outputs), **graph.about, **said, "versions": versions}
    (folder / ABOUT).write_text(json.dumps(about, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
