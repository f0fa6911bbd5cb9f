"""The loss of a Keras model: a mean that trains, a number for each example, and how its outputs are to be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multistep.errors import PlanError, nearest

SPARSE, SHARES, YES_NO = "sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy"
OF_CLASSES = (SPARSE, SHARES)
DISTANCES: tuple[str, ...] = (
    "mean_squared_error",
    "mean_absolute_error",
    "huber",
    "log_cosh",
    "mean_squared_logarithmic_error",
)
DISTANCES += ("mean_absolute_percentage_error",)
IN_NATS = (*OF_CLASSES, YES_NO)


class KerasLoss:
    """One loss of Keras, or a function (targets, outputs) -> losses, or their weighted sum over several outputs.

    A name, an object of keras.losses, or a function; of several outputs a list or a mapping of these, or one for all.
    """

    def __init__(self, given: Any, weights: Any = None, output_names: tuple[str, ...] = ()) -> None:
        """`weights` are those of several outputs (compile's loss_weights), `output_names` the model's."""
        self.given, self._weights, self._names = given, weights, output_names
        self._several = isinstance(given, Mapping | list | tuple)
        self._one = None if self._several else _Single(given)

    @property
    def name(self) -> str:
        if self._one is not None:
            return self._one.name
        parts = self.given.values() if isinstance(self.given, Mapping) else self.given
        return " + ".join(_Single(part).name for part in parts if part is not None)

    @property
    def kind(self) -> str:
        """Its name in keras.losses, by which outputs are understood; "" of several outputs or of a user's own."""
        return self._one.kind if self._one else ""

    @property
    def from_logits(self) -> bool:
        return self._one.from_logits if self._one else False

    @property
    def smoothing(self) -> float:
        """The label smoothing that it was given."""
        return self._one.smoothing if self._one else 0.0

    @property
    def smooths(self) -> bool:
        """Whether label smoothing means something to it."""
        return self.kind in IN_NATS and self._one is not None and self._one.plain

    def plainly(self) -> Any:
        """It as plain values, of which keras.losses.deserialize makes it again; None where only the user's code can."""
        import keras

        if self._one is None or not self.kind:
            return None
        return self.given if isinstance(self.given, str) else keras.losses.serialize(self.given)

    @property
    def joint(self) -> bool:
        """Whether it gave one number for a batch when it was last called: it is scored by whole batches then."""
        return self._one.joint if self._one else False

    @property
    def unit(self) -> str:
        return "nats per label" if self.kind in IN_NATS else self.name if self.name != "lambda" else "as it counts"

    def value(self, targets: Any, outputs: Any, weights: Any, label_smoothing: float) -> Any:
        """The mean loss of a batch, as Keras reduces it (no shape)."""
        parts = self._parts(targets, outputs, weights)
        values = [share * single.value(*part, label_smoothing) for single, share, part in parts]
        return sum(values[1:], values[0])

    def rows(self, targets: Any, outputs: Any, weights: Any) -> Any:
        """The loss of each example, with its weight in it, without label smoothing (shape: B)."""
        parts = self._parts(targets, outputs, weights)
        values = [share * single.rows(*part) for single, share, part in parts]
        return sum(values[1:], values[0])

    def _parts(self, targets: Any, outputs: Any, weights: Any) -> list[tuple[_Single, float, tuple[Any, Any, Any]]]:
        if self._one is not None and not isinstance(outputs, Mapping | list | tuple):
            return [(self._one, 1.0, (targets, outputs, weights))]
        keys = self._keys(outputs)
        found = []
        for place, key in enumerate(keys):
            loss = self.given if self._one is not None else _of(self.given, key, place, self._names)
            target = _of(targets, key, place, self._names)
            if loss is None or target is None:
                continue
            share = 1.0 if self._weights is None else _of(self._weights, key, place, self._names)
            weight = _of(weights, key, place, self._names) if isinstance(weights, Mapping | list | tuple) else weights
            found.append((_Single(loss), float(1.0 if share is None else share), (target, outputs[key], weight)))
        if not found:
            raise PlanError(f"loss: none of the model's outputs ({', '.join(map(str, keys))}) has a loss and a target")
        return found

    @staticmethod
    def _keys(outputs: Any) -> list[Any]:
        if isinstance(outputs, Mapping):
            return list(outputs)
        if isinstance(outputs, list | tuple):
            return list(range(len(outputs)))
        raise PlanError("loss: there are several losses, but the model has one output; give one loss")


class _Single:
    """One loss of one output."""

    def __init__(self, given: Any) -> None:
        import keras

        if isinstance(given, type):
            raise PlanError(f"loss is the class {given.__name__}; give an instance: loss={given.__name__}()")
        if isinstance(given, str):
            try:
                given = keras.losses.get(given)
            except ValueError as error:
                names = [name for name in dir(keras.losses) if name[0].islower() and not name.startswith("_")]
                raise PlanError(
                    f"loss is {given!r}, which Keras does not know; allowed: a name in keras.losses, an object of it, "
                    f"or a function (targets, outputs) -> losses.{nearest(given, names)}"
                ) from error
        if not callable(given):
            raise PlanError(f"loss is {given!r}; allowed: a name, an object of keras.losses, or a function")
        function = getattr(given, "fn", given)  # of a wrapper of Keras, what it calls
        self._options: dict[str, Any] = dict(getattr(given, "_fn_kwargs", {}))
        self._given, self._function = given, function
        own = getattr(function, "__module__", "").startswith("keras.")
        self.kind = getattr(function, "__name__", "") if own else ""
        self.name = _name(given)
        self.from_logits = bool(self._options.get("from_logits", False))
        self.smoothing = float(self._options.get("label_smoothing", 0.0))
        self.plain = isinstance(given, _plain_losses()) or (own and not isinstance(given, keras.losses.Loss))
        self._is_loss = isinstance(given, keras.losses.Loss)
        self.joint = False

    def value(self, targets: Any, outputs: Any, weights: Any, label_smoothing: float) -> Any:
        import keras

        if self.kind in IN_NATS and self.plain and label_smoothing != self.smoothing:
            return _reduced(self._smoothed(targets, outputs, label_smoothing), outputs, weights, self._given)
        if self._is_loss:
            found = self._given(targets, outputs, sample_weight=weights)
            return keras.ops.mean(found) if found.shape else found
        return _reduced(self._given(_like(targets, outputs), outputs), outputs, weights, None)

    def _smoothed(self, targets: Any, outputs: Any, label_smoothing: float) -> Any:
        import keras

        options = {**self._options, "label_smoothing": label_smoothing}
        if self.kind != SPARSE:
            return self._function(_like(targets, outputs), outputs, **options)
        known = {key: options[key] for key in ("from_logits", "label_smoothing") if key in options}
        classes = _like(targets, outputs)
        one_hot = keras.ops.one_hot(keras.ops.cast(classes, "int32"), outputs.shape[-1], dtype=outputs.dtype)
        return keras.losses.categorical_crossentropy(one_hot, outputs, **known)

    def rows(self, targets: Any, outputs: Any, weights: Any) -> Any:
        import keras

        if self.plain and self.smoothing and self.kind in IN_NATS:
            found = self._smoothed(targets, outputs, 0.0)
        elif self._is_loss:
            found = self._given.call(keras.ops.convert_to_tensor(targets), outputs)
        else:
            found = self._given(_like(targets, outputs), outputs)
        found = keras.ops.cast(found, "float32")
        self.joint = len(found.shape) == 0
        if self.joint:
            return keras.ops.broadcast_to(found, (keras.ops.shape(outputs)[0],))
        mask = getattr(outputs, "_keras_mask", None)
        if mask is not None and len(found.shape) > 1:
            counted = keras.ops.cast(mask, found.dtype)
            found = keras.ops.sum(found * counted, axis=1) / keras.ops.maximum(keras.ops.sum(counted, axis=1), 1.0)
        found = keras.ops.mean(keras.ops.reshape(found, (keras.ops.shape(found)[0], -1)), axis=1)
        if weights is not None:
            weights = keras.ops.cast(weights, "float32")
            found *= keras.ops.mean(keras.ops.reshape(weights, (keras.ops.shape(weights)[0], -1)), axis=1)
        return found


def _plain_losses() -> tuple[type, ...]:
    import keras

    losses = keras.losses
    return (losses.SparseCategoricalCrossentropy, losses.CategoricalCrossentropy, losses.BinaryCrossentropy)


def _reduced(values: Any, outputs: Any, weights: Any, given: Any) -> Any:
    """Losses as Keras reduces them: masked, weighted, and their mean unless the loss says "sum"."""
    import keras

    class Given(keras.losses.Loss):  # type: ignore[misc, unused-ignore]
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return y_true

    if not values.shape:
        return values
    reduction = getattr(given, "reduction", "sum_over_batch_size") or "sum_over_batch_size"
    pred = outputs if getattr(outputs, "_keras_mask", None) is not None else values
    return Given(reduction=reduction)(values, pred, sample_weight=weights)


def _like(targets: Any, outputs: Any) -> Any:
    """Targets without the last axis of 1 that the outputs have not, or with it where those have it, as in `fit`."""
    import keras

    if isinstance(outputs, Mapping | list | tuple):
        return targets
    targets = keras.ops.convert_to_tensor(targets)
    if len(targets.shape) == len(outputs.shape) > 1 and targets.shape[-1] == 1 and outputs.shape[-1] != 1:
        return keras.ops.squeeze(targets, -1)
    if len(targets.shape) == len(outputs.shape) - 1 and outputs.shape[-1] == 1:
        return keras.ops.expand_dims(targets, -1)
    return targets


def _of(values: Any, key: Any, place: int, names: tuple[str, ...]) -> Any:
    """What belongs to an output: by its key, its place, or its layer's name."""
    if isinstance(values, Mapping):
        name = names[place] if place < len(names) else None
        return values.get(key, values.get(name))
    if isinstance(values, list | tuple):
        return values[place] if place < len(values) else None
    return values


def _name(given: Any) -> str:
    name = getattr(given, "__name__", None) or type(given).__name__
    return "lambda" if name == "<lambda>" else str(name)
