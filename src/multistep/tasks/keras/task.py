"""A Keras model of the user's own: what the engine and the Keras learner need to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from multistep.backends.keras import optimizers
from multistep.backends.keras.domain import Array, Score
from multistep.backends.keras.domain import Batch as Batch
from multistep.backends.keras.learner import KerasLearner
from multistep.core.evidence.function_metric import FunctionMetric
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Facts
from multistep.core.values.understood import Part
from multistep.data.names import NO_TEST
from multistep.engine.learner import Exhibit, Learner, Readiness, Split
from multistep.errors import PlanError
from multistep.tasks.keras.data import Split as Examples
from multistep.tasks.keras.data import labels_of, leaves, mapped
from multistep.tasks.keras.losses import KerasLoss
from multistep.tasks.keras.model import KerasModel
from multistep.tasks.keras.understand import MEANT, TRIED, Understood, require_finite, require_labels, understand
from multistep.tasks.keras.use import USAGE, write_model
from multistep.tasks.machine import CPU, device_name, versions_of
from multistep.tasks.order import sample_of
from multistep.tasks.own.functions import OwnMetric, require_columns
from multistep.tasks.own.parting import classes_counted
from multistep.tasks.own.preset import BATCH_SIZE, default_recipe
from multistep.tasks.own.randomness import as_at
from multistep.tasks.own.scores import MOST_OUTPUTS, table_of
from multistep.tasks.own.shown import gives_a_number, shown
from multistep.tasks.recipes import refuse_model
from multistep.tasks.understood import counted, told

SAMPLE = 2000  # examples of the validation split that are looked at after each window
AT_ONCE = 256  # examples that are scored together
SEEDS: Mapping[str, int] = {"train": 0, "validation": 1, "test": 2}
REFUSED = ("augmentation", "resolution", "context")
OF_OTHERS: Mapping[str, object] = {
    **{"layer_decay": 1.0, "adapter": "none", "micro_batch": "auto", "sharding": "auto", "outer": None},
}


@dataclass(frozen=True)
class Wanted:
    """What the user gave beside the model. `named` is the metric's name, if it has one of ours."""

    splits: Mapping[str, Examples]
    notes: tuple[str, ...]
    loss: object
    metric: OwnMetric | None
    named: str | None


