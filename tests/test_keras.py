"""Keras models keep the promises of every learner, on whichever backend of Keras these tests are run.

`make keras` runs them on TensorFlow and on JAX; without Keras they are skipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from runs import Killed, dies_at

pytest.importorskip("keras", reason="Keras is not installed: `make keras` makes an environment that has it")

import keras

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    pytest.importorskip("tensorflow")

from cases_keras import Model, PyDataset, Subclassed, clouds, cnn, perceptron, stripes  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

import multistep  # noqa: E402
from multistep.api import Result  # noqa: E402
from multistep.backends.keras.variables import COUNTERS, STATE  # noqa: E402
from multistep.core.values.events import WindowDone  # noqa: E402
from multistep.core.values.recipe import Recipe  # noqa: E402
from multistep.engine.clock import BudgetClock  # noqa: E402
from multistep.engine.learner import Learner, Readiness  # noqa: E402
from multistep.engine.simulate import FakeClock  # noqa: E402
from multistep.errors import DataError, PlanError, UserError  # noqa: E402
from multistep.tasks.keras.request import read_request  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # what TensorFlow and Keras warn of among themselves is not ours
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason=f"of the TensorFlow backend; this is {BACKEND}")

CLOUDS: dict[str, Any] = {
    "loss": "sparse_categorical_crossentropy",
    "train": clouds(300, 0),
    "validation": clouds(80, 1),
    "test": clouds(90, 2),
    "metric": "accuracy",
    "phases": [{"name": "only", "until": "40 steps"}],
}


def train(out: Path, model: Any = None, on_entry: Any = None, **changes: Any) -> Result:
    if model is None:
        keras.utils.set_random_seed(0)
        model = perceptron()
    return multistep.train(
        model=model, out=out, clock=BudgetClock(FakeClock().now), on_entry=on_entry, **{**CLOUDS, **changes}
    )


@dataclass(frozen=True)
class Opened:
    learner: Learner
    ready: Readiness
    recipe: Recipe

    def advance(self) -> None:
        self.learner.advance((self.recipe.learning_rate or 1e-3,) * 3)

    def state(self, folder: Path) -> Mapping[str, NDArray[Any]]:
        """All that is saved, the place in the data too."""
        folder.mkdir(exist_ok=True)
        self.learner.save(folder)
        counters = np.frombuffer((folder / COUNTERS).read_bytes(), np.uint8)
        return {**load_file(folder / STATE), COUNTERS: counters}


def opened_with(model: Any, **given: Any) -> Opened:
    request = read_request(None, {**CLOUDS, "model": model, **given})
    learner, ready = request.workshop.open(request.plan, 0, lambda: False)
    dropout = 0.2 if "dropout" in ready.facts.settings else 0.0
    return Opened(learner, ready, replace(ready.recipe, averaging=0.3, dropout=dropout))


@pytest.fixture(scope="module", params=["perceptron", "subclassed"])
def opened(request: pytest.FixtureRequest) -> Opened:
    if request.param == "perceptron":
        return opened_with(perceptron())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return opened_with(Subclassed(), loss=loss)


def same(one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# The learner's contract -------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits_and_saving_and_loading_goes_on_exactly(
    opened: Opened, tmp_path: Path
) -> None:
    learner, recipe = opened.learner, opened.recipe
    learner.initial(recipe, 0)
    first = opened.state(tmp_path / "first")
    opened.advance()
    opened.state(tmp_path / "middle")
    opened.advance()
    straight = opened.state(tmp_path / "straight")
    assert not same(first, straight)
    keras.utils.set_random_seed(11)
    learner.load(tmp_path / "middle", recipe, 0)
    opened.advance()
    assert same(straight, opened.state(tmp_path / "loaded"))
    learner.initial(recipe, 0)
    assert same(first, opened.state(tmp_path / "again"))
    opened.advance()
    opened.advance()
    assert same(straight, opened.state(tmp_path / "anew"))
    learner.initial(recipe, 1)
    opened.advance()
    opened.advance()
    assert not same(straight, opened.state(tmp_path / "seed")), "the seed decides what is drawn"


def test_evaluating_changes_nothing_and_says_the_same_twice(opened: Opened, tmp_path: Path) -> None:
    learner = opened.learner
    learner.initial(opened.recipe, 0)
    opened.advance()
    state = opened.state(tmp_path / "before")
    chance: Any = np.random.get_state()
    sample, whole = learner.evaluate("validation", sample=True), learner.evaluate("validation", sample=False)
    after: Any = np.random.get_state()
    assert np.array_equal(chance[1], after[1])
    assert same(state, opened.state(tmp_path / "after"))
    again = learner.evaluate("validation", sample=False)
    assert all(np.array_equal(whole.columns[name], again.columns[name]) for name in whole.columns)
    assert 2 <= len(sample) <= len(whole) == len(learner.baseline("validation")[1])
    assert learner.exhibits()
    assert same(state, opened.state(tmp_path / "last"))


def test_the_mean_of_checkpoints_is_that_of_their_averaged_weights(opened: Opened, tmp_path: Path) -> None:
    learner, recipe = opened.learner, opened.recipe
    learner.initial(recipe, 0)
    opened.advance()
    one = opened.state(tmp_path / "one")
    opened.advance()
    other = opened.state(tmp_path / "other")
    learner.average([tmp_path / "one", tmp_path / "other"], recipe, 0)
    mean = opened.state(tmp_path / "mean")
    means = [n for n in mean if n.startswith("average.") and not n.endswith(("moving_mean", "moving_variance"))]
    assert means
    for name in means:
        np.testing.assert_allclose(mean[name], (one[name] + other[name]) / 2, atol=1e-6, rtol=1e-5)
        assert np.array_equal(mean[name], mean[name.replace("average.", "model.", 1)])
    learner.adopt(tmp_path / "other", recipe, 3)
    adopted = opened.state(tmp_path / "adopted")
    assert all(np.array_equal(adopted[name], other[name]) for name in means), "where another phase begins"


def test_every_optimizer_and_sharpness_goes_on_exactly(tmp_path: Path) -> None:
    opened = opened_with(perceptron())
    assert {"adamw", "adam", "sgd", "lion", "adafactor"} <= set(opened.ready.facts.optimizers)
    for name in opened.ready.facts.optimizers:
        sharpness = 0.05 if name == "sgd" else 0.0
        wanted: dict[str, Any] = {"optimizer": name, "sharpness": sharpness, "label_smoothing": 0.1}
        changed = replace(opened.recipe, **wanted)
        each = replace(opened, recipe=changed)
        each.learner.initial(changed, 0)
        each.advance()
        each.state(tmp_path / f"{name}-middle")
        each.advance()
        straight = each.state(tmp_path / f"{name}-straight")
        assert all(np.isfinite(value).all() for value in straight.values()), name
        each.learner.load(tmp_path / f"{name}-middle", changed, 0)
        each.advance()
        assert same(straight, each.state(tmp_path / f"{name}-loaded")), name
    with pytest.raises(PlanError, match="Keras has no 'soap'"):
        opened.learner.initial(replace(opened.recipe, optimizer="soap"), 0)


def test_the_averaged_weights_are_scored_with_statistics_of_their_own(tmp_path: Path) -> None:
    opened = opened_with(perceptron())
    opened.learner.initial(opened.recipe, 0)
    opened.advance()
    learner: Any = opened.learner
    with learner._averaged():
        dense, norm = learner._model.layers[:2]
        hidden = np.asarray(keras.ops.convert_to_numpy(dense(CLOUDS["train"][0])))
        moving = np.asarray(keras.ops.convert_to_numpy(norm.moving_mean))
    np.testing.assert_allclose(moving, hidden.mean(0), atol=0.1)
    assert hidden.mean() > 0.3, "moving statistics that begin at 0 would have hardly moved after three steps"


# A whole run ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return train(tmp_path_factory.mktemp("keras") / "run")


def test_a_run_learns_and_its_model_is_read_back(made: Result) -> None:
    assert made.record["baseline"]["test"]["gain"]["low"] > 0
    assert made.test is not None
    points, labels = CLOUDS["test"]
    loaded: Any = made.load()
    said = np.asarray(keras.ops.convert_to_numpy(loaded(points, training=False)))
    assert float((said.argmax(1) == labels).mean()) == pytest.approx(made.test.score)
    assert made.evaluate(CLOUDS["test"])["scores"]["accuracy"]["score"] == pytest.approx(made.test.score)
    predictions = made.predict(points)
    assert [int(each.output) for each in predictions] == said.argmax(1).tolist()
    np.testing.assert_allclose(made.outputs(points), said, atol=1e-6)
    assert "keras.saving.load_model" in (made.model / "README.md").read_text(encoding="utf-8")
    if BACKEND == "tensorflow":
        import tensorflow as tf

        module = tf.saved_model.load(str(made.model / "saved_model"))
        served = module.serve(points)
        np.testing.assert_allclose(served.numpy(), said, atol=1e-5)


def test_killed_in_the_middle_it_ends_in_the_same_bits(made: Result, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path / "run", on_entry=dies_at(WindowDone, 2))
    keras.utils.set_random_seed(5)  # code that is run again draws other first weights
    again = train(tmp_path / "run", perceptron())
    assert again.record["weights_sha256"] == made.record["weights_sha256"]
    assert again.record["kills_survived"] == 1


def test_the_users_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = perceptron()
    before = [np.array(weights) for weights in model.get_weights()]
    train(tmp_path / "run", model, recipe={"dropout": 0.3}, phases=[{"name": "only", "until": "4 steps"}])
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))
    assert model.layers[2].rate == 0.1


def test_what_it_was_compiled_with_counts_where_nothing_else_is_given() -> None:
    model = perceptron()
    optimizer = keras.optimizers.SGD(0.03, momentum=0.8, global_clipnorm=2.0)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["mae", "accuracy"])
    ready = opened_with(model, loss=None, metric=None).ready
    recipe = ready.recipe
    assert (recipe.optimizer, recipe.learning_rate, recipe.momentum, recipe.gradient_clip) == ("sgd", 0.03, 0.8, 2.0)
    assert ready.metrics[0] == "accuracy"
    assert any("not used: mae" in note for note in ready.facts.notes)
    asked = opened_with(model, loss=None, optimizer="adamw").ready.recipe
    assert asked.optimizer == "adamw"
    assert asked.learning_rate == pytest.approx(5e-3)


# Data and outputs -------------------------------------------------------------------------------------


class Noisy(PyDataset):  # type: ignore[misc, unused-ignore]
    """Draws noise anew each time."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        points, labels = clouds(32, index)
        return points + 0.1 * np.random.standard_normal(points.shape), labels


