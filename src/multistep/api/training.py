"""`train` and `resume`: from what is asked to a run, and what came of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from multistep.core.evidence.function_metric import FunctionMetric, declared
from multistep.core.evidence.metric import Goal
from multistep.core.values.plan import Keep, ModelSpec, Phase, Plan, Ship
from multistep.core.values.tasks import OWN_MODEL
from multistep.core.values.units import Amount
from multistep.data.elastic import place_in_files
from multistep.engine.clock import BudgetClock
from multistep.engine.launched import follows
from multistep.engine.moved import going_on
from multistep.engine.planfile import plan_from, read_plan
from multistep.engine.rundir import RunDirectory, default_folder
from multistep.errors import PlanError
from multistep.interface.device import on_device
from multistep.interface.given import Data, in_files, known_keywords, names_sources, with_data
from multistep.interface.lanes import Lanes
from multistep.interface.result import Result
from multistep.interface.running import run
from multistep.interface.view import OnEntry, watching
from multistep.tracking.beside import tracked

if TYPE_CHECKING:
    from torch import nn

    from multistep.data.memory import Kept

Length: TypeAlias = str | float | timedelta | Amount
Labels: TypeAlias = Literal["auto", "class", "classes", "number"]
OF_OWN_MODELS = ("loss", "target", "goal", "pretrained", "standardize")  # keywords of `train` that mean a module


@overload
def train(
    plan: Plan | Mapping[str, Any] | str | Path | None = None,
    *,
    task: str | None = None,
    data: Data | None = None,
    train: Data | None = None,
    validation: Data | float | None = None,
    test: Data | float | None = None,
    text_column: str | None = None,
    second_text_column: str | None = None,
    label_column: str | None = None,
    path_column: str | None = None,
    labels: Labels | None = None,
    model: str | Path | Sequence[str | Path] | Mapping[str, Any] | ModelSpec | None = None,
    metric: str | None = None,
    budget: Length | None = None,
    seed: int | None = None,
    recipe: Mapping[str, Any] | None = None,
    learning_rate: float | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    optimizer: str | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    moves: Literal["auto"] | Sequence[str] | None = None,
    phases: Sequence[Phase | Mapping[str, Any]] | None = None,
    tolerance: float | None = None,
    ship: Ship | None = None,
    keep: Keep | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    parallel: int | None = None,
    on: str | None = None,
    shared: str | None = None,
    progress: bool | None = None,
    track: str | Sequence[str] | None = None,
    on_entry: OnEntry | None = None,
    clock: BudgetClock | None = None,
) -> Result: ...
@overload
def train(
    *,
    model: nn.Module,
    train: Any,
    validation: Any = None,
    test: Any = None,
    loss: Callable[..., Any] | str | None = None,
    target: str | None = None,
    metric: str | FunctionMetric | Callable[..., float] | None = None,
    goal: Goal | None = None,
    pretrained: bool = False,
    standardize: bool | None = None,
    budget: Length | None = None,
    seed: int | None = None,
    recipe: Mapping[str, Any] | None = None,
    learning_rate: float | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    optimizer: str | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    moves: Literal["auto"] | Sequence[str] | None = None,
    phases: Sequence[Mapping[str, Any]] | None = None,
    tolerance: float | None = None,
    ship: Ship | None = None,
    keep: Keep | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    parallel: int | None = None,
    on: str | None = None,
    shared: str | None = None,
    progress: bool | None = None,
    track: str | Sequence[str] | None = None,
    on_entry: OnEntry | None = None,
    clock: BudgetClock | None = None,
) -> Result: ...
@known_keywords
def train(
    plan: Plan | Mapping[str, Any] | str | Path | None = None,
    *,
    task: str | None = None,
    data: Data | None = None,
    train: Any = None,
    validation: Any = None,
    test: Any = None,
    text_column: str | None = None,
    second_text_column: str | None = None,
    label_column: str | None = None,
    path_column: str | None = None,
    labels: Labels | None = None,
    model: nn.Module | str | Path | Sequence[str | Path] | Mapping[str, Any] | ModelSpec | None = None,
    loss: Callable[..., Any] | str | None = None,
    target: str | None = None,
    metric: str | FunctionMetric | Callable[..., float] | None = None,
    goal: Goal | None = None,
    pretrained: bool = False,
    standardize: bool | None = None,
    budget: Length | None = None,
    seed: int | None = None,
    recipe: Mapping[str, Any] | None = None,
    learning_rate: float | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    optimizer: str | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    moves: Literal["auto"] | Sequence[str] | None = None,
    phases: Sequence[Phase | Mapping[str, Any]] | None = None,
    tolerance: float | None = None,
    ship: Ship | None = None,
    keep: Keep | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    parallel: int | None = None,
    on: str | None = None,
    shared: str | None = None,
    progress: bool | None = None,
    track: str | Sequence[str] | None = None,
    on_entry: OnEntry | None = None,
    clock: BudgetClock | None = None,
) -> Result:
    """Train, and return what came of it: a task by its name on your data, or a module of your own.

    A task by name, on files or on objects in memory:

    >>> result = train(task="text-classification", data="reviews.csv", budget="10m")  # doctest: +SKIP
    >>> result = train(task="text-classification", data=frame, validation=0.2, budget="10m")  # doctest: +SKIP

    A module of your own, on data sets, loaders or tensors:

    >>> result = train(model=net, loss="cross_entropy", train=dataset, budget="10m")  # doctest: +SKIP

    The same call again resumes an unfinished run and returns a finished one's result.

    What to train
        plan: a plan file, a mapping like one, or a `Plan`; the keywords are laid over it. Without it they are the plan.
        task: "text-classification", "text-generation", "image-classification", ...: docs/reference/tasks.md.
        model: "auto" (the default), "scratch", a preset, a model folder or hub id, several to be raced; or a
            torch.nn.Module, which is trained from the weights that it has.

    Data
        data: a file, a folder, the id of a data set; or objects: a DataFrame of pandas or polars, a pyarrow Table, a
            list of dicts, a dict of columns, (inputs, labels), a `Dataset` or `DatasetDict` of Hugging Face. Objects
            are written to RUN/data, so that the run can be resumed. A mapping names splits, or fields of `DataSpec`.
        train, validation, test: the same for each split; of a module the data set, loader, pairs or tensors.
            `validation` and `test` may also be shares of train, 0.2 for a fifth. What is left out is cut from train.
        text_column, second_text_column, label_column, path_column: guessed where that is obvious.
        labels: "class", "classes" (several at once) or "number", where their look misleads.

    How to train and to judge
        budget: "10m", "1h30m", "2000 steps", "3 epochs", "2M tokens", a timedelta.
        metric: what decides, by name; of a module also a function (targets, predictions) -> number.
        seed, recipe, moves, phases, tolerance, ship, keep: as in a plan file, docs/reference/plan.md.
        learning_rate (or lr), batch_size, optimizer: these settings of the recipe.
        epochs, steps: a budget in these.
        loss, target, goal, pretrained, standardize: of a module, docs/how-to/own-module.md.

    Running
        device: "cpu", "cuda", "cuda:1", "mps"; without it the accelerator that is found.
        out: the run directory; without it runs/<task>-<hash of the plan>.
        parallel: how many trials run side by side, on this machine each in a process of its own with a GPU or its share
            of the cores, docs/how-to/parallel.md; one, or what the run was begun with.
        on: the Ray cluster on which they run, "ray://HOST:PORT", or "ray" for one on this machine.
        shared: a place that all its nodes reach, "s3://BUCKET/FOLDER", where they do not share the run directory.
        progress: True shows the run on standard error or in the notebook, False does not; None does, unless the logger
            "multistep" is set up to tell the same at INFO.
        track: "tensorboard", "wandb", "mlflow", "trackio", several with commas or as a list: who is told of the run
            while it goes on, docs/how-to/trackers.md.
        on_entry: called with each entry of the journal and the history after it; docs/reference/python.md lists the
            entries.
        clock: for tests.

    Returns
        What the run came to: `score`, `test`, `validation`, `baseline`, `model`, `folder`, and what can be done with
        it, `predict`, `evaluate`, `plot`.

    Raises
        PlanError: the plan cannot be carried out as it stands; the message says what is allowed.
        DataError: the data cannot be read, or do not fit the task.
        RunDirectoryError: `out` holds another run, or may not be written.
        RunFailed: the run could not go on.
        Stopped: after Ctrl-C and SIGTERM; the same call goes on.
    """
    given = {key: value for key, value in locals().items() if value is not None and value is not False}
    given |= {"standardize": False} if standardize is False else {}  # the one that is on unless it is said
    for key in ("plan", "device", "out", "parallel", "on", "shared", "progress", "track", "on_entry", "clock"):
        given.pop(key, None)
    clock = clock or BudgetClock()
    with on_device(device):
        return _train(plan, given, clock, out, Lanes(parallel, on, shared), progress, track, on_entry)


def _train(
    plan: Plan | Mapping[str, Any] | str | Path | None,
    given: dict[str, Any],
    clock: BudgetClock,
    out: str | Path | None,
    lanes: Lanes,
    progress: bool | None,
    track: str | Sequence[str] | None,
    on_entry: OnEntry | None,
) -> Result:
    task, model = given.get("task"), given.get("model")
    if _is_keras(model):
        return _train_keras(plan, given, out, clock, lanes, progress, track, on_entry)
    modular = task == OWN_MODEL or _is_module(model) or any(key in given for key in OF_OWN_MODELS)
    if modular or (plan is None and task is None and "train" in given):
        return _train_own(plan, given, out, clock, lanes, progress, track, on_entry)
    wanted, kept = _plan_of(plan, given)
    directory = RunDirectory(Path(out) if out else default_folder(wanted))
    with tracked(directory.folder, track), watching(wanted, directory.folder, progress, on_entry) as show:
        return run(wanted, directory, clock=clock, on_entry=show, kept=kept, lanes=lanes)


def _plan_of(plan: object, keywords: Mapping[str, Any]) -> tuple[Plan, list[Kept]]:
    """The plan that is meant, with the keywords laid over it, and the objects to be kept with it. Raises PlanError."""
    over, kept = in_files(with_data(keywords), plan.get("task") if isinstance(plan, Mapping) else None)
    if isinstance(plan, Plan) and over:
        raise PlanError(f"{next(iter(keywords))}: a plan cannot be changed; make another with dataclasses.replace")
    settings: list[str] = []
    if plan is not None and not names_sources(over.get("data", "")):  # label_column= alone: of the plan's data
        settings = [f"data.{key}={json.dumps(value)}" for key, value in over.pop("data").items()]
    match plan:
        case None:
            return plan_from({}, over=over), kept
        case Plan():
            return plan, kept
        case Mapping():
            content, more = in_files({key: value for key, value in with_data(plan).items() if key not in over})
            return plan_from(content, settings=settings, over=over), [*more, *kept]
        case str() | Path():
            return read_plan(Path(plan), settings, over), kept
        case _:
            raise PlanError(f"plan is {plan!r}; allowed: the path of a plan file, a mapping, or keywords alone")


def _is_module(model: object) -> bool:
    """Whether it is a torch module, or a class of such, told without importing torch."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return isinstance(model, torch.nn.Module) or (isinstance(model, type) and issubclass(model, torch.nn.Module))


