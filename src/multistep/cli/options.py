"""Options that several verbs have, and what verbs do with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multistep import completing

if TYPE_CHECKING:
    from multistep.core.values.plan import Plan

Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on standard output, and everything else on standard error."),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Where to compute: cpu, cuda, cuda:1 or mps; by default the accelerator that is found. The environment "
        "variable MULTISTEP_DEVICE sets it, too."
    ),
]
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


def require(holds: bool, otherwise: str) -> None:
    from multistep.errors import PlanError

    if not holds:
        raise PlanError(otherwise)


def print_json(value: object) -> None:
    from multistep.engine.plain import to_json

    print(to_json(value))


def on_device(device: str | None) -> None:
    if device is not None:
        os.environ["MULTISTEP_DEVICE"] = device  # `pick_device` reads it, in processes that are started, too


def plan_of(file: Path | None, settings: list[str] | None, keywords: dict[str, Any]) -> Plan:
    from multistep.engine.origins import as_option
    from multistep.engine.planfile import plan_from, read_plan
    from multistep.errors import PlanError

    if file is not None:
        return read_plan(file, settings or (), keywords, named=as_option)
    # A file for each split has no other place on the command line than `--set data.train=... data.validation=...`.
    data = keywords.get("data") or any(setting.startswith("data.") for setting in settings or ())
    if not keywords.get("task") or not data:
        raise PlanError("name a plan file, or at least --task and --data; `multistep train --help` lists the options")
    return plan_from({}, settings=settings or (), over=keywords, named=as_option)