class Calm(Noisy):
    def __getitem__(self, index: int) -> Any:
        return clouds(32, index)


def batches() -> Any:
    for index in range(10):
        yield clouds(32, index)


def test_data_of_any_form_is_the_same_data() -> None:
    points, labels = (np.concatenate(parts) for parts in zip(*batches(), strict=True))
    forms: list[Any] = [(points, labels), [points, labels[:, None]], batches, list(batches()), Calm()]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        forms.append(tf.data.Dataset.from_tensor_slices((points, labels)).shuffle(50).batch(32))
    found = []
    for form in forms:
        request = read_request(None, {**CLOUDS, "model": perceptron(), "train": form})
        split = request.workshop._wanted.splits["train"]
        assert len(split) == 320
        read = split.read(np.arange(320))
        found.append(np.sort(read[0].sum(1) + 10 * read[1].ravel()))
    assert all(np.allclose(each, found[0]) for each in found)


def test_a_data_set_that_draws_is_read_anew_and_repeated_exactly(tmp_path: Path) -> None:
    opened = opened_with(perceptron(), train=Noisy())
    assert any("draws at random" in note for note in opened.ready.facts.notes)
    domain: Any = opened.learner._domain  # type: ignore[attr-defined]
    one, again, later = (domain.batch(place, 32, 0)[0] for place in (0, 0, 320))
    assert np.array_equal(one, again)
    assert not np.array_equal(np.sort(one.ravel()), np.sort(later.ravel()))