class KerasDomain:
    """One phase's data and model. Implements backends.keras.domain.Domain."""

    def __init__(self, model: KerasModel, understood: Understood, wanted: Wanted, *, scored: bool) -> None:
        """`scored` tells that this metric has given numbers before."""
        self._own, self._understood, self._wanted = model, understood, wanted
        self._loss, self._scored = understood.loss, scored
        self._order = wanted.splits["train"].order()
        self._tested: Evaluation | None = None

    @property
    def model(self) -> Any:
        return self._own.given

    def first_weights(self) -> list[Array]:
        return self._own.first

    def configure(self, recipe: Recipe) -> None:
        refuse_model(recipe.model)
        for key in REFUSED:
            if getattr(recipe, key):
                raise PlanError(f"recipe.{key}: a model of your own has none; leave it out")
        for key, plain in OF_OTHERS.items():
            if getattr(recipe, key) != plain:
                raise PlanError(f"recipe.{key}: is not there for Keras models; leave it out")
        if recipe.precision not in ("auto", "float32"):
            raise PlanError(
                f"recipe.precision: a Keras model computes in the types that it was made with; make it under "
                f"keras.config.set_dtype_policy('mixed_bfloat16') for {recipe.precision}"
            )
        if recipe.label_smoothing and not self._loss.smooths:
            raise PlanError(
                f"recipe.label_smoothing: {self._loss.name} does not support it; take a cross-entropy of Keras"
            )
        if self._own.dropout is None and recipe.dropout:
            raise PlanError(
                f"recipe.dropout: {self._own.name} has no keras.layers.Dropout that drops; leave it out, or add one"
            )
        if self._own.dropout is not None:
            self._own.set_dropout(recipe.dropout)

    @property
    def settings(self) -> tuple[str, ...]:
        """The recipe's keys that this model and loss answer to."""
        dropout = ("dropout",) if self._own.dropout is not None else ()
        return (*dropout, *(("label_smoothing",) if self._loss.smooths else ()))

    def batch(self, position: int, size: int, seed: int) -> Batch:
        places, epochs = self._order.indices(position, size, seed)
        return self._wanted.splits["train"].read(places, int(epochs[0]))

    def loss(self, targets: Any, outputs: Any, weights: Any, label_smoothing: float) -> Any:
        return self._loss.value(targets, outputs, weights, label_smoothing)

    def rows(self, targets: Any, outputs: Any, weights: Any) -> Any:
        return self._loss.rows(targets, outputs, weights)

    # Evaluation -------------------------------------------------------------------------------------

    def evaluate(self, score: Score, split: Split, *, sample: bool) -> Evaluation:
        found = self._table(score, split, sample)
        if self._wanted.metric is not None:
            metric: FunctionMetric = self._wanted.metric.metric
            classifies = self._understood.scores.classifies
            self._scored |= gives_a_number(metric, found, split, scored=self._scored, classifies=classifies)
        if split == "test":
            self._tested = found
        return found

    def _table(self, score: Score, split: Split, sample: bool, constant: Array | None = None) -> Evaluation:
        examples = self._wanted.splits[split]
        places = self._places(split, sample)
        own = examples.batch_size or BATCH_SIZE
        size, batches = own if self._loss.joint else max(AT_ONCE, own), []
        for start in range(0, len(places), size):
            part = places[start : start + size]
            with as_at(SEEDS[split], int(part[0])):
                inputs, targets, weights = examples.read(part)
            batches.append(self._rows(score, inputs, targets, weights, len(part), size, constant))
        return table_of(batches)

    def _places(self, split: Split, sample: bool) -> NDArray[np.int64]:
        count = len(self._wanted.splits[split])
        return sample_of(count, SAMPLE if sample else count)

    def _rows(
        self, score: Score, inputs: Any, targets: Any, weights: Any, count: int, size: int, constant: Array | None
    ) -> dict[str, torch.Tensor]:
        """The columns of some examples. A last batch is filled up, so that nothing is compiled for it."""
        filled = size if not self._loss.joint else count
        rows = np.minimum(np.arange(filled), count - 1)
        if constant is None:
            outputs, losses = score(*mapped(lambda array: array[rows], (inputs, targets, weights)))
            outputs, losses = mapped(lambda array: array[:count], outputs), losses[:count]
        else:
            outputs = np.repeat(constant[None], count, axis=0)
            losses = _on_host(self._loss, targets, outputs, weights)
        weight = np.ones(count, np.float32)
        if weights is not None and len(given := leaves(weights)) == 1:
            weight = given[0].reshape(count, -1).mean(1)
        block = torch.zeros(count) if self._loss.joint else torch.arange(count)
        found = {"loss": torch.from_numpy(np.array(losses, np.float32)), "count": torch.from_numpy(weight)}
        if self._understood.scores.kind == "other":
            return {**found, "block": block}
        return {
            **self._understood.scores.columns(*self._understood.read(outputs, targets), count),
            **found,
            "block": block,
        }

    def baseline(self, score: Score, split: Split) -> tuple[str, Evaluation]:
        """The classes' shares or the mean of the training targets; of other targets, the model as it was given."""
        found = self._understood.constant(shown_targets(self._wanted.splits["train"]))
        if found is None:
            return "untrained model", self._table(score, split, False)
        return found[0], self._table(score, split, False, found[1])

    def exhibits(self, score: Score) -> Sequence[Exhibit]:
        split: Split = "test" if "test" in self._wanted.splits else "validation"
        sample = split != "test"
        table = self._tested or self.evaluate(score, split, sample=sample)
        return shown(table, self.class_names, split, self._places(split, sample))

    @property
    def class_names(self) -> tuple[str, ...]:
        scores = self._understood.scores
        if scores.kind == "yes-no":
            return ("0", "1")
        return tuple(map(str, range(scores.width))) if scores.classifies else ()

    def export(self, folder: Path, card: str) -> str:
        validation = self._wanted.splits["validation"]
        inputs, _, _ = validation.read(np.arange(min(TRIED, len(validation))))
        content = {
            "framework": "keras",
            "class": self._own.name,
            "module": type(self._own.given).__module__,
            "loss": self._loss.name,
            "loss_as": self._loss.plainly(),
            "logits": not self._understood.probabilities,
            "metric": self._wanted.metric.metric.name if self._wanted.metric else None,
            "kind": self._understood.scores.kind,
            "classes": list(self.class_names),
        }
        return write_model(self.model, folder, card, content, inputs)


