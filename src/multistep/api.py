"""train, resume, evaluate, predict, report and the other verbs: where the floors are joined."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from multistep.core.evidence.function_metric import FunctionMetric as FunctionMetric
from multistep.core.evidence.function_metric import declared
from multistep.core.evidence.metric import Goal
from multistep.core.values.plan import DataSpec, Keep, ModelSpec, Phase, Plan, Ship
from multistep.core.values.tasks import OWN_MODEL
from multistep.core.values.units import Amount
from multistep.engine.cleaning import Cleaned
from multistep.engine.cleaning import clean as clean_directory
from multistep.engine.clock import BudgetClock
from multistep.engine.moved import going_on
from multistep.engine.plancheck import judged_by_loss
from multistep.engine.planfile import plan_from, read_plan
from multistep.engine.rundir import RunDirectory, default_folder
from multistep.errors import PlanError
from multistep.interface.given import Data, in_files, known_keywords, names_sources, with_data
from multistep.interface.result import Result as Result
from multistep.interface.running import read_result as read_result
from multistep.interface.running import run as run
from multistep.interface.running import write_report as write_report
from multistep.interface.view import OnEntry, watching

if TYPE_CHECKING:
    from torch import nn

    from multistep.data.memory import Kept
    from multistep.engine.dry import DryPhase
    from multistep.engine.simulate import Outcome
    from multistep.tasks.chat.talk import Talk
    from multistep.tasks.predicting import OnProgress, PredictedFile, Show

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
    out: str | Path | None = None,
    progress: bool | None = None,
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
    out: str | Path | None = None,
    progress: bool | None = None,
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
    out: str | Path | None = None,
    progress: bool | None = None,
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
        learning_rate (or lr), batch_size, optimizer: these settings of the recipe. epochs, steps: a budget in these.
        loss, target, goal, pretrained, standardize: of a module, docs/how-to/own-module.md.

    Running
        out: the run directory; without it runs/<task>-<hash of the plan>.
        progress: True shows the run on standard error or in the notebook, False does not; None does, unless the logger
            "multistep" is set up to tell the same at INFO.
        on_entry: called with each entry of the journal and the history after it; docs/reference/python.md lists the
            entries.
        clock: for tests.

    Raises PlanError and DataError for what cannot be done as it stands, RunDirectoryError for `out`, RunFailed for a
    run that could not go on, Stopped after Ctrl-C and SIGTERM.
    """
    given = {key: value for key, value in locals().items() if value is not None and value is not False}
    given |= {"standardize": False} if standardize is False else {}  # the one that is on unless it is said
    for key in ("plan", "out", "progress", "on_entry", "clock"):
        given.pop(key, None)
    clock = clock or BudgetClock()
    modular = task == OWN_MODEL or _is_module(model) or any(key in given for key in OF_OWN_MODELS)
    if modular or (plan is None and task is None and "train" in given):
        return _train_own(plan, given, out, clock, progress, on_entry)
    wanted, kept = _plan_of(plan, given)
    directory = RunDirectory(Path(out) if out else default_folder(wanted))
    with watching(wanted, directory.folder, progress, on_entry) as show:
        return run(wanted, directory, clock=clock, on_entry=show, kept=kept)


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


def _train_own(
    plan: object,
    keywords: Mapping[str, Any],
    out: str | Path | None,
    clock: BudgetClock,
    progress: bool | None,
    on_entry: OnEntry | None,
) -> Result:
    from multistep.tasks.own.request import read_request

    request = read_request(plan, keywords)
    directory = RunDirectory(Path(out) if out else default_folder(request.plan))
    workshop = request.workshop.keep_start(directory.start, resuming=directory.exists)
    with declared(request.metric), watching(request.plan, directory.folder, progress, on_entry) as show:
        return run(request.plan, directory, clock=clock, on_entry=show, workshop=workshop)


def resume(
    folder: str | Path,
    *,
    data: str | Path | Mapping[str, str | Path] | None = None,
    model: str | Path | None = None,
    progress: bool | None = None,
    on_entry: OnEntry | None = None,
    clock: BudgetClock | None = None,
) -> Result:
    """Go on with the run in that directory, which may have been moved since, also to another machine; what a finished
    one came to. The keywords are those of `train`, but:

    `data` says where its data lie now, where the plan's path leads nowhere: a path, or {the plan's: the new one} for a
    run that reads several; `model` is the same for a model's folder. The data must be the same. Raises
    RunDirectoryError if there is no run or the data are others, and what `train` raises.
    """
    clock = clock or BudgetClock()
    directory = RunDirectory(Path(folder).resolve())
    given = [f"{old}={new}" for old, new in data.items()] if isinstance(data, Mapping) else [str(data)] if data else []
    with (
        going_on(directory, given, str(model) if model else None) as plan,
        watching(plan, directory.folder, progress, on_entry) as show,
    ):
        return run(plan, directory, clock=clock, on_entry=show)