@pytest.mark.parametrize("kind", ["yes-no", "one-hot", "number", "outputs", "weights", "function"])
def test_outputs_and_targets_of_many_kinds_are_scored(kind: str, tmp_path: Path) -> None:
    points, labels = clouds(200, 0)
    layers = keras.layers
    inputs = keras.Input((8,), name="points")
    given: dict[str, Any] = {"metric": None, "validation": None, "test": None}
    expected = "loss"
    match kind:
        case "yes-no":
            given |= {"model": cnn(), "train": stripes(200, 0), "metric": "roc_auc"}
            given["loss"], expected = keras.losses.BinaryCrossentropy(from_logits=True), "roc_auc"
        case "one-hot":
            model = keras.Sequential([keras.Input((8,)), layers.Dense(3, activation="softmax")])
            loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
            given |= {"model": model, "loss": loss, "train": (points, np.eye(3, dtype="float32")[labels])}
            expected = "macro_f1"
        case "number":
            model = keras.Sequential([keras.Input((8,)), layers.Dense(1, kernel_regularizer="l2")])
            given |= {"model": model, "loss": "mse", "train": (points, points @ np.arange(8, dtype="float32"))}
            expected = "root_mean_squared_error"
        case "outputs":
            both = {"class": layers.Dense(3, activation="softmax")(inputs), "sum": layers.Dense(1)(inputs)}
            model = keras.Model({"points": inputs}, both)
            model.compile(loss={"class": "sparse_categorical_crossentropy", "sum": "mse"}, loss_weights={"sum": 0.1})
            given |= {"model": model, "loss": None}
            given["train"] = ({"points": points}, {"class": labels, "sum": points.sum(1, keepdims=True)})
        case "weights":
            given |= {"model": perceptron(), "train": (points, labels, np.where(labels == 0, 3.0, 1.0))}
            expected = "accuracy"
        case "function":
            model = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
            given["loss"] = lambda targets, outputs: keras.ops.mean(
                keras.losses.sparse_categorical_crossentropy(targets, outputs, from_logits=True)
            )
            given |= {"model": model, "train": (points, labels)}
            expected = "accuracy"
    result = train(tmp_path / "run", **given, phases=[{"name": "only", "until": "6 steps"}])
    assert expected in result.record["scores"]["validation"]
    assert np.isfinite(result.score)


