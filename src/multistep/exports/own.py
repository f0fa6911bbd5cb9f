"""A module of the user's own as a graph: its inputs are known by examples that are given, and have to be tensors."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multistep.core.values.tasks import OWN_MODEL
from multistep.errors import DataError, PlanError
from multistep.exports.graph import Batch, Graph
from multistep.tasks.calibrated import Calibrated
from multistep.tasks.folders import read_task
from multistep.tasks.own.found import module_for
from multistep.tasks.own.layout import Shape, flatten, rebuild
from multistep.tasks.own.model import fill
from multistep.tasks.own.predict import Call, as_split
from multistep.tasks.own.randomness import as_at
from multistep.tasks.own.use import WEIGHTS

CPU = torch.device("cpu")
DATA = "data"  # what messages call the examples
SEVERAL = 5  # examples of the largest batch


def module_graph(folder: str, data: Any, module: nn.Module | None) -> Graph:
    """The graph of a module with the weights of a model folder; `data` are inputs as `multistep.predict` takes them.

    Raises PlanError where the module or its inputs are not at hand, DataError for inputs that it does not take.
    """
    if data is None or isinstance(data, str):
        raise PlanError(
            f"{folder}: a module of your own, whose inputs are known by examples alone; export it in Python: "
            'multistep.export(RUN, FOLDER, to="onnx", data=INPUTS), with inputs as multistep.predict takes them'
        )
    filled = copy.deepcopy(module_for(Path(folder), module, "export"))
    fill(filled, Path(folder) / WEIGHTS)
    filled.to(CPU).eval()
    call = Call.read(Path(folder), filled)
    split = as_split(data, call)
    if not (many := len(split)):
        raise DataError(f"{DATA}: holds no example")
    places = ([0, many - 1], [0], [many - 1], list(range(min(many, SEVERAL))))
    read = [_batch(call, split, some) for some in places]
    shape, keys = read[0][:2]
    batches = [tensors for *_, tensors in read]
    graph = _ByPlace(filled, shape, named=bool(keys))
    with torch.inference_mode():
        outputs = _named(graph.said(*batches[0]))
    about, settled = read_task(folder), Calibrated.read(folder)
    known: dict[str, Any] = {key: about[key] for key in ("kind", "classes", "class") if key in about}
    return Graph(
        graph,
        dict(zip(names := _names(keys, len(batches[0])), _axes(batches, names), strict=True)),
        outputs,
        batches,
        {"task": OWN_MODEL, **known, "temperature": settled.temperature, "threshold": settled.cut},
    )


def _batch(call: Call, split: Any, places: Sequence[int]) -> tuple[Shape, tuple[str, ...], Batch]:
    """Some examples as what the module is called with: their nesting, its keywords if there are any, the tensors."""
    with as_at(2, 0):
        given, named = call.arguments(split.read(np.array(places)), CPU)
    shape, tensors = flatten(dict(named) if named else tuple(given), DATA)
    return shape, tuple(named), tuple(tensors)


def _names(keys: Sequence[str], many: int) -> list[str]:
    if len(keys) == many:
        return list(keys)
    return ["input"] if many == 1 else [f"input_{i}" for i in range(many)]


def _named(said: Any) -> tuple[str, ...]:
    """Names of the tensors in what a module says: its own where it has given them such."""
    if isinstance(said, Mapping) and all(isinstance(each, Tensor) for each in said.values()):
        return tuple(map(str, said))
    many = len(flatten(said, "the output")[1])
    return tuple("output" if many == 1 else f"output_{i}" for i in range(many))


def _axes(batches: Sequence[Batch], names: Sequence[str]) -> list[dict[int, str]]:
    """Of each input the dimensions that may have any size: that of the examples, and those that differ among them."""
    found = []
    for number, name in enumerate(names):
        shapes = [tuple(batch[number].shape) for batch in batches]
        if len({len(shape) for shape in shapes}) > 1 or not shapes[0]:
            raise DataError(
                f"{DATA}: '{name}' has the shapes {', '.join(map(str, shapes))} in batches of several sizes; a graph "
                "needs as many dimensions in each, the first of them the examples"
            )
        vary = [axis for axis in range(1, len(shapes[0])) if len({shape[axis] for shape in shapes}) > 1]
        found.append({0: "batch", **{axis: f"{name}_{axis}" for axis in vary}})
    return found


class _ByPlace(nn.Module):
    """The module, called with tensors one behind the other; what it gives as a tuple of tensors."""

    def __init__(self, module: nn.Module, shape: Shape, *, named: bool) -> None:
        super().__init__()
        self.module = module
        self._shape, self._named = shape, named

    def said(self, *tensors: Tensor) -> Any:
        given = rebuild(self._shape, iter(tensors))
        return self.module(**given) if self._named else self.module(*given)

    def forward(self, *tensors: Tensor) -> Batch:
        return tuple(flatten(self.said(*tensors), "the output")[1])
