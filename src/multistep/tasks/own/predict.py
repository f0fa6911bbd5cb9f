"""What a finished module says of inputs: in any form in which `train` takes them, with or without their targets."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from multistep.backends.torch.devices import pick_device
from multistep.errors import DataError
from multistep.tasks.calibrated import Calibrated
from multistep.tasks.folders import read_task
from multistep.tasks.inputs import is_frame, with_columns
from multistep.tasks.own.data import Split, split_of
from multistep.tasks.own.found import module_for
from multistep.tasks.own.layout import TARGET_KEYS, Types, flatten, rebuild, tidy
from multistep.tasks.own.loaders import split_given
from multistep.tasks.own.model import fill
from multistep.tasks.own.randomness import as_at
from multistep.tasks.own.reading import main_tensor
from multistep.tasks.own.use import WEIGHTS
from multistep.tasks.prediction import Asked, Prediction

NAME = "inputs"
AT_ONCE = 256  # examples
CLASSES = ("classes", "shares", "yes-no")


def outputs(folder: Path, inputs: Any, *, model: nn.Module | None = None, batch_size: int | None = None) -> Tensor:
    """The module's outputs with the weights of a model folder, on the CPU, a row an input.

    `inputs` are tensors or arrays with a row an example, several of them as a tuple, or by name as a dict; a DataFrame;
    a data set, list or loader of inputs, or of what `train` took, whose targets are left out. Raises PlanError where
    code is missing or the weights do not fit, DataError for inputs or outputs that are not of that kind.
    """
    module = copy.deepcopy(module_for(folder, model, "predict"))
    fill(module, folder / WEIGHTS)
    device = pick_device()
    module.to(device).eval()
    called = Call.read(folder, module)
    split = as_split(inputs, called)
    if not len(split):
        raise DataError(f"{NAME}: holds no example")
    size, found = batch_size or split.batch_size or AT_ONCE, []
    with torch.inference_mode():
        for start in range(0, len(split), size):
            places = np.arange(start, min(start + size, len(split)))
            with as_at(2, start):  # as the test split is read
                given, named = called.arguments(split.read(places), device)
            said = main_tensor(called.say(module, given, named))
            if said is None or len(said) != len(places):
                told = "no tensor" if said is None else f"{len(said)} rows for {len(places)} inputs"
                raise DataError(
                    f"predict: the module {type(module).__name__} gives {told}; call result.load() and the module "
                    "yourself"
                )
            found.append(said.float().cpu())
    return torch.cat(found).clone()


def predict_module(folder: Path, inputs: Any, asked: Asked, *, model: nn.Module | None = None) -> Any:
    """What a run's module says of inputs, in the terms of its task.

    Of classes and labels a list of `Prediction`; of numbers a tensor in the unit of the targets (shape: inputs, or
    inputs and numbers); of anything else the outputs as they are. Of a DataFrame the frame with more columns. Raises
    PlanError and DataError as `outputs` does.
    """
    about = read_task(str(folder))
    said = outputs(folder, inputs, model=model, batch_size=asked.batch_size)
    return in_terms(folder, said, inputs, about, asked)


def in_terms(folder: Path, said: Tensor, inputs: Any, about: Mapping[str, Any], asked: Asked) -> Any:
    """Outputs of a model, a row an input, in the terms of its task, which `about` tells of as `predict_module` says."""
    kind = str(about.get("kind", "other"))
    if kind == "number":
        said = said.reshape(len(said))
    if kind in (*CLASSES, "labels"):
        found = _predictions(folder, said, about, asked)
        if not is_frame(inputs):
            return found
        return with_columns(
            inputs,
            _untaken(
                {"prediction": [each.output for each in found], "probability": [each.probability for each in found]},
                inputs,
            ),
        )
    if not is_frame(inputs):
        return said
    if said.ndim == 1:
        return with_columns(inputs, _untaken({"prediction": said.tolist()}, inputs))
    if said.ndim == 2:
        columns = {f"prediction_{k}": column.tolist() for k, column in enumerate(said.unbind(1))}
        return with_columns(inputs, _untaken(columns, inputs))
    raise DataError(f"{NAME}: an output of shape {tuple(said.shape[1:])} is no cell of a table; give arrays")


def _untaken(columns: Mapping[str, list[Any]], frame: Any) -> dict[str, list[Any]]:
    taken = {str(name) for name in frame.columns}
    return {name + "_" * (name in taken): values for name, values in columns.items()}


def _predictions(folder: Path, said: Tensor, about: Mapping[str, Any], asked: Asked) -> list[Prediction]:
    """Classes with their probabilities, calibrated as the run found them to be."""
    settled = Calibrated.read(str(folder), asked.threshold)
    kind, given = about["kind"], said.double()
    logits = about.get("logits", about.get("loss") != "BCELoss")
    if kind == "labels":
        return _labels(settled.of_several((given.sigmoid() if logits else given).numpy()), settled.cut, asked)
    if kind == "yes-no":
        odds_N = given.reshape(len(given))
        odds_N = odds_N if logits else odds_N.clamp(1e-12, 1 - 1e-12).logit()
        given = torch.stack((nn.functional.logsigmoid(-odds_N), nn.functional.logsigmoid(odds_N)), 1)
    shares_NK = settled.probabilities(given.numpy())
    names = list(map(str, about.get("classes") or range(shares_NK.shape[1])))
    found = []
    for number, shares_K in enumerate(shares_NK):
        k = settled.likeliest(shares_K)
        likely = np.argsort(-shares_K, kind="stable")[: asked.told]
        others = {names[i]: float(shares_K[i]) for i in likely}
        found.append(Prediction(f"input {number}", names[k], float(shares_K[k]), others))
    return found


def _labels(shares_NK: Any, cut: float, asked: Asked) -> list[Prediction]:
    found = []
    for number, shares_K in enumerate(shares_NK):
        likely = list(np.argsort(-shares_K, kind="stable"))
        chosen = sorted(int(k) for k in likely if shares_K[k] > cut)
        others = {str(k): float(shares_K[k]) for k in likely[: max(asked.told, len(chosen))]}
        # Of the whole answer, as if the labels had nothing to do with each other.
        sure = float(np.prod(np.where(shares_K > cut, shares_K, 1.0 - shares_K)))
        found.append(Prediction(f"input {number}", ",".join(map(str, chosen)), sure, others))
    return found


# How the module is called ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """How a module is called: with `parts` inputs by place, or with those named `keys` (neither: not known).

    `columns` are those of the table that its inputs came as in training, `target` the key of the target. `floats` tells
    of each of the inputs' tensors whether training had numbers with a fraction, `optional` are arguments that the
    module can do without.
    """

    keys: tuple[str, ...]
    parts: int
    columns: tuple[str, ...]
    target: str | None
    floats: tuple[bool, ...]
    types: Types
    optional: frozenset[str]

    @classmethod
    def read(cls, folder: Path, module: nn.Module) -> Call:
        layout = read_task(str(folder)).get("layout") or {}
        double = any(p.dtype == torch.float64 for p in module.parameters())
        keys, columns, floats = (tuple(layout.get(key) or ()) for key in ("keys", "columns", "floats"))
        parts, target = int(layout.get("parts") or 0), layout.get("target")
        arguments = inspect.signature(module.forward).parameters.values()
        optional = frozenset(each.name for each in arguments if each.default is not each.empty)
        return cls(keys, parts, columns, target, floats, Types(double, torch.long), optional)

    def arguments(self, batch: Any, device: torch.device) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A batch as what the module is called with."""
        if isinstance(batch, Mapping):
            wanted = self.keys or [key for key in batch if key not in TARGET_KEYS and key != self.target]
            if missing := [key for key in wanted if key not in batch and key not in self.optional]:
                raise DataError(f"{NAME}: {missing[0]!r} is missing; the model takes {', '.join(wanted)}")
            return (), self._ready({key: batch[key] for key in wanted if key in batch}, device)
        given = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
        parts = len(self.keys) or self.parts
        if parts and len(given) == parts + 1:
            given = given[:-1]  # the target
        if parts and len(given) != parts:
            named = f" ({', '.join(self.keys)})" if self.keys else ""
            raise DataError(f"{NAME}: {len(given)} parts an example, but the model takes {parts}{named}")
        if self.keys:
            return (), self._ready(dict(zip(self.keys, given, strict=True)), device)
        return self._ready(given, device), {}

    def say(self, module: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        try:
            return module(*given, **named)
        except Exception as error:
            parts = [f"{tuple(t.shape)}" for t in flatten((*given, *named.values()), NAME)[1]]
            names = f" named {', '.join(named)}" if named else ""
            raise DataError(
                f"{NAME}: the module {type(module).__name__} cannot be called with a batch of them, "
                f"{', '.join(parts)}{names} ({type(error).__name__}: {error}); give a row an example"
            ) from error

    def _ready(self, given: Any, device: torch.device) -> Any:
        """On the device, in the types that the module was trained with."""
        shape, tensors = flatten(given, NAME)
        floats = self.floats if len(self.floats) == len(tensors) else (False,) * len(tensors)
        types = [self.types.with_float_inputs() if wanted else self.types for wanted in floats]
        ready = [tidy(tensor, each).to(device) for tensor, each in zip(tensors, types, strict=True)]
        return rebuild(shape, iter(ready))


def as_split(inputs: Any, called: Call) -> Split:
    """Inputs in whatever form as a split that is read by index."""
    if isinstance(inputs, DataLoader):
        return replace(split_given(NAME, inputs), notes=())
    if is_frame(inputs):
        return _of_frame(inputs, called)
    if isinstance(inputs, Tensor) or (hasattr(inputs, "__array__") and hasattr(inputs, "shape")):
        return _of_array(inputs, called)
    if isinstance(inputs, Mapping) and called.columns and not called.keys:  # columns of the table that it was given as
        if missing := [name for name in called.columns if name not in inputs]:
            raise DataError(f"{NAME}: has no column {missing[0]!r}; there are {', '.join(map(str, inputs))}")
        return _of_array(np.stack([_rows(inputs[name]).astype(np.float64) for name in called.columns], 1), called)
    if isinstance(inputs, Mapping):
        columns = {key: value for key, value in inputs.items() if not called.keys or key in called.keys}
        if not columns:
            raise DataError(f"{NAME}: has {', '.join(map(str, inputs))}; the model takes {', '.join(called.keys)}")
        return split_of(NAME, {key: _rows(value) for key, value in columns.items()})
    if isinstance(inputs, tuple) and len(inputs) > 1 and all(_has_rows(part) for part in inputs):
        return split_of(NAME, inputs)
    if isinstance(inputs, TensorDataset):
        return split_of(NAME, inputs)
    if not hasattr(inputs, "__getitem__"):
        inputs = list(inputs) if hasattr(inputs, "__iter__") else [inputs]
    if isinstance(inputs, list | tuple) and inputs and all(_is_row(item) for item in inputs):
        return _of_array(torch.stack([torch.as_tensor(item) for item in inputs]), called)
    return split_of(NAME, inputs)


def _of_array(array: Any, called: Call) -> Split:
    tensor = array.detach() if isinstance(array, Tensor) else torch.from_numpy(np.array(array))
    if not tensor.ndim:
        raise DataError(f"{NAME}: is a single number; give a row an example")
    return Split(NAME, whole={called.keys[0]: tensor} if len(called.keys) == 1 else (tensor,))


def _of_frame(frame: Any, called: Call) -> Split:
    """The columns by the names of the module's arguments, or those that it was trained on side by side."""
    names = list(map(str, frame.columns))
    wanted = called.keys or called.columns
    if missing := [name for name in wanted if name not in names]:
        raise DataError(f"{NAME}: the DataFrame has no column {missing[0]!r}; there are {', '.join(names)}")
    if called.keys:
        return split_of(NAME, {name: _rows(frame[name]) for name in called.keys})
    chosen = frame[list(called.columns)] if called.columns else frame
    array = np.asarray(chosen.to_numpy() if hasattr(chosen, "to_numpy") else chosen)
    try:
        return Split(
            NAME, whole=(torch.from_numpy(np.array(array, dtype=np.float64 if array.dtype == object else None)),)
        )
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{NAME}: the DataFrame's columns are no numbers ({error}); give those that the model takes"
        ) from error


def _rows(value: Any) -> Any:
    """A column as an array; lists of numbers too."""
    return value if isinstance(value, Tensor) else np.asarray(value)


def _has_rows(part: Any) -> bool:
    return (isinstance(part, Tensor) or hasattr(part, "__array__")) and len(np.shape(part)) > 0


def _is_row(item: Any) -> bool:
    """Whether an item is one input as numbers: an array, or a list of numbers."""
    if isinstance(item, list) and item:
        return all(isinstance(number, int | float) for number in item)
    return isinstance(item, Tensor | np.ndarray)