class KerasWorkshop:
    """Opens the phases of a run of the user's Keras model. Implements engine.learner.Workshop.

    `start` is where the first weights are kept in the run directory; `resuming` tells to take them from there.
    """

    def __init__(self, model: KerasModel, wanted: Wanted, identity: str, *, pretrained: bool) -> None:
        self._model, self._wanted, self._identity, self._pretrained = model, wanted, identity, pretrained
        self._start: Path | None = None
        self._resuming = False
        self._understood: Understood | None = None

    def keep_start(self, path: Path, *, resuming: bool) -> KerasWorkshop:
        """Keep the first weights at `path`, or go on from those kept there."""
        self._start, self._resuming = path, resuming
        return self

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        if self._understood is None:
            if self._start is not None and self._resuming and self._start.exists():
                self._model.read_start(self._start)
            self._understood = understood_of(self._model, self._wanted)
            if self._start is not None and not self._start.exists():
                self._model.write_start(self._start)
        understood, model, wanted = self._understood, self._model, self._wanted
        train = wanted.splits["train"]
        named, notes = model.compiled_metric(understood.scores.metrics)
        metrics = understood.scores.metrics
        if named is not None:  # what it was compiled with decides, unless the plan says otherwise
            metrics = (named, *(name for name in metrics if name != named))
        metrics = (*metrics, *((wanted.metric.metric.name,) if wanted.metric else ()))
        domain = KerasDomain(model, understood, wanted, scored=self._resuming or phase > 0)
        given = dict(plan.phase(phase).recipe)
        compiled, said = model.compiled_recipe()
        if "optimizer" in given and given["optimizer"] != compiled.get("optimizer"):
            compiled, said = {}, []  # its rate and momentum are another's
        recipe = default_recipe(
            {**compiled, **given},
            pretrained=self._pretrained,
            parameters=model.parameters,
            batch_size=min(train.batch_size or BATCH_SIZE, len(train)),
            dropout=model.dropout or 0.0,
            label_smoothing=understood.loss.smoothing,
        )
        domain.configure(recipe)
        facts = Facts(
            parameters=model.parameters,
            train_examples=len(train),
            tokens_per_example=1,
            sample_tokens=min(SAMPLE, len(wanted.splits["validation"])),
            validation_tokens=len(wanted.splits["validation"]),
            test_tokens=len(wanted.splits["test"]) if "test" in wanted.splits else 0,
            pretrained=self._pretrained,
            device=device_name(CPU) if _on_cpu() else _backend(),
            description=f"{model.name} of Keras on {_backend()}, {understood.loss.name}",
            notes=(*wanted.notes, *understood.notes, *said, *notes, *([] if "test" in wanted.splits else [NO_TEST])),
            settings=domain.settings,
            optimizers=optimizers.usable(),
            usage=USAGE,
            loss_unit=understood.loss.unit,
        )
        labels = labels_of(train) if understood.scores.kind == "classes" else None
        facts = told(
            facts,
            plan,
            phase,
            recipe,
            splits=[Part(name, len(split), "examples") for name, split in wanted.splits.items()],
            classes=counted(domain.class_names, labels.tolist()) if labels is not None else {},
            labels="",
            data="given in Python",
            weights="as the model holds them",
            checked=False,
        )
        rate_open = "learning_rate" not in given and not self._pretrained
        fingerprint = f"{self._identity}-{model.weights_hash()}"
        return KerasLearner(domain, should_stop), Readiness(facts, recipe, rate_open, fingerprint, metrics)

    def versions(self) -> Mapping[str, str]:
        engines = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}
        package = engines.get(_backend(), "numpy")
        found = dict(versions_of("multistep", "keras", package, "safetensors", "numpy"))
        if found.get("tensorflow") == "not installed":
            import tensorflow

            found["tensorflow"] = str(tensorflow.__version__)
        return {**found, "keras_backend": _backend()}


def understood_of(model: KerasModel, wanted: Wanted) -> Understood:
    """What the model says of the first examples, and how that is scored. Raises PlanError or DataError."""
    require_finite(wanted.splits)
    train = wanted.splits["train"]
    _, targets, _ = train.read(np.arange(min(TRIED, len(train))))
    weights = model.compiled_loss[1] if wanted.loss is model.compiled_loss[0] else None
    names = tuple(getattr(model.given, "output_names", None) or ())
    loss = KerasLoss(wanted.loss, weights, names)
    metric = wanted.metric
    found = understand(
        loss,
        outputs_of(model),
        targets,
        shown_targets(train),
        with_outputs=metric is not None and metric.outputs,
        with_scores=metric is not None and metric.scores,
    )
    require_labels(found, wanted.splits)
    try:
        _on_host(loss, targets, outputs_of(model), None)
    except PlanError:
        raise
    except Exception as error:
        raise PlanError(
            f"the loss {loss.name} cannot be called with the targets and the model's outputs "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); the targets have "
            f"{', '.join(str(t.shape) for t in leaves(targets))}, the outputs "
            f"{', '.join(str(t.shape) for t in leaves(outputs_of(model)))}"
        ) from error
    if metric is not None:
        columns = ["loss", "count"]
        if found.scores.kind != "other":
            columns += found.scores.columns(*found.read(outputs_of(model), targets), len(leaves(targets)[0]))
        require_columns(metric, found.scores.kind, columns, MOST_OUTPUTS)
    counts = classes_counted(wanted.splits, labels_of) if found.scores.classifies else None
    return Understood(
        loss, found.scores, found.probabilities, found.one_hot, (*found.notes, *([counts] if counts else []))
    )


def outputs_of(model: KerasModel) -> Any:
    """What the model said of the first examples, as arrays."""
    import keras

    return mapped(lambda tensor: np.asarray(keras.ops.convert_to_numpy(tensor)), model.outputs)


def shown_targets(split: Examples) -> Any:
    """The targets of some examples."""
    found = split.read(sample_of(len(split), MEANT))[1]
    arrays = leaves(found)
    return arrays[0] if len(arrays) == 1 else None


def _on_host(loss: KerasLoss, targets: Any, outputs: Any, weights: Any) -> Array:
    """The loss of each example of outputs that are arrays."""
    import keras

    given = [mapped(keras.ops.convert_to_tensor, value) for value in (targets, outputs, weights)]
    return np.asarray(keras.ops.convert_to_numpy(loss.rows(*given)))


def _backend() -> str:
    import keras

    return str(keras.backend.backend())


def _on_cpu() -> bool:
    import keras

    try:
        return all("cpu" in str(device).lower() for device in keras.distribution.list_devices())
    except Exception:  # a backend without devices to be listed
        return True
