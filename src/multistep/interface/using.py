"""Scoring and asking a finished model, with what Python users have in their hands."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multistep.core.evidence.brief import Brief
from multistep.core.evidence.metric import METRICS, Evaluation, Metric, metric_named
from multistep.core.values.plan import DataSpec
from multistep.core.values.tasks import OWN_MODEL
from multistep.errors import DataError, PlanError, RunDirectoryError, UserError
from multistep.interface.given import is_spec

if TYPE_CHECKING:
    from torch import nn

    from multistep.data.media import Kind
    from multistep.interface.given import Data
    from multistep.tasks.prediction import Asked

ENDINGS: Mapping[Kind, str] = {"image": ".png", "sound": ".wav", "text": ".txt"}


def evaluate(
    model: str | Path,
    data: Any,
    *,
    metric: Any = None,
    text_column: str | None = None,
    label_column: str | None = None,
    **code: Any,
) -> dict[str, Any]:
    """`multistep.evaluate` and `Result.evaluate`, which have the documentation."""
    from multistep.core.values.tasks import TASKS
    from multistep.data.elastic import data_in_files
    from multistep.engine.seen import seen_in_training
    from multistep.tasks import evaluate_model, scored_split
    from multistep.tasks.folders import existing, task_of
    from multistep.tasks.notes import hearing, say
    from multistep.tasks.reach import Named, names_of_data, within_reach

    folder = existing(str(model))
    with within_reach([Named(folder, "model")]):
        task = TASKS[task_of(folder)]
    given = {"text_column": text_column, "label_column": label_column}
    columns: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    code = {key: value for key, value in code.items() if value is not None}
    if task.name == OWN_MODEL:
        return _evaluate_own(str(model), Path(folder), data, metric, code, columns)
    if code:
        raise PlanError(f"evaluate: {next(iter(code))}= is of a module of your own; {model} is for {task.name}")
    wanted = metrics_named(metric)
    kind: Kind = "image" if task.family == "images" else "sound" if task.family == "speech" else "text"
    with _in_files(data, kind) as (spec, called), hearing() as notes:
        spec = replace(spec, **columns)
        read = data_in_files(spec)
        with within_reach(() if called else names_of_data(read)):
            evaluation = evaluate_model(str(model), read, wanted or ())
            split = None if called else scored_split(str(model), read)
        if not called and spec.source and (seen := seen_in_training(Path(folder), spec.source, split)):
            say([seen])
    metrics = {name: each for name, each in METRICS.items() if each.applies(evaluation)}
    found = {"model": str(model), "data": called or str(spec), "split": split, "notes": notes}
    return Brief(found | _scores(evaluation, metrics, wanted, task.loss_unit, folder))


def metrics_named(given: Any) -> list[str] | None:
    """The names of metrics, one or several; None for all. Raises PlanError for names that are none."""
    if given is None:
        return None
    several = [given] if isinstance(given, str) else list(given) if isinstance(given, list | tuple) else [given]
    for name in several:
        if not isinstance(name, str):
            raise PlanError(f"metric is {name!r}; allowed: names of metrics, one or a list of them")
    return list(dict.fromkeys(metric_named(name).name for name in several))


def _scores(
    evaluation: Evaluation, metrics: Mapping[str, Metric], wanted: list[str] | None, loss_unit: str, folder: str
) -> dict[str, Any]:
    """Each metric, or those that are wanted, with its interval, as plain values.

    Where labels are said at a threshold of the run's, those that are other at 0.5 tell that score too, for it is the
    one that the run was compared by. Raises PlanError for a metric that does not apply.
    """
    from multistep.tasks.calibrated import at_half

    for name in wanted or ():
        if name not in metrics:
            raise PlanError(f"metric '{name}' cannot be measured here; there are {', '.join(metrics)}")
    chosen = {name: metrics[name] for name in wanted or metrics}
    scores: dict[str, Any] = {
        name: asdict(metric.interval(evaluation))
        | {"unit": loss_unit if name == "loss" else metric.unit, "goal": metric.goal}
        for name, metric in chosen.items()
    }
    found = at_half(evaluation, folder)
    if found is not None:
        halves = {name: metric.score(found[1]) for name, metric in chosen.items()}
        for name, score in halves.items():
            if score != scores[name]["score"]:
                scores[name]["at_half"] = score
    return {"examples": len(evaluation), "threshold": found[0] if found else None, "scores": scores}


def _evaluate_own(
    model: str, folder: Path, data: Any, metric: Any, code: Mapping[str, Any], columns: Mapping[str, Any]
) -> dict[str, Any]:
    from multistep.tasks import own_model_room
    from multistep.tasks.notes import hearing

    if columns:
        raise PlanError(f"evaluate: {next(iter(columns))}= is of files; a module of your own takes target=")
    if isinstance(data, DataSpec):
        raise PlanError(
            f"evaluate: {model} is a module of your own, whose data are objects in Python; there it is scored by "
            "multistep.evaluate(RUN, data)"
        )
    names = isinstance(metric, str | list | tuple)
    with hearing() as notes:
        scored = own_model_room(folder).evaluate(folder, data, **code, metric=None if names else metric)
        wanted = metrics_named(metric) if names else None
        found = {"model": model, "data": "data", "split": None, "notes": notes}
        return Brief(found | _scores(scored.table, scored.metrics, wanted, scored.loss_unit, str(folder)))


@contextmanager
def _in_files(data: Data, kind: Kind) -> Iterator[tuple[DataSpec, str]]:
    """Data as a DataSpec, objects in a folder that is gone afterwards; and what messages call them, "" for files."""
    if isinstance(data, DataSpec):
        yield data, ""
    elif isinstance(data, str | Path):
        yield DataSpec(source=str(data)), ""
    elif is_spec(data):
        raise DataError(
            "data: one set is scored at a time, and this mapping names several or their settings; give one of them, or "
            "a DataSpec"
        )
    else:
        from multistep.data.memory import keep

        with tempfile.TemporaryDirectory(prefix="multistep-") as folder:
            path = keep("data", data, kind).put(Path(folder))
            with _called(str(path), "data"):
                yield DataSpec(source=str(path)), "data"


@contextmanager
def _called(path: str, name: str) -> Iterator[None]:
    """Errors and what is logged name the keyword instead of a file that nobody knows."""
    logger = logging.getLogger("multistep")

    def rename(record: logging.LogRecord) -> bool:
        record.msg = str(record.msg).replace(path, name)
        return True

    logger.addFilter(rename)
    try:
        yield
    except UserError as error:
        raise type(error)(str(error).replace(path, name)) from error
    finally:
        logger.removeFilter(rename)


# Predictions --------------------------------------------------------------------------------------


def predict(
    model: str | Path,
    inputs: Any,
    *,
    tokens: int = 256,
    asked: Asked | None = None,
    columns: DataSpec | None = None,
    module: nn.Module | None = None,
) -> Any:
    """`multistep.predict` and `Result.predict`, which have the documentation."""
    from multistep.tasks import predict as predict_inputs
    from multistep.tasks.folders import read_task
    from multistep.tasks.inputs import is_frame
    from multistep.tasks.prediction import Asked

    asked, columns = asked or Asked(tokens), columns or DataSpec()
    for own in (Path(model) / "model", Path(model)):
        if read_task(str(own)).get("task") == OWN_MODEL:
            from multistep.tasks import own_model_room

            return own_model_room(own).predict(own, inputs, asked, model=module)
    if is_frame(inputs):
        return predict_inputs(str(model), inputs, asked, columns)
    values = _one_by_one(inputs)
    held = [number for number, value in enumerate(values) if not isinstance(value, str | Path | list | tuple)]
    with tempfile.TemporaryDirectory(prefix="multistep-") as folder, _called(f"{folder}{os.sep}", "inputs: number "):
        made = {number: _as_file(Path(folder), number, values[number]) for number in held}
        given = [made.get(number, value) for number, value in enumerate(values)]
        found = predict_inputs(str(model), given, asked, columns)
    names = {path: f"input {number}" for number, path in made.items()}
    return [replace(each, input=names.get(each.input, each.input)) for each in found]


def _one_by_one(inputs: Any) -> list[Any]:
    """The inputs as a list; a text, a path or an image by itself is one input."""
    from multistep.data.media import is_array, is_of

    if isinstance(inputs, str | Path):
        return [inputs]
    table = hasattr(inputs, "columns") or hasattr(inputs, "column_names")  # of pandas, polars, pyarrow, datasets
    single = isinstance(inputs, Mapping) or is_of("PIL.Image", "Image", inputs)
    if table or isinstance(inputs, bytes) or not (single or hasattr(inputs, "__iter__")):
        hint = "; name the column that holds them: inputs['text']" if table else ""
        raise DataError(f"inputs is a {type(inputs).__name__}; allowed: a text, a path, or a list of such{hint}")
    if is_array(inputs):
        one = len(inputs.shape) == 2 or (len(inputs.shape) == 3 and inputs.shape[2] in (1, 3))
        return [inputs] if one else list(inputs)
    if single:
        return [inputs]
    return list(inputs.to_pylist() if hasattr(inputs, "to_pylist") else inputs)


def _as_file(folder: Path, number: int, value: Any) -> str:
    """An image or a sound in memory as a file of its own."""
    from multistep.data.media import in_bytes, media_of

    kind = media_of(value, "image")
    if kind is None:
        what = "None" if value is None else f"a {type(value).__name__}"
        raise DataError(
            f"inputs: number {number} (from 0) is {what}; allowed: texts, paths, images as PIL or uint8 arrays, and "
            "sounds as {'array': ..., 'sampling_rate': ...}"
        )
    try:
        held = in_bytes(value, kind)["bytes"]
    except (TypeError, ValueError, KeyError, OSError, RuntimeError) as error:
        raise DataError(f"inputs: number {number} (from 0) cannot be read ({error})") from None
    path = folder / f"{number}{ENDINGS[kind]}"
    path.write_bytes(held)
    return str(path)


# Export -------------------------------------------------------------------------------------------


def export(run: Path, folder: Path) -> Path:
    """`multistep.export`, which has the documentation."""
    from multistep.engine.rundir import writing
    from multistep.tasks.folders import existing

    source = Path(existing(str(run)))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunDirectoryError(f"{folder}: something is there already; name a new or empty folder")
    beside = folder.with_name(f".{folder.name}.new")
    with writing(folder):
        shutil.rmtree(beside, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, beside)
        if folder.exists():
            folder.rmdir()
        beside.replace(folder)
    return folder
