"""The verbs of the command line. No logic: options in, a call of the api, something to read out."""

from __future__ import annotations

import time

BEGAN = time.monotonic()  # before anything slow is imported: the budget pays for imports too

import json
import math
import os
import signal
import sys
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from multistep import completing
from multistep.cli_use import USE, Device, Json, print_json, require

if TYPE_CHECKING:
    from multistep.core.values.plan import Plan
    from multistep.engine.dry import DryPhase

# There are no plugins of pydantic here; looking for some through all that is installed takes 60 ms of `check`.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


class Verbs(TyperGroup):
    """The verbs, which may have --debug behind them too; and options of other trainers, told what they are here."""

    _words: list[str]  # of the command line

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        behind = args.index("--") if "--" in args else len(args)
        if "--debug" in args[:behind]:
            args = ["--debug", *(word for word in args[:behind] if word != "--debug"), *args[behind:]]
        self._words = args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # Typer would end without a word. A run that has begun says itself where it stands.
            from multistep.errors import Stopped

            raise Stopped("stopped by SIGINT", signal.SIGINT) from None
        except Exception as error:
            if told := _known_elsewhere(error, self._words):
                raise told from None
            raise


def _known_elsewhere(error: Exception, words: list[str]) -> Exception | None:
    """What to say of an option that other trainers have; None for every other error."""
    if type(error).__name__ != "NoSuchOption":  # typer brings its own, older ones take click's
        return None
    from multistep.engine.elsewhere import known_elsewhere
    from multistep.errors import PlanError

    option = str(getattr(error, "option_name", ""))
    verb = next((word for word in words if not word.startswith("-")), "")
    if verb not in ("train", "check", "simulate"):  # which take plans
        return None
    if option.replace("_", "-") in (getattr(error, "possibilities", None) or ()):
        return None  # typer names it
    given = next((w.partition("=")[2] or after for w, after in pairwise([*words, ""]) if w.split("=")[0] == option), "")
    found = known_elsewhere(option, None if given.startswith("--") else given, typed=True)
    return PlanError(f"{option}: no such option; {found}") if found else None


