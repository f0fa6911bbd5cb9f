"""The verbs for a run that is there. No logic: options in, a call of the api, something to read out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from multistep import completing
from multistep.cli.options import Json, RunFolder, print_json


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


VERBS = (show, report, track, clean, push)
