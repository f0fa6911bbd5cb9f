"""A graph as a folder that onnxruntime runs, checked against torch before it is published."""

from __future__ import annotations

import logging
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
from multistep.exports.checked import agreement, describe, name_of, require
from multistep.exports.graph import Batch, Graph, Say
from multistep.exports.order import Exported, Order
from multistep.exports.recurrent import with_graph_lstms

MODEL, QUANTIZED = "model.onnx", "model-int8.onnx"
ONE_FILE = 1_500_000_000  # bytes of weights; a file of protobuf holds 2 GB
PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def require_packages() -> None:
    """Raises PlanError that names the extra."""
    require(PACKAGES, "ONNX", "multistep[onnx]")


def write(graph: Graph, order: Order, folder: Path) -> Exported:
    """Write the graph into an empty folder. Raises PlanError where it does not say what torch says."""
    to_onnx(graph, folder / MODEL)
    session = _session(folder / MODEL)
    difference = agreement(graph, lambda batch: _run(session, graph, batch), "ONNX")
    scores: dict[str, Any] = {}
    quantized: dict[str, Any] = {}
    if order.quantize:
        if graph.score is None:
            raise PlanError(f"{order.name}: there is no score that would say what int8 costs; leave --quantize out")
        _to_int8(folder / MODEL, folder / QUANTIZED)
        scores = _scores(graph, graph.score(_torch(graph)))
        quantized = _scores(graph, graph.score(_runtime(graph, folder / QUANTIZED)))
    said = {
        "model": MODEL,
        "checked": {"batches": len(graph.batches), "largest_difference": difference},
        **({"quantized": QUANTIZED, "scores": {"float32": scores, "int8": quantized}} if order.quantize else {}),
    }
    describe(graph, order, folder, said, PACKAGES)
    sizes = {path.name: round(path.stat().st_size / 1e6, 3) for path in sorted(folder.glob("*.onnx*"))}
    return Exported(folder, sizes, len(graph.batches), difference, scores, quantized, graph.notes)


def to_onnx(graph: Graph, path: Path) -> None:
    """Write the graph alone. Raises PlanError where torch's exporter cannot."""
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
                f"{name_of(graph)} cannot be written as an ONNX graph by torch's exporter: {first}"
            ) from error


def _of_forward(graph: Graph, shapes: tuple[Any, ...]) -> Any:
    """The dimensions in the form of the module's arguments: those behind a star are a tuple of their own."""
    import inspect

    parameters = list(inspect.signature(graph.module.forward).parameters.values())
    starred = next((i for i, p in enumerate(parameters) if p.kind is inspect.Parameter.VAR_POSITIONAL), None)
    return shapes if starred is None else (*shapes[:starred], shapes[starred:])


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
