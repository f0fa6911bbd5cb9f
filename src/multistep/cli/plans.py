"""The verbs for plans, before anything is trained. No logic: options in, a call of the api, something to read out."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from multistep import completing
from multistep.cli.began import BEGAN
from multistep.cli.options import Device, Json, Set, on_device, plan_of, print_json, require

if TYPE_CHECKING:
    from multistep.core.values.plan import Plan
    from multistep.engine.dry import DryPhase


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

    require(task is not None and data is not None, "a plan needs --task and --data")
    files = write_new_plan(path, plan_of(None, None, {"task": task, "data": data, "budget": budget}), budget)
    if as_json:
        print_json({"files": [str(file) for file in files]})
    else:
        print(*files, sep="\n")


def schema(
    as_json: Annotated[bool, typer.Option("--json", help="The same; a schema is JSON.")] = False,
) -> None:
    """Print the JSON Schema of plan files, for editors."""
    from multistep.engine.plain import to_json
    from multistep.engine.schema import plan_schema

    print(to_json(plan_schema(), indent=1))


def check(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan file (YAML).")],
    settings: Set = None,
    plan_only: Annotated[bool, typer.Option("--plan-only", help="Read the plan alone: no data, no timing.")] = False,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Check a plan without running it. Shows its defaults, what a run would understand and what its budget holds."""
    from rich.console import Console

    from multistep.engine.plain import plain
    from multistep.engine.planfile import read_with_origins
    from multistep.report.check import check_plan, print_check, print_cost
    from multistep.report.dry import print_phases

    on_device(device)
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
    bandwidth: Annotated[
        str | None, typer.Option(help="With --devices: of one device, a second; by default 100Gbit.")
    ] = None,
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
        wanted = plan_of(plan, settings, {})
        _on_devices(wanted, devices, mean_time_to_failure, bandwidth or "100Gbit", step_seconds, parameters, as_json)
        return
    of_devices = {"--mean-time-to-failure": mean_time_to_failure, "--bandwidth": bandwidth, "--parameters": parameters}
    for name, given in of_devices.items():
        require(given is None, f"{name} says something of many devices; add --devices N")
    step_seconds = step_seconds or 0.05
    require(0 <= noise < math.inf, f"--noise is {noise:g}; allowed: 0 or more")
    outcomes, note = simulate_plan(plan_of(plan, settings, {}), seed=seed, noise=noise, step_seconds=step_seconds)
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


VERBS = (init, schema, check, simulate)
