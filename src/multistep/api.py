"""train, resume, evaluate, generate, simulate, report: where the floors are joined."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multistep.core.evidence.function_metric import FunctionMetric as FunctionMetric
from multistep.core.evidence.function_metric import declared
from multistep.core.evidence.metric import Interval
from multistep.core.values.events import Entry, RunInterrupted, RunStarted, VerdictGiven
from multistep.core.values.history import History
from multistep.core.values.plan import DataSpec, Plan
from multistep.engine.clock import BudgetClock
from multistep.engine.costs import cost_of, remember
from multistep.engine.journal import Journal
from multistep.engine.learner import Interrupted, Workshop
from multistep.engine.loop import Run
from multistep.engine.plancheck import judged_by_loss
from multistep.engine.planfile import plan_from, read_plan
from multistep.engine.rundir import RunDirectory, default_folder, full_disk_told, goes_on_by, plan_hash, writing
from multistep.engine.signals import Stop, stopping
from multistep.engine.sources import changed_sources
from multistep.errors import PlanError, RunDirectoryError, RunFailed, Stopped, UserError
from multistep.report.summary import interval_of

if TYPE_CHECKING:
    from torch import nn

    from multistep.engine.simulate import Outcome
    from multistep.tasks.chat.talk import Talk
    from multistep.tasks.predicting import OnProgress, PredictedFile
    from multistep.tasks.prediction import Prediction

OnEntry = Callable[[Entry, History], None]
OF_OWN_MODELS = ("loss", "train", "validation", "test", "target", "goal", "pretrained")  # keywords of `train`


@dataclass(frozen=True)
class Result:
    """What a finished run came to. `record` is result.json as it stands in the run directory.

    `model` is the folder of what ships. `validation` and `test` are the network's scores; `baseline` has its own.
    """

    metric: str
    validation: Interval
    test: Interval | None
    baseline: Mapping[str, Any]
    model: Path
    folder: Path
    stopped: str
    verdicts: tuple[VerdictGiven, ...]
    record: Mapping[str, Any] = field(repr=False)

    @property
    def score(self) -> float:
        """The test score of what ships, or its validation score where there is no test split."""
        if self.ships == "baseline":
            return float(self.baseline["test" if self.test else "validation"]["score"])
        return (self.test or self.validation).score

    @property
    def ships(self) -> str:
        """`network`, or `baseline` where that leads on validation; `record["ships_because"]` says why."""
        return str(self.record.get("ships") or "network")

    def load(self, model: nn.Module) -> nn.Module:
        """Fill a module of the class that was trained with the exported weights; returns it in evaluation mode.

        Raises PlanError where names or shapes do not fit.
        """
        from multistep.tasks.own.use import load_weights

        return load_weights(model, self.model)


def train(
    plan: Plan | Mapping[str, Any] | str | Path | None = None,
    *,
    out: str | Path | None = None,
    clock: BudgetClock | None = None,
    on_entry: OnEntry | None = None,
    **keywords: Any,
) -> Result:
    """Run a plan and return its result: a value, the path of a plan file, a mapping, or keywords (task, data, ...).

    Or train a model of your own: `model` a torch.nn.Module, `loss`, `train` and perhaps `validation` and `test` data
    sets, loaders or tensors, `metric` a name or a function with its `goal`; docs/own-model.md has the rest.

    The same call again resumes an unfinished run and returns a finished one's result. Ctrl-C and SIGTERM
    raise Stopped. Raises PlanError, DataError, RunDirectoryError, RunFailed.

    >>> result = train(task="text-generation", data="corpus.txt", budget="10m")  # doctest: +SKIP
    >>> result = train(model=net, loss=nn.CrossEntropyLoss(), train=dataset, budget="10m")  # doctest: +SKIP
    """
    clock = clock or BudgetClock()
    if any(key in keywords for key in OF_OWN_MODELS) or _is_module(keywords.get("model")):
        return _train_own(plan, keywords, out, clock, on_entry)
    plan = _plan_of(plan, {key: value for key, value in keywords.items() if value is not None})
    directory = RunDirectory(Path(out) if out else default_folder(plan))
    return run(plan, directory, clock=clock, on_entry=on_entry)


def _plan_of(plan: object, keywords: Mapping[str, Any]) -> Plan:
    """The plan that is meant, with the keywords laid over it. Raises PlanError."""
    match plan:
        case None:
            return plan_from(keywords)
        case Plan() if keywords:
            raise PlanError(f"{next(iter(keywords))}: a plan is a value; make another with dataclasses.replace")
        case Plan():
            return plan
        case Mapping():
            return plan_from(plan, over=keywords)
        case str() | Path():
            return read_plan(Path(plan), over=keywords)
        case _:
            raise PlanError(f"plan is {plan!r}; allowed: the path of a plan file, a mapping, or keywords alone")


def _is_module(model: object) -> bool:
    """Whether it is a torch module, or a class of such, told without importing torch."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return isinstance(model, torch.nn.Module) or (isinstance(model, type) and issubclass(model, torch.nn.Module))


def _train_own(
    plan: object, keywords: Mapping[str, Any], out: str | Path | None, clock: BudgetClock, on_entry: OnEntry | None
) -> Result:
    from multistep.tasks.own.request import read_request

    request = read_request(plan, keywords)
    directory = RunDirectory(Path(out) if out else default_folder(request.plan))
    workshop = request.workshop.keep_start(directory.start, resuming=directory.exists)
    with declared(request.metric):
        return run(request.plan, directory, clock=clock, on_entry=on_entry, workshop=workshop)


def run(
    plan: Plan,
    directory: RunDirectory,
    *,
    clock: BudgetClock,
    on_entry: OnEntry | None = None,
    workshop: Workshop | None = None,
) -> Result:
    """Run or resume a plan in a directory."""
    if directory.result.exists() and directory.exists:
        return _finished_before(plan, directory)
    from multistep.tasks.reach import names_of_plan, within_reach

    with within_reach(names_of_plan(plan) if workshop is None else (), begun=directory.exists):
        return _run(plan, directory, clock, on_entry, workshop)


def _run(
    plan: Plan, directory: RunDirectory, clock: BudgetClock, on_entry: OnEntry | None, workshop: Workshop | None
) -> Result:
    again = goes_on_by(plan.task, directory.folder)
    directory.create()
    with directory.locked(), stopping() as stop, full_disk_told(directory.folder, again):
        try:
            _execute(plan, directory, clock, on_entry, workshop, stop)
        except (Interrupted, KeyboardInterrupt):
            if not stop.asked():
                raise
            name = signal.Signals(stop.number).name
            _note_interruption(directory, clock, name, on_entry)
            how = "stopped at once" if stop.at_once else "stopped"
            raise Stopped(f"{how} by {name}; go on with `{again}`", stop.number) from None
    return read_result(directory)


def _execute(
    plan: Plan,
    directory: RunDirectory,
    clock: BudgetClock,
    on_entry: OnEntry | None,
    workshop: Workshop | None,
    stop: Stop,
) -> None:
    """Take the run to its end, its result and its report."""
    execution: Run | None = None
    try:
        directory.keep_plan(plan)
        if workshop is None:
            from multistep.tasks import workshop_for

            workshop = workshop_for(plan)
        execution = Run(plan, directory, workshop, clock, stop.asked)
        with closing(execution.entries()) as entries:
            for entry in entries:
                if on_entry:
                    on_entry(entry, execution.history)
    except UserError:
        if execution is None or not execution.history.leader:
            directory.discard()  # nothing was won; the mended command may use the same folder
        raise
    except RunFailed as error:
        directory.heartbeat.unlink(missing_ok=True)  # all is journaled, and nobody is at work any more
        with suppress(OSError, RunDirectoryError):
            raise RunFailed(f"{error}; {write_report(directory)} shows what happened") from error
        raise
    remember(cost_of(plan.task, execution.history))
    write_report(directory)


def _note_interruption(directory: RunDirectory, clock: BudgetClock, name: str, on_entry: OnEntry | None) -> None:
    journal = Journal(directory.journal, clock)
    if journal.history.plan is not None:  # else it never began
        entry = journal.append(RunInterrupted(name))
        if on_entry:
            on_entry(entry, journal.history)
    journal.close()
    directory.heartbeat.unlink(missing_ok=True)  # what was spent stands in the journal now


def _finished_before(plan: Plan, directory: RunDirectory) -> Result:
    """The result of a run that is not run again; says so, and whether its data is another by now."""
    from multistep.engine.journal import read_entries

    entries = list(read_entries(directory.journal))
    begun = next((entry.event.plan for entry in entries if isinstance(entry.event, RunStarted)), None)
    if begun not in (None, plan_hash(plan)):
        raise RunDirectoryError(
            f"{directory.folder}: holds the finished run of another plan; name another folder with --out DIR"
        )
    when = f" on {entries[-1].at[:16].replace('T', ' at ')} UTC" if entries and entries[-1].at else " before"
    said = f"{directory.folder}: this run finished{when}; what is shown is its result."
    if changed := changed_sources(plan, directory):
        said += f" Since then {', '.join(changed)} changed: to train on it as it is now, name a new folder (--out DIR)."
    logging.getLogger("multistep").warning(said)
    if not directory.report.exists():
        write_report(directory)
    return read_result(directory)