@tensorflow_only
def test_a_model_that_reads_texts_trains_and_is_served(tmp_path: Path) -> None:
    words = np.array(["good fine great", "bad poor dull", "fine great", "dull bad"] * 30, dtype=object)
    labels = np.array([1, 0, 1, 0] * 30)
    vectorize = keras.layers.TextVectorization(output_sequence_length=4)
    vectorize.adapt(words)
    text = keras.Input((), dtype="string")
    found = keras.layers.Embedding(vectorize.vocabulary_size(), 8)(vectorize(text))
    found = keras.layers.GlobalMaxPooling1D()(keras.layers.Conv1D(8, 2, activation="relu")(found))
    model = keras.Model(text, keras.layers.Dense(1, activation="sigmoid")(found))
    given = {"train": (words, labels), "validation": 0.2, "test": 0.2, "loss": "binary_crossentropy"}
    result = train(tmp_path / "run", model, **given)
    assert result.score > 0.9
    import tensorflow as tf

    module = tf.saved_model.load(str(result.model / "saved_model"))
    served = module.serve(tf.constant(["great", "poor"]))
    assert served.numpy()[0, 0] > 0.5 > served.numpy()[1, 0]


@tensorflow_only
def test_xla_is_measured_and_repeated() -> None:
    opened = opened_with(perceptron(), recipe={"compile": True})
    learner, recipe = opened.learner, opened.recipe
    learner.initial(recipe, 0)
    todo = learner.prepare({}, None)
    assert todo is not None
    todo()
    assert learner.fit is not None
    assert learner.fit.compiled
    opened.advance()
    again = opened_with(perceptron(), recipe={"compile": True})
    again.learner.initial(again.recipe, 0)
    todo = again.learner.prepare({learner.fit.of: learner.fit}, None)
    assert todo is not None
    todo()
    assert again.learner.fit == learner.fit
    opened.learner.initial(replace(recipe, compile="auto"), 0)
    assert opened.learner.prepare({}, 30.0) is None, "where little time is left, nothing is tried"


# Mistakes ---------------------------------------------------------------------------------------------


class Stepping(Model):  # type: ignore[misc, unused-ignore]
    def train_step(self, data: Any) -> Any:
        return {}


LOGITS = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"loss": None}, "loss is missing"),
    ({"loss": "sparse_categorical_crossentrpy"}, "Did you mean 'sparse_categorical_crossentropy'"),
    ({"loss": keras.losses.MeanSquaredError}, "give an instance"),
    ({"model": LOGITS}, "takes probabilities, but the model's outputs are none.*from_logits=True"),
    ({"model": Stepping()}, "train_step is not called here"),
    ({"train": (clouds(9, 0)[0], clouds(8, 0)[1])}, r"one row an example each; there are \(9, 8\), \(8,\)"),
    ({"train": (clouds(40, 0)[0], clouds(40, 0)[1] + 1)}, "label 3, but the model tells 3 classes apart.*subtract 1"),
    ({"train": (clouds(40, 0)[0] * np.nan, clouds(40, 0)[1])}, "inputs of example 0 hold a number that is not finite"),
    ({"train": (clouds(40, 0)[0][:, :5], clouds(40, 0)[1])}, "cannot be called with a batch of train"),
    ({"train": batches()}, "is a generator, which can be read once; give the function"),
    ({"train": lambda: iter(Noisy())}, "yields other examples each time"),
    ({"train": "photos/"}, "train is 'photos/'"),
    ({"target": "label"}, r"Keras takes \(inputs, targets\)"),
    ({"recipe": {"precision": "bfloat16"}}, "set_dtype_policy"),
    ({"recipe": {"augmentation": 0.5}}, "a model of your own has none"),
    ({"trian": 3}, "unknown keyword 'trian'"),
    ({"track": "mlfow"}, "unknown tracker 'mlfow'"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_mistakes_are_told(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((PlanError, DataError, UserError), match=message):
        train(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_importing_multistep_imports_no_keras() -> None:
    code = "import sys, multistep; print([name for name in ('keras', 'tensorflow', 'jax') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []
