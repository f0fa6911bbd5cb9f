"""The verbs that train. No logic: options in, a call of the api, something to read out."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multistep import completing
from multistep.cli.began import BEGAN
from multistep.cli.options import (
    Device,
    Json,
    On,
    Out,
    Parallel,
    PlanFile,
    RunFolder,
    Set,
    Shared,
    Track,
    on_device,
    plan_of,
    print_json,
)

if TYPE_CHECKING:
    from multistep.core.values.plan import Plan


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

    on_device(device)
    names = ",".join(model) if model else None
    given: dict[str, Any] = {"task": task, "data": data, "model": names, "metric": metric, "budget": budget}
    given |= {"seed": seed, "ship": ship, "keep": keep}
    given |= {"epochs": epochs, "steps": steps, "lr": lr, "batch_size": batch_size, "optimizer": optimizer}
    wanted = plan_of(plan, settings, given)
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

    on_device(device)
    directory = RunDirectory(run.resolve())
    with going_on(directory, [place_in_files(entry) for entry in data or ()], model) as plan:
        _train(plan, directory, as_json, track, (parallel, on, shared))


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

    on_device(device)
    if what not in DEMOS:
        raise PlanError(f"unknown demo '{what}'; allowed: {', '.join(DEMOS)}.{nearest(what, DEMOS)}")
    wanted = plan_of(None, None, {**DEMOS[what], **({"budget": budget} if budget else {})})
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


VERBS = (train, resume, demo)
