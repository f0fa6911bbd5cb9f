"""What is left of a run of a Keras model: a .keras file, a SavedModel, and how they are asked."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multistep.backends.keras.layers import all_layers
from multistep.backends.keras.variables import kept, named
from multistep.core.values.tasks import OWN_MODEL
from multistep.errors import PlanError
from multistep.tasks.folders import read_task, write_task
from multistep.tasks.keras.data import Array, leaves, mapped, of_inputs
from multistep.tasks.own.code import is_own
from multistep.tasks.own.predict import in_terms
from multistep.tasks.prediction import Asked

FILE, SAVED_MODEL, WEIGHTS = "model.keras", "saved_model", "model.weights.h5"
CLOSE = 1e-4  # of an output of the model that is read back, beside 1
AT_ONCE = 256
USAGE = """import keras
model = keras.saving.load_model({model} + "/model.keras")  # custom_objects=... for layers of your own
model.summary()"""
_log = logging.getLogger("multistep")


def write_model(model: Any, folder: Path, card: str, content: Mapping[str, Any], inputs: Any) -> str:
    """Write the model folder; return the SHA-256 of the weights, in the order of the model's variables.

    Each form is read back and asked about `inputs`; one that cannot be written, or says something else, is left out and
    said. Raises PlanError where not even the weights can be written.
    """
    import keras

    expected = mapped(_host, model(mapped(keras.ops.convert_to_tensor, inputs), training=False))
    forms: list[str] = []
    if _form(folder / FILE, lambda path: _write_keras(model, path, inputs, expected)):
        forms.append(f"`{FILE}`, as `keras.saving.load_model` reads it")
    else:
        try:
            model.save_weights(folder / WEIGHTS)
        except Exception as error:
            raise PlanError(f"the model's weights cannot be written ({_first_line(error)})") from error
        forms.append(f"`{WEIGHTS}`, for `load_weights` of a model made by your own code")
    if keras.backend.backend() == "tensorflow" and _form(
        folder / SAVED_MODEL, lambda path: _write_saved_model(model, path, inputs, expected)
    ):
        forms.append(f"`{SAVED_MODEL}/`, for TensorFlow Serving and LiteRT")
    write_task(folder, OWN_MODEL, content)
    (folder / "README.md").write_text(f"{card}\n## Model\n{'; '.join(forms)}.\n", encoding="utf-8")
    digest = hashlib.sha256()
    for name, value in named("", kept(model)).items():
        digest.update(f"{name}{value.dtype}{value.shape}".encode() + value.tobytes())
    return digest.hexdigest()


def _form(path: Path, write: Any) -> bool:
    """Whether a form was written; else nothing is left of it, and the reason is told."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            write(path)
    except Exception as error:  # whatever Keras says to a model that it cannot serialise
        _log.warning(f"{path.name} is not written: {_first_line(error)}")
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        return False
    return True


def _write_keras(model: Any, path: Path, inputs: Any, expected: Any) -> None:
    import keras

    model.save(path)
    again = keras.saving.load_model(path, custom_objects=custom_objects(model), compile=False)
    _require_same(mapped(_host, again(mapped(keras.ops.convert_to_tensor, inputs), training=False)), expected)


def _write_saved_model(model: Any, path: Path, inputs: Any, expected: Any) -> None:
    import tensorflow as tf

    model.export(path, format="tf_saved_model", verbose=False)
    again = tf.saved_model.load(str(path))
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    try:
        found = again.serve(mapped(tf.convert_to_tensor, inputs))
    except (TypeError, ValueError):  # of several inputs by place
        found = again.serve(*mapped(tf.convert_to_tensor, given))
    _require_same(mapped(_host, found), expected)


def _require_same(found: Any, expected: Any) -> None:
    for one, other in zip(leaves(found), leaves(expected), strict=True):
        if not np.allclose(one, other, rtol=CLOSE, atol=CLOSE):
            raise ValueError(f"read back, its outputs differ by {float(np.abs(one - other).max()):.2g}")


def custom_objects(model: Any) -> dict[str, type]:
    """The classes of the user's own that a model is made of, by name."""
    return {type(layer).__name__: type(layer) for layer in all_layers(model) if is_own(type(layer).__module__)}


# Asking -----------------------------------------------------------------------------------------------


def load(folder: Path, model: Any = None) -> Any:
    """The trained model: read from its file, or its weights put into `model`, which is returned. Raises PlanError."""
    import keras

    if model is not None:
        if not isinstance(model, keras.Model):
            raise PlanError(
                f"load: model is a {type(model).__name__}; allowed: a keras.Model of the class that was trained"
            )
        trained = load(folder) if (folder / FILE).is_file() else None
        try:
            if trained is None:
                model.load_weights(folder / WEIGHTS)
            else:
                model.set_weights(trained.get_weights())
        except ValueError as error:
            raise PlanError(
                f"{folder}: the weights do not fit {type(model).__name__} ({_first_line(error)})"
            ) from error
        return model
    if not (folder / FILE).is_file():
        raise PlanError(
            f"{folder}: holds weights alone, since the model could not be serialised; give a built model of the class "
            "that was trained: load(MyModel(...))"
        )
    known = _remembered(folder)
    try:
        return keras.saving.load_model(folder / FILE, custom_objects=known, compile=False)
    except Exception as error:
        raise PlanError(
            f"{folder / FILE}: cannot be read ({_first_line(error)}); it was written by Keras; classes of your own "
            "must be registered (@keras.saving.register_keras_serializable()), or give a model: load(MyModel(...))"
        ) from error


_classes: dict[Path, dict[str, type]] = {}


def remember(run: Path, model: Any) -> None:
    """Have the user's classes at hand for whoever uses that run in this process."""
    _classes[run.resolve()] = custom_objects(model)


def _remembered(folder: Path) -> dict[str, type]:
    return _classes.get(folder.resolve().parent, {})


def outputs(folder: Path, inputs: Any, *, model: Any = None, batch_size: int | None = None) -> Array:
    """The trained model's outputs, as they are, a row an input. Raises PlanError or DataError.

    `inputs` are arrays with a row an example, several as a tuple, or by name as a dict.
    """

    network = load(folder, model)
    given = of_inputs(inputs)
    size, count = batch_size or AT_ONCE, len(leaves(given)[0])
    found = []
    for start in range(0, count, size):
        cut = slice(start, start + size)
        part = mapped(functools.partial(_tensor, cut=cut), given)
        found.append(mapped(_host, network(part, training=False)))
    single = leaves(found[0])
    if len(single) != 1:
        raise PlanError("predict: the model has several outputs; call result.load() and the model yourself")
    return np.concatenate([leaves(each)[0] for each in found])


def predict(folder: Path, inputs: Any, asked: Asked, *, model: Any = None) -> Any:
    """What a run's model says of inputs, in the terms of its task: `tasks.own.predict.in_terms` tells which."""
    about = read_task(str(folder))
    said = outputs(folder, inputs, model=model, batch_size=asked.batch_size)
    if about.get("kind") in ("classes", "shares") and not about.get("logits", True):
        said = np.log(np.maximum(said, 1e-7))
    return in_terms(folder, torch.from_numpy(np.asarray(said, np.float32)), inputs, about, asked)


def _tensor(array: Array, cut: slice) -> Any:
    import keras

    return keras.ops.convert_to_tensor(array[cut])


def _host(tensor: Any) -> Array:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
