"""A graph as a folder that onnxruntime runs, checked against torch before it is published."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multistep.core.evidence.metric import METRICS, Evaluation
from multistep.errors import PlanError
from multistep.exports.graph import Batch, Graph, Say
from multistep.exports.order import Exported, Order
from multistep.exports.recurrent import with_graph_lstms

MODEL, QUANTIZED, ABOUT, SCRIPT = "model.onnx", "model-int8.onnx", "pipeline.json", "run.py"
TOLERANCE = 1e-4  # of a value, or of one of 1
ONE_FILE = 1_500_000_000  # bytes of weights; a file of protobuf holds 2 GB
PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def require_packages() -> None:
    """Raises PlanError that names the extra."""
    for name in PACKAGES:
        try:
            __import__(name)
        except ImportError as error:
            raise PlanError(f"exporting to ONNX needs {name} ({error}); pip install 'multistep[onnx]'") from None


def write(graph: Graph, order: Order, folder: Path) -> Exported:
    """Write the graph into an empty folder. Raises PlanError where it does not say what torch says."""
    _to_onnx(graph, folder / MODEL)
    difference = agreement(graph, folder / MODEL)
    scores: dict[str, Any] = {}
    quantized: dict[str, Any] = {}
    if order.quantize:
        _to_int8(folder / MODEL, folder / QUANTIZED)
        if graph.score is None:
            raise PlanError(f"{order.name}: there is no score that would say what int8 costs; leave --quantize out")
        scores = _scores(graph, graph.score(_torch(graph)))
        quantized = _scores(graph, graph.score(_runtime(graph, folder / QUANTIZED)))
    for name in graph.files:
        shutil.copyfile(Path(order.model) / name, folder / name)
    if graph.script is not None:
        shutil.copyfile(Path(__file__).with_name("scripts") / graph.script, folder / SCRIPT)
    said = {
        "model": MODEL,
        "inputs": {name: {str(k): axis for k, axis in axes.items()} for name, axes in graph.inputs.items()},
        "outputs": list(graph.outputs),
        **graph.about,
        "checked": {"batches": len(graph.batches), "largest_difference": difference},
        **({"quantized": QUANTIZED, "scores": {"float32": scores, "int8": quantized}} if order.quantize else {}),
        "versions": _versions(),
    }
    (folder / ABOUT).write_text(json.dumps(said, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    sizes = {path.name: round(path.stat().st_size / 1e6, 3) for path in sorted(folder.glob("*.onnx*"))}
    return Exported(folder, sizes, len(graph.batches), difference, scores, quantized, graph.notes)


def _to_onnx(graph: Graph, path: Path) -> None:
    bytes_ = sum(p.numel() * p.element_size() for p in graph.module.parameters())
    shapes = tuple(dict(axes) for axes in graph.inputs.values())
    with _quietly():
        try:
            program = torch.onnx.export(
                with_graph_lstms(graph.module).eval(),
                graph.batches[0],
                dynamo=True,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_shapes=_of_forward(graph, shapes),
                verbose=False,
            )
            assert program is not None, "the dynamo exporter gives one"
            program.save(str(path), external_data=bytes_ > ONE_FILE)
        except Exception as error:  # of torch's exporter, of whatever kind
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise PlanError(
                f"{_name(graph)} cannot be written as an ONNX graph by torch's exporter: {first}"
            ) from error


def _of_forward(graph: Graph, shapes: tuple[Any, ...]) -> Any:
    """The dimensions in the form of the module's arguments: those behind a star are a tuple of their own."""
    import inspect

    parameters = list(inspect.signature(graph.module.forward).parameters.values())
    starred = next((i for i, p in enumerate(parameters) if p.kind is inspect.Parameter.VAR_POSITIONAL), None)
    return shapes if starred is None else (*shapes[:starred], shapes[starred:])


def _name(graph: Graph) -> str:
    inner = getattr(graph.module, "module", graph.module)
    return type(inner).__name__


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: Any, graph: Graph, batch: Batch) -> list[np.ndarray[Any, Any]]:
    taken = {each.name for each in session.get_inputs()}  # an input that says nothing is left out of the graph
    given = {name: tensor.numpy() for name, tensor in zip(graph.inputs, batch, strict=True) if name in taken}
    found: list[np.ndarray[Any, Any]] = session.run(list(graph.outputs), given)
    return found


def agreement(graph: Graph, path: Path) -> float:
    """The largest difference between torch and the graph. Raises PlanError where it is more than TOLERANCE."""
    session, largest = _session(path), 0.0
    for batch in graph.batches:
        with torch.inference_mode():
            said = graph.module(*batch)
        wanted = [tensor.numpy() for tensor in ((said,) if isinstance(said, Tensor) else said)]
        try:
            given = _run(session, graph, batch)
        except Exception as error:  # of onnxruntime, whose kinds have no common parent
            shapes = " and ".join(str(tuple(tensor.shape)) for tensor in batch)
            raise PlanError(
                f"the ONNX graph of {_name(graph)} does not run for inputs of shape {shapes}, so nothing was written "
                f"({str(error).strip().splitlines()[0][:200]})"
            ) from error
        for name, own, other in zip(graph.outputs, wanted, given, strict=True):
            apart = np.abs(own.astype(np.float64) - other) / np.maximum(1.0, np.abs(own)) if own.size else np.zeros(1)
            largest = max(largest, float(apart.max())) if own.shape == other.shape else np.inf
            if not largest <= TOLERANCE:
                shapes = " and ".join(str(tuple(tensor.shape)) for tensor in batch)
                raise PlanError(
                    f"the ONNX graph does not say what torch says: '{name}' differs by {largest:.2g} for inputs of "
                    f"shape {shapes}, where {TOLERANCE:g} is allowed; nothing was written. Please report it with the "
                    "model's architecture"
                )
    return largest


def _torch(graph: Graph) -> Say:
    def say(batch: Batch) -> Tensor:
        with torch.inference_mode():
            said = graph.module(*batch)
        first: Tensor = said if isinstance(said, Tensor) else said[0]
        return first

    return say


def _runtime(graph: Graph, path: Path) -> Say:
    session = _session(path)
    return lambda batch: torch.from_numpy(_run(session, graph, batch)[0])


def _to_int8(source: Path, target: Path) -> None:
    """Weights as bytes; what they are multiplied by is quantized as it comes."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    kinds = {node.op_type for node in onnx.load(str(source), load_external_data=False).graph.node}
    # onnxruntime's convolutions of integers take unsigned weights alone.
    weights = QuantType.QUInt8 if "Conv" in kinds else QuantType.QInt8
    external = Path(f"{source}.data").exists()
    with _quietly():
        quantize_dynamic(source, target, weight_type=weights, use_external_data_format=external)


def _scores(graph: Graph, table: Evaluation) -> dict[str, Any]:
    """Every metric that applies with its interval, the run's own first."""
    left = ("calibrated_loss",)  # the temperature is in the weights already
    found = {name: asdict(metric.interval(table)) for name, metric in METRICS.items() if metric.applies(table)}
    found = {name: score for name, score in found.items() if name not in left}
    first = [graph.metric] if graph.metric in found else []
    return {name: found[name] for name in dict.fromkeys([*first, *found])}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("multistep", "torch", *PACKAGES)}


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporters log of packages that are missing and of names that are shared."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    loggers.append(logging.getLogger())
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
