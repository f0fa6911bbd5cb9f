"""The learner in Keras: compiled steps, averaged weights, evaluation, and a state that continues exactly."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from multistep.backends.keras import variables as of_model
from multistep.backends.keras.choosing import scorer_for, stepper_for
from multistep.backends.keras.domain import Array, Batch, Domain, seeds_of
from multistep.backends.keras.layers import as_of_the_batch, batch_norms
from multistep.backends.keras.stepping import Stepper, Stepping
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Carry, Fit, Progress
from multistep.engine.learner import NO_FORM, Exhibit, Interrupted, Split
from multistep.errors import PlanError

AVERAGE_EVERY = 4  # steps, as in torch's learner
STATISTICS_BATCHES = 32  # passes, at most, over which statistics of batch normalisation are computed anew
SCORING_EXAMPLES = 512  # are enough for those that scoring needs
KEPT_STEPPERS = 3  # compiled steps of the last recipes: a cooldown has its trunk's
TIMED = 5  # steps with and without XLA
LEAST_SECONDS = 60.0  # of the budget, for XLA to be tried
LEAST_SAVING = 0.03  # of a step, that XLA is kept for
# Settings of a recipe that the code of a step is made of; the rate is given to each step.
MATTERS: tuple[str, ...] = (
    "optimizer",
    "batch_size",
    "momentum",
    "nesterov",
    "betas",
    "weight_decay",
    "dropout",
    "label_smoothing",
)
MATTERS += ("gradient_clip", "sharpness", "frozen")


class KerasLearner:
    """Trains one phase of a plan. Implements engine.learner.Learner."""

    def __init__(self, domain: Domain, should_stop: Callable[[], bool]) -> None:
        self._domain, self._should_stop = domain, should_stop
        self._model = domain.model
        self._kept = of_model.kept(self._model)
        self._norms = batch_norms(self._model)
        self._steppers: dict[tuple[object, ...], Stepper] = {}
        self._score = scorer_for(self._model, domain.rows)
        self._stepper: Stepper
        self._found: Fit | None = None

    # Weights ----------------------------------------------------------------------------------------

    def initial(self, recipe: Recipe, seed: int, *, skip_examples: int = 0) -> None:
        self._place(self._domain.first_weights(), recipe, seed)
        self._position = skip_examples

    def load(self, folder: Path, recipe: Recipe, seed: int, *, carry: Carry = "all", skip_examples: int = 0) -> None:
        tensors, saved = of_model.read(folder)
        if carry == "all" and saved["optimizer"] != recipe.optimizer:
            raise PlanError(
                f"{folder.name} was saved under {saved['optimizer']}, whose state means nothing to {recipe.optimizer}; "
                "carry the weights alone"
            )
        self._place(of_model.values_in(tensors, "model.", self._kept, str(folder)), recipe, seed)
        averages = dict(zip(map(id, self._kept), self._values(tensors, "average.", folder), strict=True))
        of_model.assign(self._of.averages, [averages[id(variable)] for variable in self._of.trained])
        if carry == "all":
            slots = self._of.optimizer.variables
            of_model.assign(slots, of_model.values_in(tensors, of_model.SLOTS, slots, str(folder)))
        self._steps, self._position = saved["steps"], saved["position"] + skip_examples

    def adopt(self, folder: Path, recipe: Recipe, seed: int, *, skip_examples: int = 0) -> None:
        tensors, _ = of_model.read(folder)
        self._place(self._values(tensors, "average.", folder), recipe, seed)
        self._position = skip_examples

    def average(self, folders: Sequence[Path], recipe: Recipe, seed: int) -> None:
        saved = [of_model.read(folder)[1] for folder in folders]
        self._place(self._values(of_model.mean_of(folders, "average."), "average.", folders[0]), recipe, seed)
        if self._norms:
            self._observe(STATISTICS_BATCHES)
        self._steps = max(state["steps"] for state in saved)
        self._position = max(state["position"] for state in saved)

    def _values(self, tensors: Mapping[str, Array], prefix: str, folder: Path) -> list[Array]:
        return of_model.values_in(tensors, prefix, self._kept, str(folder))

    def _place(self, values: Sequence[Array], recipe: Recipe, seed: int) -> None:
        self._domain.configure(recipe)
        self._recipe, self._seed, self._found = recipe, seed, None
        key = tuple(getattr(recipe, name) for name in MATTERS)
        stepper = self._steppers.pop(key, None) or stepper_for(Stepping.of(self._domain, recipe))
        self._steppers[key] = self._stepper = stepper
        stepper.compiled = False
        for old in list(self._steppers)[:-KEPT_STEPPERS]:
            del self._steppers[old]
        of_model.assign(self._kept, values)
        of_model.assign(self._of.averages, [v.value for v in self._of.trained])
        of_model.assign(self._of.optimizer.variables, self._of.fresh)
        self._steps = self._position = 0
        self._statistics: list[Array] | None = None

    @property
    def _of(self) -> Stepping:
        return self._stepper.of

    def save(self, folder: Path) -> None:
        trained = {id(v): average for v, average in zip(self._of.trained, self._of.averages, strict=True)}
        averages = [of_model.array(trained.get(id(v), v)) for v in self._kept]
        tensors = {
            **of_model.named("model.", self._kept),
            **of_model.named("average.", self._kept, averages),
            **of_model.named(of_model.SLOTS, self._of.optimizer.variables),
        }
        counters = {"steps": self._steps, "position": self._position, "optimizer": self._recipe.optimizer}
        of_model.write(folder, tensors, counters)

    def export(self, folder: Path, card: str) -> str:
        with self._averaged():
            return self._domain.export(folder, card)

    def fold(self, temperature: float) -> bool:
        return False  # what was found of the probabilities lies beside the model

    # Training ---------------------------------------------------------------------------------------

    def prepare(self, known: Mapping[str, Fit], seconds_left: float | None) -> Callable[[], None] | None:
        of = self._fit_key
        if fit := known.get(of):
            return None if fit == self._found else functools.partial(self._follow, fit)
        asked = self._recipe.compile
        worth = seconds_left is not None and seconds_left > LEAST_SECONDS
        if self._found is None and _has_xla() and (asked is True or (asked == "auto" and worth)):
            return functools.partial(self._find, of, timed=asked == "auto")
        return None

    @property
    def fit(self) -> Fit | None:
        return self._found

    @property
    def _fit_key(self) -> str:
        plain = Recipe()
        changed = [f"{key}={value}" for key in MATTERS if (value := getattr(self._recipe, key)) != getattr(plain, key)]
        return ", ".join(["keras", *changed])

    def _follow(self, fit: Fit) -> None:
        self._stepper.compiled, self._found = fit.compiled, fit

    def _find(self, of: str, *, timed: bool) -> None:
        """Compile the step with XLA, if that is asked for or measured to be faster."""
        batch = self._domain.batch(self._position, self._batch_size, self._seed)
        with of_model.restored(self._of.state):
            self._seconds(batch, 1)
            plain = self._seconds(batch, TIMED) if timed else 0.0
            began = time.perf_counter()
            self._stepper.compiled = True
            try:
                self._seconds(batch, 1)
                took = time.perf_counter() - began
                ratio = self._seconds(batch, TIMED) / plain if timed else None
            except Exception as error:  # whatever XLA says to operations that it has not, such as those of strings
                if not timed:
                    raise PlanError(f"recipe.compile: XLA cannot compile this model ({_first_line(error)})") from error
                self._stepper.compiled = False
                self._found = Fit(of, reason=f"XLA is not used: it cannot compile this model ({_first_line(error)})")
                return
        fit = Fit(of, compiled=True, compile_seconds=round(took, 1), reason="XLA is used, as recipe.compile says")
        if ratio is not None:
            pays = ratio < 1.0 - LEAST_SAVING
            said = f"a step takes {ratio:.0%} of its seconds with it, and compiling took {took:.0f} s"
            kept = "XLA is used" if pays else "XLA is not used"
            fit = replace(fit, compiled=pays, ratio=round(ratio, 3), reason=f"{kept}: {said}")
        self._follow(fit)

    def _seconds(self, batch: Batch, steps: int) -> float:
        """What a step takes. It changes the state."""
        self._stepper.begin()
        began = time.perf_counter()
        for step in range(steps):
            self._stepper.step(batch, 0.0, self._seeds(step))
        self._stepper.end()
        return (time.perf_counter() - began) / steps

    def advance(self, rates: Sequence[float], *, resolution: int | None = None) -> Progress:
        assert resolution is None, "configure refuses a recipe with sizes"
        stepper, size, horizon = self._stepper, self._batch_size, self._recipe.averaging
        self._statistics = None
        stepper.begin()
        for rate in rates:
            if self._should_stop():
                raise Interrupted
            stepper.step(self._domain.batch(self._position, size, self._seed), rate, self._seeds(self._steps))
            self._steps += 1
            self._position += size
            if horizon and (self._steps % AVERAGE_EVERY == 0 or self._steps < AVERAGE_EVERY):
                share = AVERAGE_EVERY / (AVERAGE_EVERY + horizon * self._steps)
                stepper.follow(share if self._steps > AVERAGE_EVERY else 1.0)
        loss, norm = stepper.end()
        if not horizon:
            of_model.assign(self._of.averages, [v.value for v in self._of.trained])
        examples = len(rates) * size
        return Progress(len(rates), loss / len(rates), norm, examples, examples)

    def _seeds(self, step: int) -> Array:
        return seeds_of(self._seed, step, max(1, len(self._of.seeds)))

    @property
    def _batch_size(self) -> int:
        size = self._recipe.batch_size
        assert size is not None, "a resolved recipe has a batch size"
        return size

    # Evaluation -------------------------------------------------------------------------------------

    def evaluate(self, split: Split, *, sample: bool) -> Evaluation:
        with self._averaged():
            return self._domain.evaluate(self._score, split, sample=sample)

    def exhibits(self) -> Sequence[Exhibit]:
        with self._averaged():
            return self._domain.exhibits(self._score)

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        with of_model.restored(self._model.variables):
            of_model.assign(self._kept, self._domain.first_weights())
            return self._domain.baseline(self._score, split)

    def write_baseline(self, folder: Path) -> str:
        return NO_FORM

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within, the model has the averaged weights, and statistics of batch normalisation that are theirs."""
        with of_model.restored(self._model.variables):
            of_model.assign(self._of.trained, [average.value for average in self._of.averages])
            if self._norms:
                if self._statistics is None:
                    self._statistics = self._observe(min(STATISTICS_BATCHES, -(-SCORING_EXAMPLES // self._batch_size)))
                of_model.assign(self._statistics_variables, self._statistics)
            yield

    @property
    def _statistics_variables(self) -> list[Any]:
        return [variable for layer in self._norms for variable in (layer.moving_mean, layer.moving_variance)]

    def _observe(self, batches: int) -> list[Array]:
        """Set statistics of batch normalisation to the mean of those of the first batches; returns them."""
        of, size = self._statistics_variables, self._batch_size
        total = [np.zeros(tuple(variable.shape), np.float64) for variable in of]
        with as_of_the_batch(self._norms):
            for i in range(batches):
                inputs, _, _ = self._domain.batch(i * size, size, self._seed)
                self._stepper.observe(inputs, self._seeds(i))
                for sum_, variable in zip(total, of, strict=True):
                    sum_ += of_model.array(variable)
        means = [(sum_ / batches).astype(np.float32) for sum_ in total]
        of_model.assign(of, means)
        return means


def _has_xla() -> bool:
    import keras

    return bool(keras.backend.backend() == "tensorflow")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