def clean(folder: str | Path, *, all_but_model: bool = False, dry_run: bool = False) -> Cleaned:
    """Remove what an ended run needs no more, as `keep: model` does at its end; says what, and the bytes it frees.

    `all_but_model` also removes the checkpoints that edited plans go on from, and the TensorBoard events. Files that
    the run did not write stay. Raises RunDirectoryError for what is no run, is at work, or has not finished.
    """
    from multistep.core.values.history import fold
    from multistep.engine.journal import read_entries

    directory = RunDirectory(Path(folder)).require()
    with directory.locked():
        history = fold(read_entries(directory.journal))
        return clean_directory(directory, history, all_but_model=all_but_model, dry_run=dry_run)


def check(
    plan: Plan | Mapping[str, Any] | str | Path, *, settings: Sequence[str] = (), over: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A plan with its defaults, the folder that it would run in, and its cost as far as this machine's runs tell.

    `settings` are like those of --set, "recipe.learning_rate=1e-3"; `over` values by their keys. No data are read and
    nothing is trained. Raises PlanError for what is wrong with it, with the line.
    """
    from multistep.engine.planfile import read_with_origins
    from multistep.report.check import check_plan

    if isinstance(plan, str | Path):
        return check_plan(*read_with_origins(Path(plan), settings, over))
    if isinstance(plan, Plan):
        if settings or over:
            raise PlanError("a plan cannot be changed; make another with dataclasses.replace")
        return check_plan(plan)
    return check_plan(plan_from(plan, settings=settings, over=over))


def export(run: str | Path, folder: str | Path) -> Path:
    """Copy the model that a run ships to a folder of its own, whole or not at all; returns that folder.

    `run` is a finished run's directory, or a `Result`'s `folder`. Raises PlanError where that ships no model, and
    RunDirectoryError where something stands in the folder already.
    """
    from multistep.interface.using import export as export_model

    return export_model(Path(run), Path(folder))


def evaluate(
    model: str | Path, data: Data, *, text_column: str | None = None, label_column: str | None = None
) -> dict[str, Any]:
    """Score a model folder, or what a run ships, on data: every metric with its 95% interval, as plain values.

    `data` is what `train` takes as such: files, or objects in memory. Of texts in files that come in splits, `split`
    says which was scored; `notes` tell of rows left out and columns guessed. Raises PlanError or DataError for what
    cannot be read.
    """
    from multistep.interface.using import evaluate as score

    return score(model, data, text_column=text_column, label_column=label_column)


def dry_run(plan: Plan, *, spent: Callable[[], float]) -> list[DryPhase]:
    """What a run of this plan would understand, and what its budget would hold; makes no run directory.

    `spent` tells how many seconds of the budget are gone. Raises PlanError or DataError.
    """
    from multistep.engine.dry import dry_run as run_dry
    from multistep.tasks import workshop_for

    return run_dry(plan, workshop_for(plan), spent=spent)


def simulate(
    plan: Plan, *, seed: int = 0, noise: float = 0.01, step_seconds: float = 0.05
) -> tuple[list[Outcome], str | None]:
    """Run a plan along one simulated curve of each family; returns what it decided, and what is to be said of it."""
    from multistep.engine.simulate import Machine
    from multistep.engine.simulate import simulate as along_curves

    simulated, note = judged_by_loss(plan)
    return along_curves(simulated, seed=seed, noise=noise, machine=Machine(step_seconds=step_seconds)), note


def predict(
    model: str | Path,
    inputs: Any,
    *,
    top_k: int | None = None,
    batch_size: int | None = None,
    threshold: float | None = None,
    tokens: int = 256,
    text_column: str | None = None,
    second_text_column: str | None = None,
    path_column: str | None = None,
) -> Any:
    """What a run or a model folder says of inputs: a list of predictions in their order; of a DataFrame, the frame with
    its answers as more columns.

    `inputs` is one of these or a list of them: a text, a pair of texts or a prompt; the path of an image or audio file,
    of a folder of such or of a table; a uint8 image (H, W) or (H, W, C), or one of Pillow's; a sound as {"array":
    samples, "sampling_rate": hertz}; turns of a conversation. Or a DataFrame of pandas or polars, whose columns are
    named by the last three keywords where training had others.

    Each prediction holds its `input`, `output`, `probability`, and `others`: the `top_k` likeliest classes (at least
    5). `threshold` is docs/how-to/predict.md's, `tokens` the most that an answer to a prompt has. Raises PlanError, and
    DataError for what cannot be read.

    >>> predict("RUN", ["a joy from start to finish"])[0].output  # doctest: +SKIP
    'positive'
    """
    from multistep.interface.using import predict as predict_inputs
    from multistep.tasks.prediction import Asked

    asked = Asked(tokens, top_k, batch_size, threshold)
    columns = DataSpec(text_column=text_column, second_text_column=second_text_column, path_column=path_column)
    return predict_inputs(model, inputs, asked=asked, columns=columns)


def predict_file(
    model: str | Path,
    data: str | Path | DataSpec | Sequence[str | Path],
    output: str | Path | None = None,
    *,
    top_k: int | None = None,
    batch_size: int | None = None,
    threshold: float | None = None,
    tokens: int = 256,
    text_column: str | None = None,
    second_text_column: str | None = None,
    path_column: str | None = None,
    on_progress: OnProgress = lambda rows, share: None,
    show: Show | None = None,
) -> PredictedFile:
    """Write what a model folder says of each row of a table, behind the row's own columns; however long the table is.

    `data` is a table (.csv, .tsv, .jsonl, .parquet, .txt with a text a line), a folder of images, sounds or texts, "-"
    for standard input, or several of these; columns are named by keywords or by a DataSpec. `output` is a .csv, .tsv,
    .jsonl or .parquet file, None for JSON lines on standard output, or for `show`, which is given the predictions of
    some rows at a time. The other keywords are those of `predict`. Raises PlanError or DataError.
    """
    from multistep.tasks import predict_file as predict_rows
    from multistep.tasks.prediction import Asked

    named = DataSpec(text_column=text_column, second_text_column=second_text_column, path_column=path_column)
    spec = data if isinstance(data, DataSpec) else named
    sources = [data.source] if isinstance(data, DataSpec) else [data] if isinstance(data, str | Path) else list(data)
    if not sources or not all(sources):
        raise PlanError("data: nothing to read; name one source")
    asked = Asked(tokens, top_k, batch_size, threshold)
    target = None if output is None else str(output)
    return predict_rows(str(model), sources, target, spec, asked, on_progress, show)


def serve(
    model: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    tokens: int = 256,
    threshold: float | None = None,
    limit_mb: float = 32.0,
) -> None:
    """Answer requests over HTTP by what a run ships, or by a model folder, until Ctrl-C; docs/how-to/predict.md.

    `limit_mb` is how large a request may be, in millions of bytes; `tokens` the most that an answer to a prompt has.
    Raises PlanError where FastAPI or uvicorn is missing (`pip install "multistep[serve]"`), or the port is taken.
    """
    from multistep.tasks import serve as serve_model

    serve_model(str(model), host=host, port=port, tokens=tokens, threshold=threshold, limit_mb=limit_mb)


def generate(model: str | Path, prompt: str, *, tokens: int = 200, temperature: float = 0.8, seed: int = 0) -> str:
    """The prompt and what the model writes after it; of a model that was trained on conversations its answer alone.

    Raises PlanError for what is no model folder, or writes no text.
    """
    from multistep.tasks import generate_text

    return generate_text(str(model), prompt, tokens=tokens, temperature=temperature, seed=seed)


def chat(
    model: str | Path, *, system: str | None = None, tokens: int = 512, temperature: float = 0.7, seed: int = 0
) -> Talk:
    """A conversation with what a run came to, or with a model folder or hub id: `chat("RUN").say("Hello")` answers.

    A model that was not trained on conversations goes on with each text by itself, which is told. Raises PlanError.
    """
    from multistep.tasks.folders import existing
    from multistep.tasks.notes import say
    from multistep.tasks.reach import Named, within_reach

    with within_reach([Named(existing(str(model)), "model")]):
        from multistep.tasks.chat.talk import Talk, load_writer

        writer = load_writer(str(model))
    if not writer.answers:
        say([f"{model}: was not trained on conversations; it goes on with what you write, each time anew"])
    elif not writer.chats:
        say([f"{model}: was trained on prompts and completions; it answers each line by itself"])
    return Talk(writer, system, temperature, tokens, seed)
