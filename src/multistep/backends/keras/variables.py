"""The variables of a Keras model: which are kept, and how they are read, set and written."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from multistep.backends.keras.domain import Array
from multistep.errors import PlanError

STATE, COUNTERS = "state.safetensors", "state.json"  # of a checkpoint
SEED = "seed_generator_state"
SLOTS = "optimizer."  # what names of an optimizer's variables begin with


def kept(model: Any) -> list[Any]:
    """All variables of a model but the states of its seed generators, which follow from the step."""
    return [variable for variable in model.variables if variable.name != SEED]


def seed_states(model: Any) -> list[Any]:
    """The states of all seed generators in the model's layers."""
    return [variable for variable in model.variables if variable.name == SEED]


def trained(model: Any, frozen: Sequence[str]) -> list[Any]:
    """The trainable variables but for those whose path matches one of the glob patterns.

    Raises PlanError for a pattern that matches none, or if none is left.
    """
    paths = [variable.path for variable in model.trainable_variables]
    for pattern in frozen:
        if not fnmatch.filter(paths, pattern):
            raise PlanError(
                f"recipe.frozen: no variable matches '{pattern}'; the model has {', '.join(paths[:5])}, ..."
            )
    found = [v for v in model.trainable_variables if not any(fnmatch.fnmatch(v.path, pattern) for pattern in frozen)]
    if not found:
        raise PlanError("recipe.frozen: every variable is frozen; leave some to train")
    return found


def array(variable: Any) -> Array:
    """A variable's value on the host."""
    import keras

    return np.asarray(keras.ops.convert_to_numpy(variable))


def named(prefix: str, variables: Sequence[Any], values: Sequence[Array] | None = None) -> dict[str, Array]:
    """Values by names that hold in every process: Keras numbers its layers anew in each."""
    found = [array(variable) for variable in variables] if values is None else values
    return {
        _key(prefix, i, variable): np.asarray(value, order="C")
        for i, (variable, value) in enumerate(zip(variables, found, strict=True))
    }


def _key(prefix: str, number: int, variable: Any) -> str:
    """A variable's place and name; of an optimizer's the last word, since before it stands a layer's name."""
    return f"{prefix}{number:04d}.{variable.name.rpartition('_')[2] if prefix == SLOTS else variable.name}"


def values_in(tensors: Mapping[str, Array], prefix: str, variables: Sequence[Any], where: str) -> list[Array]:
    """What `named` made names of. Raises PlanError where these are another model's."""
    found = []
    for i, variable in enumerate(variables):
        value = tensors.get(_key(prefix, i, variable))
        if value is None or value.shape != tuple(variable.shape):
            told = "missing" if value is None else f"of shape {value.shape}"
            raise PlanError(f"{where}: {variable.path} of shape {tuple(variable.shape)} is {told} there: another model")
        found.append(value)
    return found


def assign(variables: Sequence[Any], values: Sequence[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


@contextmanager
def restored(variables: Sequence[Any]) -> Iterator[None]:
    """Within, the variables may be set; afterwards they are as before."""
    import keras

    before = [keras.ops.stop_gradient(keras.ops.copy(variable.value)) for variable in variables]
    try:
        yield
    finally:
        assign(variables, before)


def write(folder: Path, tensors: Mapping[str, Array], counters: Mapping[str, Any]) -> None:
    (folder / COUNTERS).write_text(json.dumps(counters), encoding="utf-8")
    save_file(dict(tensors), folder / STATE)


def read(folder: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    return load_file(folder / STATE), json.loads((folder / COUNTERS).read_text(encoding="utf-8"))


def mean_of(folders: Sequence[Path], prefix: str) -> dict[str, Array]:
    """The uniform mean of what has this prefix, summed in float64; of whole numbers the last folder's."""
    total: dict[str, Array] = {}
    for folder in folders:
        for name, value in load_file(folder / STATE).items():
            if name.startswith(prefix):
                floats = np.issubdtype(value.dtype, np.floating)
                total[name] = value.astype(np.float64) + total.get(name, 0.0) if floats else value
    return {
        name: (value / len(folders)).astype(np.float32) if value.dtype == np.float64 else value
        for name, value in total.items()
    }
