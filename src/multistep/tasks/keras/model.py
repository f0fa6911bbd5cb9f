"""The user's Keras model: used as it is and given back as it was; its first weights, its dropout, its compilation."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save

from multistep.backends.keras import optimizers
from multistep.backends.keras.domain import Array
from multistep.backends.keras.layers import all_layers, dropouts
from multistep.backends.keras.variables import array, assign, kept, named, values_in
from multistep.core.values.recipe import OptimizerName, Setting
from multistep.errors import PlanError, RunDirectoryError
from multistep.tasks.own.code import is_own

NAMELESS = ("name", "registered_name", "seed", "build_config", "compile_config", "module", "shared_object_id")
METRICS: Mapping[str, str] = {  # of Keras, by ours
    "acc": "accuracy",
    "accuracy": "accuracy",
    "sparse_categorical_accuracy": "accuracy",
    "categorical_accuracy": "accuracy",
    "binary_accuracy": "accuracy",
    "auc": "roc_auc",
    "mae": "mean_absolute_error",
    "mean_absolute_error": "mean_absolute_error",
    "root_mean_squared_error": "root_mean_squared_error",
    "mse": "mean_squared_error",
    "mean_squared_error": "mean_squared_error",
}


class KerasModel:
    """A model of Keras 3. Raises PlanError for one that cannot be trained here."""

    def __init__(self, given: Any) -> None:
        self.given = given
        _require_ours(given)

    @property
    def name(self) -> str:
        return type(self.given).__name__

    def build(self, inputs: Any, seed: int) -> None:
        """Have the model make its weights in a first call, where it has not, and keep them as they are now."""
        import keras

        try:
            outputs = self.given(keras.tree.map_structure(keras.ops.convert_to_tensor, inputs), training=False)
        except Exception as error:
            shapes = [f"{each.dtype} {each.shape}" for each in keras.tree.flatten(inputs)]
            raise PlanError(
                f"the model {self.name} cannot be called with a batch of train, {', '.join(shapes)} "
                f"({_first_line(error)}); inputs come as (inputs, targets), several of them as a tuple or by name"
            ) from error
        if not self.given.trainable_variables:
            raise PlanError(f"the model {self.name} has no variable that is trained")
        self.outputs = outputs
        self.first = [array(variable) for variable in kept(self.given)]

    @property
    def parameters(self) -> int:
        return sum(value.size for value in self.first)

    def first_names(self) -> dict[str, Array]:
        return named("", kept(self.given), self.first)

    def weights_hash(self) -> str:
        """A hash of the first weights."""
        return hashlib.blake2b(save(self.first_names()), digest_size=8).hexdigest()

    def write_start(self, path: Path) -> None:
        """Keep the first weights: code that is run again may draw others."""
        beside = path.with_suffix(".new")
        beside.write_bytes(save(self.first_names()))
        beside.replace(path)

    def read_start(self, path: Path) -> None:
        """Begin from the weights that `write_start` kept. Raises RunDirectoryError if the model has changed."""
        try:
            self.first = values_in(load_file(path), "", kept(self.given), str(path))
        except PlanError as error:
            raise RunDirectoryError(
                f"{path.parent}: holds a run of another model ({error}); name another out="
            ) from error
        assign(kept(self.given), self.first)

    @contextmanager
    def given_back(self) -> Iterator[None]:
        """Afterwards the user's model is as it was: its weights and its layers' dropout."""
        variables = list(self.given.variables)
        before, shares = [array(variable) for variable in variables], self._shares
        try:
            yield
        finally:
            assign(variables, before)
            for layer, share in shares:
                layer.rate = share

    @functools.cached_property
    def _shares(self) -> list[tuple[Any, float]]:
        return [(layer, float(layer.rate)) for layer in dropouts(self.given)]

    @property
    def dropout(self) -> float | None:
        """The largest share of dropout among its layers; None if it has none that could drop."""
        return max((share for _, share in self._shares), default=None)

    def set_dropout(self, dropout: float) -> None:
        """Give the layers this share of dropout; where they have several, the largest, and the rest in proportion."""
        own = self.dropout
        for layer, share in self._shares:
            layer.rate = dropout * (share / own if own else 1.0)

    def digest(self) -> list[object]:
        """What tells this model from others, whatever numbers Keras gave to its layers' names."""
        found: list[object] = []
        for layer in all_layers(self.given):
            try:
                config = json.dumps(_without_names(layer.get_config()), sort_keys=True, default=str)
            except Exception:  # a layer of the user's that has none is told by its class alone
                config = ""
            found += [type(layer) if is_own(type(layer).__module__) else type(layer).__qualname__, config]
        return [*found, [tuple(variable.shape) for variable in self.given.variables]]

    # Of the compilation -----------------------------------------------------------------------------

    @property
    def compiled(self) -> bool:
        return bool(getattr(self.given, "compiled", False))

    @property
    def compiled_loss(self) -> tuple[Any, Any]:
        """The loss and the outputs' weights that it was compiled with."""
        if not self.compiled:
            return None, None
        config = getattr(self.given, "_compile_loss", None)
        return self.given.loss, getattr(config, "_user_loss_weights", None)

    def compiled_recipe(self) -> tuple[dict[str, Setting], list[str]]:
        """The settings of the optimizer that it was compiled with, and what is to be said of it."""
        optimizer = getattr(self.given, "optimizer", None) if self.compiled else None
        if optimizer is None:
            return {}, []
        kind = type(optimizer).__name__
        names = {class_name: name for name, class_name in optimizers.CLASSES.items()}
        name: OptimizerName | None = names.get(kind)
        if name is None:
            told = f"compiled with {kind}, which is none of {', '.join(optimizers.CLASSES.values())}: AdamW trains"
            return {}, [told]
        found: dict[str, Setting] = {"optimizer": name}
        rate, plain = _rate(optimizer), _rate(type(optimizer)())
        if rate != plain:  # what is as it is by default, nobody chose
            found["learning_rate"] = rate
        if decay := getattr(optimizer, "weight_decay", None):
            found["weight_decay"] = float(decay)
        if clip := getattr(optimizer, "global_clipnorm", None) or getattr(optimizer, "clipnorm", None):
            found["gradient_clip"] = float(clip)
        if name == "sgd":
            found |= {"momentum": float(optimizer.momentum), "nesterov": bool(optimizer.nesterov)}
        told = f"compiled with {kind}: the run begins with it"
        return found, [told + (f" at a rate of {rate:g}" if "learning_rate" in found else "")]

    def compiled_metric(self, metrics: tuple[str, ...]) -> tuple[str | None, list[str]]:
        """The first of the compiled metrics that can decide here, and what is to be said of the others."""
        given = getattr(getattr(self.given, "_compile_metrics", None), "_user_metrics", None) if self.compiled else None
        flat = list(given.values()) if isinstance(given, Mapping) else list(given or [])
        named_ = [_metric_name(each) for each in flat]
        found = next((METRICS[name] for name in named_ if METRICS.get(name) in metrics), None)
        unknown = [name for name in named_ if METRICS.get(name) not in metrics]
        told = [f"compiled metrics that are not used: {', '.join(unknown)}"] if unknown else []
        return found, told


