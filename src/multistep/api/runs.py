"""What is done with a run's directory: the model taken out of it, and what it needs no more removed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multistep.core.values.plan import DataSpec
from multistep.engine.cleaning import Cleaned
from multistep.engine.cleaning import clean as clean_directory
from multistep.engine.rundir import RunDirectory
from multistep.errors import PlanError

if TYPE_CHECKING:
    from torch import nn

    from multistep.exports.order import Exported
    from multistep.interface.push import Pushed


def export(
    run: str | Path,
    folder: str | Path,
    *,
    to: str | None = None,
    quantize: bool = False,
    data: Any = None,
    model: nn.Module | None = None,
    hub_model_id: str | None = None,
    task_type: str | None = None,
) -> Path:
    """Copy the model that a run ships to a folder of its own, whole or not at all; returns that folder.

    Args
        run: a finished run's directory, a model folder, or a `Result`'s `folder`.
        folder: where it goes: a new folder, or an empty one.
        to: another format, "onnx", "tensorflow" or "elasticsearch"; checked against torch before it is published. None:
            the model folder as it is.
        quantize: also write an ONNX graph with weights of 8 bits, with its scores.
        data: labelled data to check and score by; by default the run's validation split. Of a module of your own, its
            inputs in a form that `predict` takes.
        model: a module of the class of your own that was trained, in another process than that which trained it.
        hub_model_id: of Elasticsearch, what the model is called there: "name" or "owner/name".
        task_type: of Elasticsearch, its task where the model goes for several: "text_embedding" of one for fill-mask.

    Returns
        The folder.

    Raises
        PlanError: the run ships no model, or none that can be written so.
        RunDirectoryError: something stands in the folder already.
    """
    if to is not None:
        more: dict[str, Any] = {"hub_model_id": hub_model_id, "task_type": task_type}
        return export_to(run, folder, to=to, quantize=quantize, data=data, model=model, **more).folder
    if quantize or data is not None or model is not None or hub_model_id or task_type:
        raise PlanError("export: all but run and folder is for other formats; name one with to='onnx'")
    from multistep.interface.using import export as export_model

    return export_model(Path(run), Path(folder))


def export_to(
    run: str | Path,
    folder: str | Path | None = None,
    *,
    to: str,
    quantize: bool = False,
    data: Any = None,
    model: nn.Module | None = None,
    hub_model_id: str | None = None,
    task_type: str | None = None,
) -> Exported:
    """`export` to another format, with what was measured of it. `folder` None: RUN/onnx, by the name of the format."""
    from multistep.exports.to import export_as

    spec = DataSpec(source=str(data)) if isinstance(data, str | Path) else data
    target = _beside(Path(run)) / to if folder is None else Path(folder)
    more: dict[str, Any] = {"hub_model_id": hub_model_id, "task_type": task_type}
    return export_as(to, str(run), target, data=spec, quantize=quantize, module=model, **more)


def _beside(model: Path) -> Path:
    """The run's directory, of a run or of one of its model folders; a model folder that is not in a run itself."""
    if not model.is_dir():
        raise PlanError(f"{model}: is no folder here, so say which folder the export is to be written to")
    return next((folder for folder in (model, model.parent) if RunDirectory(folder).exists), model)


def clean(folder: str | Path, *, all_but_model: bool = False, dry_run: bool = False) -> Cleaned:
    """Remove what an ended run needs no more, as `keep: model` does at its end; says what, and the bytes it frees.

    Files that the run did not write stay.

    Args
        folder: the run directory.
        all_but_model: also remove the checkpoints that edited plans go on from, and the TensorBoard events.
        dry_run: remove nothing; say what would be removed.

    Returns
        What was removed, with its bytes.

    Raises
        RunDirectoryError: what is no run, is at work, or has not finished.
    """
    from multistep.core.values.history import fold
    from multistep.engine.journal import read_entries

    directory = RunDirectory(Path(folder)).require()
    with directory.locked():
        history = fold(read_entries(directory.journal))
        return clean_directory(directory, history, all_but_model=all_but_model, dry_run=dry_run)


def track(run: str | Path, to: str | Sequence[str], *, with_model: bool = True) -> list[str]:
    """Tell trackers of a run: its curves, its trials as nested runs, verdicts, the report and the model.

    What a tracker has already is not told again, so the same call twice changes nothing. A run that goes on is told as
    far as it is.

    Args
        run: the run directory.
        to: "tensorboard", "wandb", "mlflow", "trackio"; several as a list, or with commas.
        with_model: whether the folder of the model goes along, once the run has finished.

    Returns
        Where it went, in words, one for each tracker.

    Raises
        PlanError: there is no such tracker, or it is not installed.
        RunDirectoryError: there is no run.
        RunFailed: a tracker could not be told; the others were.
    """
    from multistep.tracking.follow import track as tell

    return tell(RunDirectory(Path(run)).require(), to, with_model=with_model)


def push(
    run: str | Path,
    repository: str,
    *,
    private: bool = False,
    license: str | None = None,
    with_report: bool = False,
    message: str | None = None,
    dry_run: bool = False,
) -> Pushed:
    """Send the model that a run ships to the Hugging Face hub, with its card, in one commit.

    The token is the hub's own: HF_TOKEN, or `hf auth login`. HF_ENDPOINT names another hub.

    Args
        run: a finished run's directory, or a model folder with a card.
        repository: "OWNER/NAME"; made if it is not there.
        private: whether a repository that is made is private.
        license: written into the card's head: "apache-2.0", "mit", ...
        with_report: whether report.html and result.json go along; the report shows examples of the data.
        message: of the commit.
        dry_run: send nothing; say what would be sent.

    Returns
        The files with their bytes, the card, and unless it is a dry run the repository's address and the commit.

    Raises
        PlanError: a name or licence that cannot be meant, no token, or one that may not write.
        RunDirectoryError: no finished run, or a folder without a card.
        RunFailed: the hub could not be reached, or did not take it.

    >>> push("RUN", "me/reviews", private=True, dry_run=True).files  # doctest: +SKIP
    {'README.md': 2214, 'config.json': 711, 'model.safetensors': 17549312, ...}
    """
    from multistep.interface.push import push as send

    return send(
        Path(run),
        repository,
        private=private,
        license=license,
        with_report=with_report,
        message=message,
        dry_run=dry_run,
    )