def resume(folder: str | Path, *, clock: BudgetClock | None = None, on_entry: OnEntry | None = None) -> Result:
    """Go on with the run in that directory. Raises RunDirectoryError if there is none."""
    directory = RunDirectory(Path(folder).resolve()).require_plan()
    with directory.where_it_began():
        plan = read_plan(directory.plan_file)
        return run(plan, directory, clock=clock or BudgetClock(), on_entry=on_entry)


def read_result(directory: RunDirectory) -> Result:
    """The result of a finished run."""
    from multistep.core.values.history import fold
    from multistep.engine.journal import read_entries

    record = json.loads(directory.result.read_text(encoding="utf-8"))
    history = fold(read_entries(directory.journal))
    return Result(
        metric=record["metric"],
        validation=interval_of(record["validation"]),
        test=interval_of(record["test"]) if record["test"] else None,
        baseline=record["baseline"],
        model=directory.folder / record["model"],
        folder=directory.folder,
        stopped=record["stopped"],
        verdicts=history.verdicts,
        record=record,
    )


def write_report(directory: RunDirectory) -> Path:
    """Write report.html and the TensorBoard events of a run, finished or not. Returns the report's path."""
    from multistep.report.page import write_page
    from multistep.report.tensorboard import write_events

    with writing(directory.folder):
        write_events(directory)
        return write_page(directory)


def evaluate(model: str | Path, data: str | DataSpec, *, text_column: str | None = None) -> dict[str, Any]:
    """Score a model folder on data: every metric with its 95% interval, as plain values.

    Of texts that come in splits, `split` says which was scored; `notes` tell of rows left out and columns guessed.
    Raises PlanError or DataError for what cannot be read.
    """
    from multistep.core.evidence.metric import METRICS
    from multistep.core.values.tasks import TASKS
    from multistep.tasks import evaluate_model, scored_split
    from multistep.tasks.folders import existing, task_of
    from multistep.tasks.notes import hearing
    from multistep.tasks.reach import Named, names_of_data, within_reach

    data = data if isinstance(data, DataSpec) else DataSpec(source=data, text_column=text_column)
    folder = existing(str(model))
    with within_reach([Named(folder, "model"), *names_of_data(data)]), hearing() as notes:
        task = TASKS[task_of(folder)]
        evaluation = evaluate_model(str(model), data)
    metrics = {name: metric for name, metric in METRICS.items() if metric.applies(evaluation)}
    scores = {
        name: asdict(metric.interval(evaluation)) | {"unit": task.loss_unit if name == "loss" else metric.unit}
        for name, metric in metrics.items()
    }
    split = scored_split(str(model), data)
    found = {"model": str(model), "data": str(data), "split": split, "notes": notes}
    return {**found, "examples": len(evaluation), "scores": scores}


def simulate(
    plan: Plan, *, seed: int = 0, noise: float = 0.01, step_seconds: float = 0.05
) -> tuple[list[Outcome], str | None]:
    """Run a plan along one simulated curve of each family; returns what it decided, and what is to be said of it."""
    from multistep.engine.simulate import Machine
    from multistep.engine.simulate import simulate as along_curves

    simulated, note = judged_by_loss(plan)
    return along_curves(simulated, seed=seed, noise=noise, machine=Machine(step_seconds=step_seconds)), note


def predict(model: str | Path, inputs: Sequence[str | Path], *, tokens: int = 256) -> list[Prediction]:
    """What a model folder says of each input: a text, a prompt, or the path of an image or audio file.

    `tokens` is the most that an answer to a prompt has. `predict_file` reads inputs from a table. Raises PlanError or
    DataError for what cannot be read.
    """
    from multistep.tasks import predict as predict_inputs

    return predict_inputs(str(model), [str(item) for item in inputs], tokens)


def predict_file(
    model: str | Path,
    data: str | Path | DataSpec,
    output: str | Path | None = None,
    *,
    tokens: int = 256,
    on_progress: OnProgress = lambda rows, share: None,
) -> PredictedFile:
    """Write what a model folder says of each row of a table, behind the row's own columns; however long the table is.

    `data` is a .csv, .tsv, .jsonl, .parquet or .txt file (a text a line), or "-" for standard input; a DataSpec names
    its columns. `output` is a .csv, .tsv or .jsonl file, None for JSON lines on standard output. Raises PlanError or
    DataError.
    """
    from multistep.tasks import predict_file as predict_rows

    spec = data if isinstance(data, DataSpec) else DataSpec(source=str(data))
    if not spec.source:
        raise PlanError("data: nothing to read; name one source")
    target = None if output is None else str(output)
    return predict_rows(str(model), spec.source, target, spec, tokens, on_progress)


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