app = typer.Typer(
    name="multistep",
    cls=Verbs,
    help="Train a model within a time budget: measure, try changes, keep what helps, and say what of it is proven.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Out = Annotated[Path | None, typer.Option("--out", help="The run directory; by default runs/<task>-<plan hash>.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Set one value of the plan, such as recipe.learning_rate=1e-3; may be repeated.",
        autocompletion=completing.settings,
    ),
]
Track = Annotated[
    str | None,
    typer.Option(
        help="Trackers to tell of the run while it goes on: tensorboard,wandb,mlflow,trackio.",
        autocompletion=completing.trackers,
    ),
]
Shared = Annotated[
    str | None,
    typer.Option(
        "--shared",
        help="A place that all nodes of the cluster of --on reach, such as s3://BUCKET/FOLDER, where they do not share "
        "the run's directory.",
    ),
]
Parallel = Annotated[
    int | None,
    typer.Option(
        "--parallel",
        help="How many trials run side by side on this machine, each in a process with a GPU or its share of the "
        "cores; default 1, or what the run was begun with.",
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        help="Where the trials of --parallel run: a Ray cluster, ray://HOST:PORT, or ray for one on this machine.",
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", autocompletion=completing.runs)]
PlanFile = Annotated[Path | None, typer.Argument(metavar="[PLAN]", help="A plan file (YAML).")]


def _show_version(asked: bool) -> None:
    if asked:
        from multistep import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    _state["debug"] = debug


_state = {"debug": False}


def _on_device(device: str | None) -> None:
    if device is not None:
        os.environ["MULTISTEP_DEVICE"] = device  # `pick_device` reads it, in processes that are started, too


def _plan(file: Path | None, settings: list[str] | None, keywords: dict[str, Any]) -> Plan:
    from multistep.engine.origins import as_option
    from multistep.engine.planfile import plan_from, read_plan
    from multistep.errors import PlanError

    if file is not None:
        return read_plan(file, settings or (), keywords, named=as_option)
    if not keywords.get("task") or not keywords.get("data"):
        raise PlanError("name a plan file, or at least --task and --data; `multistep train --help` lists the options")
    return plan_from({}, settings=settings or (), over=keywords, named=as_option)


@app.command()
def train(
    plan: PlanFile = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="What to train for: text-generation, text-classification, ...; docs/reference/tasks.md has them all.",
            autocompletion=completing.tasks,
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="What to train on: a file, a folder, or the id of a data set on the hub.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="auto (the default): a pretrained model, if one is at hand and can be tuned within the budget, else a "
            "new one; scratch: a new one; or a preset, a model folder or a hub id. Of several (--model A --model B), "
            "the one that does best on your data is taken."
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="The metric that models are judged by: loss, accuracy, wer, ...; the default depends on the task.",
            autocompletion=completing.metrics,
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="How long to train: 10m, '1h30m', '2000 steps', '3 epochs' or '2M tokens'.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="The same as --budget 'N epochs'.")] = None,
    steps: Annotated[int | None, typer.Option(help="The same as --budget 'N steps'.")] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr",
            "--learning-rate",
            help="The learning rate (recipe.learning_rate); if it is not given, it is chosen for you.",
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per optimizer step (recipe.batch_size).")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="The optimizer (recipe.optimizer): adamw, sgd, muon, ...")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The random seed of initial weights and data order; default 0.")
    ] = None,
    ship: Annotated[
        str | None,
        typer.Option(
            help="What the run ends with: auto (the default) takes the network or the simple baseline, whichever "
            "scores better; network always takes the network."
        ),
    ] = None,
    device: Device = None,
    keep: Annotated[
        str | None, typer.Option(help="model (the default) removes checkpoints once the run has ended; all keeps them.")
    ] = None,
    track: Track = None,
    parallel: Parallel = None,
    on: On = None,
    shared: Shared = None,
    out: Out = None,
    settings: Set = None,
    dry: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Read the data, build the model, say what was understood, and stop before training."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model: from a plan file, or from --task and --data. The same command again goes on with the run."""
    from multistep.engine.rundir import RunDirectory, default_folder

    _on_device(device)
    names = ",".join(model) if model else None
    given: dict[str, Any] = {"task": task, "data": data, "model": names, "metric": metric, "budget": budget}
    given |= {"seed": seed, "ship": ship, "keep": keep}
    given |= {"epochs": epochs, "steps": steps, "lr": lr, "batch_size": batch_size, "optimizer": optimizer}
    wanted = _plan(plan, settings, given)
    if dry:
        return _dry_run(wanted, as_json)
    return _train(wanted, RunDirectory(out or default_folder(wanted)), as_json, track, (parallel, on, shared))


def _dry_run(plan: Plan, as_json: bool) -> None:
    from rich.console import Console

    from multistep import api
    from multistep.engine.launched import follows
    from multistep.engine.plain import plain
    from multistep.report.dry import print_dry_run

    if follows():  # one of several processes is enough
        return
    found = api.dry_run(plan, spent=lambda: time.monotonic() - BEGAN)
    if as_json:
        print_json({"phases": plain(found)})
    else:
        print_dry_run(plan, found, Console())


@app.command()
def resume(
    run: RunFolder,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Where the run's data are now, if they were moved; OLD=NEW if the run reads several."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Where the folder of the model that the run began with is now, if it was moved.")
    ] = None,
    device: Device = None,
    track: Track = None,
    parallel: Parallel = None,
    on: On = None,
    shared: Shared = None,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped or killed. It may be on another machine than it began on."""
    from multistep.data.elastic import place_in_files
    from multistep.engine.moved import going_on
    from multistep.engine.rundir import RunDirectory

    _on_device(device)
    directory = RunDirectory(run.resolve())
    with going_on(directory, [place_in_files(entry) for entry in data or ()], model) as plan:
        _train(plan, directory, as_json, track, (parallel, on, shared))


@app.command()
def demo(
    what: Annotated[
        str, typer.Argument(metavar="[text|language|image|speech|change]", help="Which demo to run.")
    ] = "text",
    budget: Annotated[
        str | None,
        typer.Option(help="How long to train; by default 3m for text, 40 epochs for change and 100s for the others."),
    ] = None,
    device: Device = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Train on data that needs no download. It is the Python manual, docstrings, handwritten digits or spoken words.

    In the demo called change a small net soon knows a little text by heart, and what is done about it helps.
    """
    from multistep.core.values.tasks import DEMOS
    from multistep.engine.rundir import RunDirectory, default_folder
    from multistep.errors import PlanError, nearest

    _on_device(device)
    if what not in DEMOS:
        raise PlanError(f"unknown demo '{what}'; allowed: {', '.join(DEMOS)}.{nearest(what, DEMOS)}")
    wanted = _plan(None, None, {**DEMOS[what], **({"budget": budget} if budget else {})})
    _train(wanted, RunDirectory(out or default_folder(wanted)), as_json)


def _train(
    plan: Plan,
    directory: Any,
    as_json: bool,
    track: str | None = None,
    lanes: tuple[int | None, str | None, str | None] = (None, None, None),
) -> None:
    from rich.console import Console

    from multistep import api
    from multistep.engine.clock import BudgetClock
    from multistep.engine.launched import follows
    from multistep.report.live import LiveView
    from multistep.tracking.beside import tracked

    if follows():  # the first of several processes shows the run
        api.run(plan, directory, clock=BudgetClock(began=BEGAN))
        return
    console = Console(stderr=True)
    with tracked(directory.folder, track), LiveView(plan, out=directory.folder, console=console) as view:
        clock = BudgetClock(began=BEGAN)
        result = api.run(plan, directory, clock=clock, on_entry=view.on_entry, lanes=api.Lanes(*lanes))
    if as_json:
        print_json(result.record)
        return
    from multistep.report.table import print_result

    exhibits = json.loads(directory.exhibits.read_text(encoding="utf-8")) if directory.exhibits.exists() else []
    print_result(dict(result.record), directory.folder, exhibits, Console())


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="[PLAN]", help="The plan file to write.")] = Path("plan.yaml"),
    task: Annotated[
        str | None, typer.Option(help="What to train for: text-classification, ...", autocompletion=completing.tasks)
    ] = None,
    data: Annotated[str | None, typer.Option(help="What to train on: a file, a folder, or a data set's id.")] = None,
    budget: Annotated[str, typer.Option(help="How long to train.")] = "10m",
    as_json: Json = False,
) -> None:
    """Write a plan file to begin with, and the schema beside it that editors complete and check it by."""
    from multistep.engine.new_plan import write_new_plan

    files = write_new_plan(path, _plan(None, None, {"task": task, "data": data, "budget": budget}), budget)
    if as_json:
        print_json({"files": [str(file) for file in files]})
    else:
        print(*files, sep="\n")


