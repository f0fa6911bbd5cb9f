"""The model that a run ships -> a folder in another format, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multistep.core.values.plan import DataSpec
from multistep.core.values.tasks import OWN_MODEL, TASKS
from multistep.engine.rundir import writing
from multistep.errors import PlanError, RunDirectoryError
from multistep.exports.order import Exported, Order
from multistep.tasks.baselines import is_baseline
from multistep.tasks.folders import existing, task_of

if TYPE_CHECKING:
    from torch import nn


def export_as(
    to: str,
    model: str,
    folder: Path,
    *,
    data: DataSpec | Any = None,
    quantize: bool = False,
    module: nn.Module | None = None,
    hub_model_id: str | None = None,
    task_type: str | None = None,
) -> Exported:
    """Write what a run ships, or a model folder, in one of FORMATS.

    `data` is a DataSpec, or None; of a module of the user's own its inputs, with `module` where it is not at hand.

    Raises PlanError for what cannot be written so, or does not agree with torch; RunDirectoryError where something
    stands in the folder already.
    """
    if to not in FORMATS:
        raise PlanError(f"to is '{to}'; allowed: {', '.join(FORMATS)}")
    if to != "elasticsearch" and (hub_model_id or task_type):
        raise PlanError("--hub-model-id and --task-type are for --to elasticsearch; leave them out")
    found = existing(model)
    if is_baseline(found):
        raise PlanError(
            f"{model}: ships its baseline, a pipeline of scikit-learn ({found}), which is no torch graph; export the "
            f"network that it was compared with, {Path(found).parent / 'model'}, or write the pipeline with skl2onnx"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunDirectoryError(f"{folder}: something is there already; name a new or empty folder")
    task = task_of(found)
    if module is not None and task != OWN_MODEL:
        raise PlanError(f"{model}: is for {task}, and has its own network; leave model= out")
    if task != OWN_MODEL and data is not None and not isinstance(data, DataSpec):
        raise PlanError(f"data is a {type(data).__name__}; allowed: the path of a file or folder, or a DataSpec")
    # The check reads the run's data by its relative paths, from where the run began.
    here = str(Path(found).absolute()) if Path(found).is_dir() else found
    beside = folder.absolute().with_name(f".{folder.name}.new")
    with writing(folder):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    try:
        order = Order(here, model, task, data, quantize, module, folder, hub_model_id, task_type)
        written = FORMATS[to](order, beside)
        if folder.exists():
            folder.rmdir()
        beside.replace(folder.absolute())
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return replace(written, folder=folder)


def _onnx(order: Order, folder: Path) -> Exported:
    from multistep.exports import onnx
    from multistep.exports.graphs import graph_of

    onnx.require_packages()
    return onnx.write(graph_of(order), order, folder)


def _tensorflow(order: Order, folder: Path) -> Exported:
    from multistep.exports import tensorflow
    from multistep.exports.graphs import graph_of

    if TASKS[order.task].family == "text":
        raise PlanError(
            f"{order.name}: a model that writes is not exported to TensorFlow, which would read the whole context for "
            "each token; --to onnx does"
        )
    if order.quantize:
        raise PlanError("int8 is for --to onnx; of a SavedModel TensorFlow's own converters quantize, such as LiteRT's")
    tensorflow.require_packages()
    return tensorflow.write(graph_of(order), order, folder)


def _elasticsearch(order: Order, folder: Path) -> Exported:
    from multistep.exports import elasticsearch

    return elasticsearch.write(order, folder)


# By what `--to` calls them; each writes into an empty folder.
FORMATS: Mapping[str, Callable[[Order, Path], Exported]] = {
    "onnx": _onnx,
    "tensorflow": _tensorflow,
    "elasticsearch": _elasticsearch,
}
