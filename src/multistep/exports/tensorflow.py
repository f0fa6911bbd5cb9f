"""A graph as TensorFlow's SavedModel, operator by operator from its ONNX form, checked against torch.

Why by no converter: docs/appendix/decisions.md.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from numpy.typing import NDArray

from multistep.errors import PlanError
from multistep.exports.checked import SCRIPT, agreement, describe, name_of, require
from multistep.exports.graph import Batch, Graph
from multistep.exports.onnx import to_onnx
from multistep.exports.order import Exported, Order

MODEL = "model/1"  # TensorFlow Serving reads folders of numbered versions
PACKAGES = ("onnx", "onnxscript", "tensorflow")
FEW = 256  # values; what is smaller is a constant of the graph, which tells TensorFlow of shapes
SESSION = '''class InferenceSession:
    """A SavedModel, called as onnxruntime's sessions are."""

    def __init__(self, folder):
        self.model = tf.saved_model.load(folder)  # kept, since the signature refers to it weakly
        self.call = self.model.signatures["serving_default"]

    def get_inputs(self):
        return [SimpleNamespace(name=name) for name in self.call.structured_input_signature[1]]

    def run(self, _, given):
        said = self.call(**{name: tf.constant(value) for name, value in given.items()})
        return [said[name].numpy() for name in about["outputs"]]


'''


def require_packages() -> None:
    """Raises PlanError that names the extra."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what it tells of the processor at each start
    require(PACKAGES, "TensorFlow", "multistep[tensorflow]")


def write(graph: Graph, order: Order, folder: Path) -> Exported:
    """Write the graph into an empty folder. Raises PlanError where it does not say what torch says."""
    import tensorflow as tf

    with TemporaryDirectory(prefix=".multistep-") as beside:
        to_onnx(graph, Path(beside) / "model.onnx")
        _save(graph, Path(beside) / "model.onnx", folder / MODEL)
    model = tf.saved_model.load(str(folder / MODEL))
    call = model.signatures["serving_default"]
    taken = call.structured_input_signature[1]

    def run(batch: Batch) -> list[NDArray[Any]]:
        given = {n: tf.constant(x.numpy()) for n, x in zip(graph.inputs, batch, strict=True) if n in taken}
        said = call(**given)
        return [said[name].numpy() for name in graph.outputs]

    difference = agreement(graph, run, "TensorFlow")
    said = {"model": MODEL, "checked": {"batches": len(graph.batches), "largest_difference": difference}}
    describe(graph, order, folder, said, PACKAGES)
    if graph.script is not None:
        _with_session(folder / SCRIPT)
    size = sum(path.stat().st_size for path in (folder / MODEL).rglob("*") if path.is_file())
    return Exported(folder, {MODEL: round(size / 1e6, 3)}, len(graph.batches), difference, notes=graph.notes)


def _with_session(script: Path) -> None:
    """The script of an ONNX export, with a SavedModel in the place of onnxruntime."""
    text = script.read_text(encoding="utf-8").replace("onnxruntime", "TensorFlow", 1)
    text = text.replace("from pathlib import Path\n", "from pathlib import Path\nfrom types import SimpleNamespace\n")
    text = text.replace("from onnxruntime import InferenceSession\n", "")
    text = text.replace("import numpy as np\n", "import numpy as np\nimport tensorflow as tf\n")
    text = text.replace("\n\nfolder = ", f"\n\n\n{SESSION}folder = ", 1)
    script.write_text(text, encoding="utf-8")


def _save(graph: Graph, path: Path, folder: Path) -> None:
    import onnx
    import tensorflow as tf

    from multistep.exports.tf_operators import OPERATORS

    model = onnx.load(str(path))
    missing = Counter(node.op_type for node in model.graph.node if node.op_type not in OPERATORS)
    if missing:
        named = ", ".join(f"{name} ({many} times)" for name, many in sorted(missing.items()))
        raise PlanError(
            f"{name_of(graph)} has no form in TensorFlow here: the operators {named} are not translated; --to onnx "
            "writes them"
        )
    module = tf.Module()
    module.weights, fixed = {}, {}
    for each in model.graph.initializer:
        value = onnx.numpy_helper.to_array(each)
        if value.dtype.kind == "f" and value.size > FEW:
            module.weights[each.name] = tf.Variable(value, trainable=False)
        else:
            fixed[each.name] = tf.constant(value)
    specs = [_spec(given) for given in model.graph.input]
    call = tf.function(_Graph(model, module.weights, fixed).run, input_signature=specs, autograph=False)
    module.call = call
    try:
        concrete = call.get_concrete_function()
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise PlanError(
            f"{name_of(graph)} has no form in TensorFlow here: {str(error).strip().splitlines()[0][:300]}; --to onnx "
            "writes it"
        ) from error
    folder.parent.mkdir(parents=True)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": concrete})


def _spec(given: Any) -> Any:
    import tensorflow as tf
    from onnx.helper import tensor_dtype_to_np_dtype

    kind = given.type.tensor_type
    sizes = [dimension.dim_value or None for dimension in kind.shape.dim]
    return tf.TensorSpec(sizes, tf.as_dtype(tensor_dtype_to_np_dtype(kind.elem_type)), given.name)


class _Graph:
    """An ONNX graph, its weights in variables."""

    def __init__(self, model: Any, weights: Any, fixed: dict[str, Any]) -> None:
        self._nodes, self._weights, self._fixed = list(model.graph.node), weights, fixed
        self._inputs = [given.name for given in model.graph.input]
        self._outputs = [said.name for said in model.graph.output]
        self._shapes = {
            info.name: [dimension.dim_value or None for dimension in info.type.tensor_type.shape.dim]
            for info in (*model.graph.value_info, *model.graph.output)
            if info.type.tensor_type.HasField("shape")
        }

    def run(self, *given: Any) -> dict[str, Any]:
        """Raises ValueError that names the operator which cannot be written."""
        import onnx
        import tensorflow as tf

        from multistep.exports.tf_operators import computed

        known = {**self._fixed, **self._weights, **dict(zip(self._inputs, given, strict=True))}
        for node in self._nodes:
            at = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
            try:
                inputs = [tf.convert_to_tensor(known[name]) if name else None for name in node.input]
                found = computed(node.op_type, at, inputs)
            except (ValueError, TypeError, tf.errors.OpError) as error:
                raise ValueError(f"{node.op_type} ({node.name}): {error}") from error
            for name, tensor in zip(node.output, found, strict=False):  # ONNX leaves the last ones out
                if name in self._shapes:
                    tensor.set_shape(self._shapes[name])  # TensorFlow cannot always tell how many dimensions there are
                known[name] = tensor
        return {name: tf.identity(known[name], name=name) for name in self._outputs}