@app.command()
def schema(
    as_json: Annotated[bool, typer.Option("--json", help="The same; a schema is JSON.")] = False,
) -> None:
    """Print the JSON Schema of plan files, for editors."""
    from multistep.engine.plain import to_json
    from multistep.engine.schema import plan_schema

    print(to_json(plan_schema(), indent=1))


@app.command()
def check(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan file (YAML).")],
    settings: Set = None,
    plan_only: Annotated[bool, typer.Option("--plan-only", help="Read the plan alone: no data, no timing.")] = False,
    as_json: Json = False,
) -> None:
    """Check a plan without running it. Shows its defaults, what a run would understand and what its budget holds."""
    from rich.console import Console

    from multistep.engine.plain import plain
    from multistep.engine.planfile import read_with_origins
    from multistep.report.check import check_plan, print_check, print_cost
    from multistep.report.dry import print_phases

    wanted, origins = read_with_origins(plan, settings or ())
    found = check_plan(wanted, origins)
    if not as_json:
        print_check(found)
    tried, why_not = ([], "") if plan_only else _tried(wanted)
    if as_json:
        print_json({**found, "run": plain(tried), "run_unknown": why_not})
        return
    print_phases(wanted, tried, Console())
    if not tried:
        print_cost(found["cost"])
    if why_not:
        Console().print(f"What a run would do is not known: {why_not}", markup=False, highlight=False)