def _is_keras(model: object) -> bool:
    """Whether it is a Keras model, or a class of such, told without importing Keras. Raises PlanError for Keras 2."""
    keras = sys.modules.get("keras")
    kind = model if isinstance(model, type) else type(model)
    if any(base.__module__.startswith("tf_keras.") for base in kind.__mro__):
        raise PlanError(f"model is {kind.__name__}, of Keras 2 (tf_keras); give one of Keras 3, keras.Model")
    known = getattr(keras, "Model", None)
    return isinstance(known, type) and issubclass(kind, known)


def _train_keras(
    plan: object,
    keywords: Mapping[str, Any],
    out: str | Path | None,
    clock: BudgetClock,
    lanes: Lanes,
    progress: bool | None,
    track: str | Sequence[str] | None,
    on_entry: OnEntry | None,
) -> Result:
    from multistep.tasks.keras.request import read_request

    request = read_request(plan, keywords)
    directory = RunDirectory(Path(out) if out else default_folder(request.plan))
    workshop = request.workshop.keep_start(directory.start, resuming=directory.exists)
    with (
        request.borrowed(),
        declared(request.metric),
        tracked(directory.folder, track),
        watching(request.plan, directory.folder, progress, on_entry) as show,
    ):
        result = run(request.plan, directory, clock=clock, on_entry=show, workshop=workshop, lanes=lanes)
    request.remember(directory.folder)
    return result


