"""The model that an export is asked for -> the graph that is written of it, by its task."""

from __future__ import annotations

from multistep.core.values.plan import DataSpec
from multistep.core.values.tasks import OWN_MODEL, TASKS
from multistep.errors import PlanError
from multistep.exports.graph import Graph
from multistep.exports.held import Held, held_out
from multistep.exports.order import Order
from multistep.tasks.folders import read_task


def graph_of(order: Order) -> Graph:
    """Raises PlanError for a model that has no graph, or no examples to check it by."""
    if order.task == OWN_MODEL and read_task(order.model).get("framework") == "keras":
        raise PlanError(
            f"{order.model}: a Keras model, which lies there as model.keras and saved_model already; Keras and tf2onnx "
            "write other forms of it"
        )
    if order.task == OWN_MODEL:
        from multistep.exports.own import module_graph

        return module_graph(order.model, None if isinstance(order.data, DataSpec) else order.data, order.module)
    with held_out(order.model, order.task, order.data) as held:
        return _by_task(order.model, order.task, held)


def _by_task(model: str, task: str, held: Held) -> Graph:
    from multistep.exports import labelled

    if task == "image-classification":
        return labelled.images(model, held)
    if TASKS[task].family == "language" and task != "fill-mask":
        return labelled.texts(model, held)
    from multistep.exports import writing

    if task == "fill-mask":
        return writing.masked(model, held)
    if task == "speech-recognition":
        from multistep.exports import speech

        return speech.recogniser(model, held)
    if TASKS[task].family == "text":
        return writing.language_model(model, held)
    raise PlanError(
        f"{model}: a model for {task} is not exported here; in Python torch does it: "
        'torch.onnx.export(result.load(module), inputs, "model.onnx", dynamo=True)'
    )