def _tried(plan: Plan) -> tuple[list[DryPhase], str]:
    """What a dry run finds, or why there can be none."""
    from multistep import api
    from multistep.errors import UserError

    try:
        return api.dry_run(plan, spent=lambda: time.monotonic() - BEGAN), ""
    except ModuleNotFoundError as error:
        return [], f"{error.name} is not installed here"
    except UserError as error:
        return [], str(error)


@app.command()
def simulate(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan file (YAML).")],
    settings: Set = None,
    noise: Annotated[float, typer.Option(help="Standard deviation of the noise in each validation score.")] = 0.01,
    step_seconds: Annotated[
        float | None,
        typer.Option(help="Seconds that a step takes; by default 0.05, and with --devices what was measured here."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The random seed of the curves.")] = 0,
    devices: Annotated[
        int | None, typer.Option(help="Instead: what the budget would buy on so many devices, reckoned, not run.")
    ] = None,
    mean_time_to_failure: Annotated[
        str | None, typer.Option(help="With --devices: of one device, 50h; by default none fails.")
    ] = None,
    bandwidth: Annotated[str, typer.Option(help="With --devices: of one device, a second.")] = "100Gbit",
    parameters: Annotated[
        str | None, typer.Option(help="With --devices: the model's, 135M; by default what was measured here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Try a plan on simulated learning curves. Shows what it would decide, in seconds instead of hours."""
    from multistep.api import simulate as simulate_plan
    from multistep.report.check import print_outcomes

    # Not by typer's `min`, which lets nan pass.
    told = f"--step-seconds is {step_seconds}; allowed: more than 0"
    require(step_seconds is None or 0 < step_seconds < math.inf, told)
    if devices is not None:
        wanted = _plan(plan, settings, {})
        _on_devices(wanted, devices, mean_time_to_failure, bandwidth, step_seconds, parameters, as_json)
        return
    step_seconds = step_seconds or 0.05
    require(0 <= noise < math.inf, f"--noise is {noise:g}; allowed: 0 or more")
    outcomes, note = simulate_plan(_plan(plan, settings, {}), seed=seed, noise=noise, step_seconds=step_seconds)
    if note:
        print(f"multistep: {note}", file=sys.stderr)
    if as_json:
        print_json({"curves": outcomes, "note": note})
    else:
        print_outcomes(outcomes)


def _on_devices(
    plan: Plan,
    devices: int,
    mean_time_to_failure: str | None,
    bandwidth: str,
    step_seconds: float | None,
    parameters: str | None,
    as_json: bool,
) -> None:
    from rich.console import Console

    from multistep.engine.scaling import parse_bandwidth, parse_count, scaled, seconds_of_time
    from multistep.report.scaling import print_scaled

    failing = mean_time_to_failure
    found = scaled(
        plan,
        devices,
        between_failures=seconds_of_time(failing, "--mean-time-to-failure") if failing else math.inf,
        bits_per_second=parse_bandwidth(bandwidth),
        step_seconds=step_seconds,
        parameters=parse_count(parameters) if parameters else None,
    )
    if as_json:
        print_json(asdict(found))
    else:
        print_scaled(plan, found, Console())


@app.command()
def show(run: RunFolder, as_json: Json = False) -> None:
    """Print what a run did, why, and where it stands."""
    from rich.console import Console

    from multistep.engine.rundir import RunDirectory
    from multistep.report.summary import summary
    from multistep.report.table import print_run

    directory = RunDirectory(run).require()
    if as_json:
        print_json(summary(directory))
    else:
        print_run(directory, Console())


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="A run directory, or several to compare.", autocompletion=completing.runs
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where to write the page that compares several runs; default runs-compared.html."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the report and TensorBoard events again. For several runs, write one page that compares them."""
    from multistep.engine.rundir import RunDirectory
    from multistep.errors import PlanError

    directories = [RunDirectory(run).require() for run in runs]
    if len(directories) > 1:
        from multistep.report.compare import write_comparison

        page = write_comparison(directories, out or Path("runs-compared.html"))
    elif out is not None:
        raise PlanError(f"--out names the page that compares several runs; one run's report stays in {runs[0]}")
    else:
        from multistep.api import write_report

        page = write_report(directories[0])
    if as_json:
        print_json({"report": str(page)})
    else:
        print(page)


@app.command()
def track(
    run: RunFolder,
    to: Annotated[
        str,
        typer.Option(
            help="Trackers, with commas between them: tensorboard,wandb,mlflow,trackio.",
            autocompletion=completing.trackers,
        ),
    ],
    model: Annotated[bool, typer.Option("--model/--no-model", help="Whether the model's folder goes along.")] = True,
    as_json: Json = False,
) -> None:
    """Tell trackers of a run: curves, trials, verdicts, report and model. Twice is the same as once."""
    from multistep.api import track as tell

    went = tell(run, to, with_model=model)
    if as_json:
        print_json({"run": str(run), "to": went})
    else:
        print(*went, sep="\n")


@app.command()
def clean(
    run: RunFolder,
    all_but_model: Annotated[
        bool,
        typer.Option(
            "--all-but-model", help="Also remove what edited plans could go on from, and TensorBoard's events."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing; say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what a finished run no longer needs. Those are its checkpoints above all; files of yours stay."""
    from multistep.api import clean as clean_run
    from multistep.engine.cleaning import sentences

    found = clean_run(run, all_but_model=all_but_model, dry_run=dry_run)
    if as_json:
        print_json({"run": str(run), "dry_run": dry_run, **asdict(found)})
    else:
        print(*sentences(found, run, dry_run=dry_run), sep="\n")


@app.command()
def push(
    run: RunFolder,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    license: Annotated[
        str | None, typer.Option(help="The licence that the card names: apache-2.0, mit, ...; without it none.")
    ] = None,
    with_report: Annotated[
        bool,
        typer.Option("--with-report", help="Also send report.html, which shows examples of the data, and result.json."),
    ] = False,
    message: Annotated[str | None, typer.Option(help="The message of the commit.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing; show what would be sent.")] = False,
    as_json: Json = False,
) -> None:
    """Send the model of a finished run to the Hugging Face hub, with its card."""
    from multistep.api import push as send

    found = send(
        run,
        repository,
        private=private,
        license=license,
        with_report=with_report,
        message=message,
        dry_run=dry_run,
    )
    if as_json:
        print_json(asdict(found))
    elif dry_run:
        print(f"{repository}{', private' if private else ''}: would be sent, nothing was")
        print(*(f"  {size:>13,} bytes  {name}" for name, size in found.files.items()), "", found.card, sep="\n")
    else:
        print(found.url)


for verb in USE:
    app.command()(verb)


def _told_elsewhere(error: Exception) -> bool:
    """Whether this is one of several processes of which another tells people; the first one has the exit code."""
    from multistep.engine.launched import follows

    if not follows() or not {"train", "resume", "demo"} & set(sys.argv[1:]):
        return False
    from multistep.errors import ProcessLost
    from multistep.interface.fleet import absent

    return getattr(error, "told", False) or (not isinstance(error, ProcessLost) and absent(error))


def main() -> NoReturn:
    """The entry point: exit code 2 for the user's mistakes, 1 for failures, 130 or 143 for signals."""
    import traceback

    from multistep.errors import MultistepError, ProcessLost

    code = 0
    try:
        app()
    except (MultistepError, OSError) as error:
        if _told_elsewhere(error):
            sys.exit(1 if isinstance(error, ProcessLost) else 0)
        code = error.exit_code if isinstance(error, MultistepError) else 1
        more = "; --debug shows where" if isinstance(error, OSError) else ""
        if _state["debug"]:
            traceback.print_exc()
        print(f"multistep: {error}{more}", file=sys.stderr)
    sys.exit(code)