def _train_own(
    plan: object,
    keywords: Mapping[str, Any],
    out: str | Path | None,
    clock: BudgetClock,
    lanes: Lanes,
    progress: bool | None,
    track: str | Sequence[str] | None,
    on_entry: OnEntry | None,
) -> Result:
    from multistep.tasks.own.found import remember
    from multistep.tasks.own.request import read_request

    request = read_request(plan, keywords)
    directory = RunDirectory(Path(out) if out else default_folder(request.plan))
    # Of several processes the first has written its weights by the time that the others ask for them.
    workshop = request.workshop.keep_start(directory.start, resuming=directory.exists or follows())
    with (
        declared(request.metric),
        tracked(directory.folder, track),
        watching(request.plan, directory.folder, progress, on_entry) as show,
    ):
        result = run(request.plan, directory, clock=clock, on_entry=show, workshop=workshop, lanes=lanes)
    remember(directory.folder, request.code)  # for whoever uses the model in this process
    return result


def resume(
    folder: str | Path,
    *,
    data: str | Path | Mapping[str, str | Path] | None = None,
    model: str | Path | None = None,
    device: str | None = None,
    parallel: int | None = None,
    on: str | None = None,
    shared: str | None = None,
    progress: bool | None = None,
    track: str | Sequence[str] | None = None,
    on_entry: OnEntry | None = None,
    clock: BudgetClock | None = None,
) -> Result:
    """Go on with the run in that directory, which may have been moved since, also to another machine.

    Args
        folder: the run directory.
        data: where its data lie now, where the plan's path leads nowhere: a path, or {the plan's: the new one} for a
            run that reads several. The data must be the same.
        model: the same for a model's folder.
        parallel: as in `train`; by default as many as when the run was last at work.
        on, shared: as in `train`; without them on this machine.
        device, progress, track, on_entry, clock: as in `train`.

    Returns
        What the run came to; of a finished one, at once.

    Raises
        RunDirectoryError: there is no run, or the data are others.
        PlanError, DataError, RunFailed, Stopped: as in `train`.
    """
    clock = clock or BudgetClock()
    directory = RunDirectory(Path(folder).resolve())
    given = [f"{old}={new}" for old, new in data.items()] if isinstance(data, Mapping) else [str(data)] if data else []
    given = [place_in_files(entry) for entry in given]
    with (
        on_device(device),
        going_on(directory, given, str(model) if model else None) as plan,
        tracked(directory.folder, track),
        watching(plan, directory.folder, progress, on_entry) as show,
    ):
        return run(plan, directory, clock=clock, on_entry=show, lanes=Lanes(parallel, on, shared))
