"""train, resume, evaluate, generate, simulate, report: where the floors are joined."""

from __future__ import annotations

import errno
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from multistep.core.events import Entry, RunInterrupted, VerdictGiven
from multistep.core.function_metric import FunctionMetric as FunctionMetric
from multistep.core.function_metric import declared
from multistep.core.history import History
from multistep.core.metric import Interval
from multistep.core.plan import DataSpec, Plan
from multistep.engine.clock import BudgetClock
from multistep.engine.costs import cost_of, remember
from multistep.engine.journal import Journal
from multistep.engine.learner import Interrupted, Workshop
from multistep.engine.loop import Run
from multistep.engine.planfile import plan_from, read_plan, to_yaml
from multistep.engine.rundir import RunDirectory, default_folder, goes_on_by, plan_hash, write_atomically
from multistep.errors import PlanError, RunDirectoryError, RunFailed, Stopped, UserError
from multistep.report.summary import interval_of

if TYPE_CHECKING:
    from torch import nn

    from multistep.tasks.prediction import Prediction

OnEntry = Callable[[Entry, History], None]
OF_OWN_MODELS = ("loss", "train", "validation", "test", "target", "goal", "pretrained")  # keywords of `train`
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Result:
    """What a finished run came to. `record` is result.json as it stands in the run directory."""

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
        """The test score, or the validation score where there is no test split."""
        return (self.test or self.validation).score

    def load(self, model: nn.Module) -> nn.Module:
        """Fill a module of the class that was trained with the exported weights; returns it in evaluation mode.

        Raises PlanError where names or shapes do not fit.
        """
        from multistep.tasks.own.use import load_weights

        return load_weights(model, self.model)


def train(
    plan: Plan | str | Path | None = None,
    *,
    out: str | Path | None = None,
    clock: BudgetClock | None = None,
    on_entry: OnEntry | None = None,
    **keywords: Any,
) -> Result:
    """Run a plan (a value, the path of a plan file, or keywords: task, data, budget, ...) and return its result.

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
    if plan is None:
        plan = plan_from(keywords)
    elif isinstance(plan, Plan) and keywords:
        raise PlanError(f"{next(iter(keywords))}: a plan is a value; make another with dataclasses.replace")
    elif not isinstance(plan, Plan):
        plan = read_plan(Path(plan), [f"{key}={value}" for key, value in keywords.items()])
    directory = RunDirectory(Path(out) if out else default_folder(plan))
    return run(plan, directory, clock=clock, on_entry=on_entry)


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
        _require_same(plan, directory)
        if not directory.report.exists():
            write_report(directory)
        return read_result(directory)
    fresh, again = not directory.exists, goes_on_by(plan.task, directory.folder)
    directory.create()
    with directory.locked(), _stopping() as stop, _full_disk(directory.folder, again):
        if not directory.plan_file.exists() or not directory.exists:
            write_atomically(directory.plan_file, to_yaml(plan))
        if workshop is None:
            from multistep.tasks import workshop_for

            try:
                workshop = workshop_for(plan)
            except UserError:
                if fresh:
                    directory.discard()
                raise
        execution = Run(plan, directory, workshop, clock, stop.asked)
        try:
            for entry in execution.entries():
                if on_entry:
                    on_entry(entry, execution.history)
        except UserError:
            if fresh and not execution.history.incumbent:
                directory.discard()  # nothing was won; the mended command may use the same folder
            raise
        except Interrupted:
            name = signal.Signals(stop.number).name
            journal = Journal(directory.journal, clock)
            entry = journal.append(RunInterrupted(name))
            journal.close()
            if on_entry:
                on_entry(entry, journal.history)
            raise Stopped(f"stopped by {name}; go on with `{again}`", stop.number) from None
        remember(cost_of(plan.task, execution.history))
        write_report(directory)
    return read_result(directory)


def resume(folder: str | Path, *, clock: BudgetClock | None = None, on_entry: OnEntry | None = None) -> Result:
    """Go on with the run in that directory. Raises RunDirectoryError if there is none."""
    directory = RunDirectory(Path(folder).resolve()).require()
    with where_it_began(directory):
        plan = read_plan(directory.plan_file)
        return run(plan, directory, clock=clock or BudgetClock(), on_entry=on_entry)


@contextmanager
def where_it_began(directory: RunDirectory) -> Iterator[None]:
    """The working folder in which a run was started, since its plan's paths are relative to that."""
    folder = Path(str(directory.read_resolved().get("folder", "."))) if directory.resolved.exists() else Path()
    with chdir(folder if folder.is_dir() else Path()):
        yield


def read_result(directory: RunDirectory) -> Result:
    """The result of a finished run."""
    from multistep.core.history import fold
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

    write_events(directory)
    return write_page(directory)


def _require_same(plan: Plan, directory: RunDirectory) -> None:
    from multistep.engine.journal import read_entries

    first = next(iter(read_entries(directory.journal)), None)
    if first is not None and getattr(first.event, "plan", None) != plan_hash(plan):
        raise RunDirectoryError(
            f"{directory.folder}: holds the finished run of another plan; name another folder with --out DIR"
        )


class _Stop:
    """Whether a signal asked to stop, and which."""

    def __init__(self) -> None:
        self.number = 0

    def asked(self) -> bool:
        return self.number != 0

    def receive(self, number: int, _frame: FrameType | None) -> None:
        if self.number:
            # Asked twice: whoever sits there does not want to wait for the window's last step.
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def _stopping() -> Iterator[_Stop]:
    """Turn Ctrl-C and SIGTERM into a request that is met between two steps."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, stop.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _full_disk(folder: Path, again: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise RunFailed(
            f"{folder}: the disk is full; what was published before is whole. Free some space and go on with `{again}`"
        ) from error


def evaluate(model: str | Path, data: str | DataSpec, *, text_column: str | None = None) -> dict[str, Any]:
    """Score a model folder on data: every metric with its 95% interval, as plain values.

    Raises PlanError or DataError for what cannot be read.
    """
    from multistep.core.metric import METRICS
    from multistep.tasks import evaluate_model

    data = data if isinstance(data, DataSpec) else DataSpec(source=data, text_column=text_column)
    evaluation = evaluate_model(str(model), data)
    metrics = {name: metric for name, metric in METRICS.items() if metric.applies(evaluation)}
    scores = {name: asdict(metric.interval(evaluation)) | {"unit": metric.unit} for name, metric in metrics.items()}
    return {"model": str(model), "data": str(data), "examples": len(evaluation), "scores": scores}


def predict(model: str | Path, inputs: Sequence[str | Path]) -> list[Prediction]:
    """What a model folder says of each input: a text, or the path of an image or audio file.

    Raises PlanError or DataError for what cannot be read.
    """
    from multistep.tasks import predict as predict_inputs

    return predict_inputs(str(model), [str(item) for item in inputs])


def generate(model: str | Path, prompt: str, *, tokens: int = 200, temperature: float = 0.8, seed: int = 0) -> str:
    """The prompt and what the model writes after it. Raises PlanError for what is no model folder."""
    from multistep.tasks import generate_text

    return generate_text(str(model), prompt, tokens=tokens, temperature=temperature, seed=seed)