def _require_ours(model: Any) -> None:
    import keras

    own = type(model)
    policy = getattr(model.dtype_policy, "name", "")
    if policy == "mixed_float16":
        raise PlanError("the model computes in mixed_float16, which is not scaled here; take mixed_bfloat16")
    for method, told in (("train_step", "train_step is"), ("test_step", "test_step is")):
        if getattr(own, method) is not getattr(keras.Model, method):
            raise PlanError(
                f"model: {own.__name__}.{told} not called here, since the steps of a run are multistep's own; give "
                "loss=a function (targets, outputs) -> losses, or add_loss in call, and leave the method out"
            )
    if own.compute_loss is not keras.Model.compute_loss:
        raise PlanError(
            f"model: {own.__name__}.compute_loss is not called here; give loss=a function (targets, outputs) -> losses"
        )


def _rate(optimizer: Any) -> float:
    schedule = optimizer._learning_rate
    rate = float(getattr(schedule, "initial_learning_rate", None) or optimizer.learning_rate)
    return float(f"{rate:.6g}")  # Keras keeps it in single precision


def _metric_name(metric: Any) -> str:
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", None) or type(metric).__name__
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in str(name)).lstrip("_")
    return {"a_u_c": "auc", "a_u_c_": "auc"}.get(snake, snake.rstrip("_0123456789"))


def _without_names(value: Any) -> Any:
    if isinstance(value, Mapping):
        kind = value.get("class_name")
        if kind == "__keras_tensor__":
            return kind
        return {str(key): _without_names(part) for key, part in value.items() if key not in NAMELESS}
    if isinstance(value, list | tuple):
        return [_without_names(part) for part in value]
    return value if isinstance(value, str | int | float | bool | None) else str(type(value))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
