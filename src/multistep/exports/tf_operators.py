"""The operators of ONNX that torch's exporter writes for encoders and for nets of images and speech, in TensorFlow's.

Each is a function of the node's attributes and its inputs, as https://onnx.ai/onnx/operators defines it at opset 20.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

Attributes: TypeAlias = Mapping[str, Any]
Operator: TypeAlias = Callable[..., Any]


def _number(x: Any) -> Any:
    """What is known of a tensor while the graph is written, as an array. Raises ValueError where that is nothing."""
    found = tf.get_static_value(x)
    if found is None:
        raise ValueError(f"a value that is not fixed ({x.name})")
    return np.asarray(found)


def _axes(x: Any, axes: Any | None) -> list[int]:
    return list(range(x.shape.rank)) if axes is None else [int(axis) for axis in _number(axes).reshape(-1)]


def _alike(operate: Callable[[Any, Any], Any]) -> Operator:
    """Of two or more."""

    def of_all(at: Attributes, *given: Any) -> Any:
        found = given[0]
        for other in given[1:]:
            found = operate(found, other)
        return found

    return of_all


def _one(operate: Callable[[Any], Any]) -> Operator:
    return lambda at, x: operate(x)


def _reduced(operate: Callable[..., Any]) -> Operator:
    def reduce(at: Attributes, x: Any, axes: Any | None = None) -> Any:
        if axes is None and at.get("noop_with_empty_axes", 0):
            return x
        return operate(x, _axes(x, axes), keepdims=bool(at.get("keepdims", 1)))

    return reduce


def _divided(at: Attributes, x: Any, y: Any) -> Any:
    return tf.truncatediv(x, y) if x.dtype.is_integer else x / y


def _cast(at: Attributes, x: Any) -> Any:
    from onnx.helper import tensor_dtype_to_np_dtype

    return tf.cast(x, tf.as_dtype(tensor_dtype_to_np_dtype(at["to"])))


def _clip(at: Attributes, x: Any, low: Any | None = None, high: Any | None = None) -> Any:
    x = x if low is None else tf.maximum(x, low)
    return x if high is None else tf.minimum(x, high)


def _gelu(at: Attributes, x: Any) -> Any:
    return tf.nn.gelu(x, approximate=at.get("approximate", b"none") == b"tanh")


# Shapes ---------------------------------------------------------------------------------------------


def _shape(at: Attributes, x: Any) -> Any:
    return tf.shape(x, tf.int64)[slice(at.get("start", 0), at.get("end"))]


def _reshaped(at: Attributes, x: Any, shape: Any) -> Any:
    if at.get("allowzero", 0):
        return tf.reshape(x, shape)
    known = tf.get_static_value(shape)
    if known is not None and 0 not in known:
        return tf.reshape(x, shape)
    many = shape.shape[0]
    own = tf.shape(x, tf.int64)[:many]
    own = tf.concat([own, tf.ones(tf.maximum(0, many - tf.size(own)), tf.int64)], 0)
    return tf.reshape(x, tf.where(shape == 0, own, shape))


def _squeezed(at: Attributes, x: Any, axes: Any | None = None) -> Any:
    return tf.squeeze(x, None if axes is None else _axes(x, axes))


def _unsqueezed(at: Attributes, x: Any, axes: Any) -> Any:
    rank = x.shape.rank + len(chosen := _axes(x, axes))
    for axis in sorted(axis % rank for axis in chosen):
        x = tf.expand_dims(x, axis)
    return x


def _expanded(at: Attributes, x: Any, shape: Any) -> Any:
    return tf.broadcast_to(x, tf.broadcast_dynamic_shape(tf.shape(x, tf.int64), shape))


def _sliced(at: Attributes, x: Any, starts: Any, ends: Any, axes: Any | None = None, steps: Any | None = None) -> Any:
    chosen = list(range(starts.shape[0])) if axes is None else _axes(x, axes)
    parts = [slice(None)] * x.shape.rank
    for i, axis in enumerate(chosen):
        parts[axis] = slice(starts[i], ends[i], None if steps is None else int(_number(steps)[i]))
    return x[tuple(parts)]


def _split(at: Attributes, x: Any, sizes: Any | None = None) -> Any:
    axis = at.get("axis", 0)
    if sizes is not None:
        return tf.split(x, [int(size) for size in _number(sizes)], axis)
    many = at["num_outputs"]
    if x.shape[axis] is None or x.shape[axis] % many:
        raise ValueError("a dimension that is not of that many equal parts")
    return tf.split(x, many, axis)


def _padded(at: Attributes, x: Any, pads: Any, value: Any | None = None, axes: Any | None = None) -> Any:
    mode = at.get("mode", b"constant").decode()
    if mode not in ("constant", "reflect"):
        raise ValueError(f"padding of the kind {mode}")
    chosen = _axes(x, axes)
    ends = [[0, 0] for _ in range(x.shape.rank)]
    for i, axis in enumerate(chosen):
        ends[axis] = [pads[i], pads[len(chosen) + i]]
    cut = tf.get_static_value(pads)
    if cut is None or (cut < 0).any():
        raise ValueError("padding that is not fixed, or cuts")
    return tf.pad(x, ends, mode.upper(), constant_values=0 if value is None else value)


def _gathered(at: Attributes, x: Any, where: Any) -> Any:
    axis = at.get("axis", 0)
    return tf.gather(x, tf.where(where < 0, where + tf.shape(x, where.dtype)[axis], where), axis=axis)


def _gathered_each(at: Attributes, x: Any, where: Any) -> Any:
    """GatherElements: along one axis, a place for each."""
    axis = at.get("axis", 0)
    grid = tf.meshgrid(*(tf.range(size) for size in tf.unstack(tf.shape(where, tf.int64))), indexing="ij")
    grid[axis] = tf.where(where < 0, where + tf.shape(x, tf.int64)[axis], where)
    return tf.gather_nd(x, tf.stack(grid, -1))


def _all_of(at: Attributes, shape: Any) -> Any:
    """ConstantOfShape."""
    from onnx.numpy_helper import to_array

    value = to_array(at["value"])[0] if "value" in at else np.float32(0)
    return tf.fill(shape, tf.constant(value))


# Products -------------------------------------------------------------------------------------------


def _gemm(at: Attributes, a: Any, b: Any, c: Any | None = None) -> Any:
    found = tf.matmul(a, b, transpose_a=bool(at.get("transA", 0)), transpose_b=bool(at.get("transB", 0)))
    found = found if at.get("alpha", 1.0) == 1 else at["alpha"] * found
    return found if c is None else found + (c if at.get("beta", 1.0) == 1 else at["beta"] * c)


def _normalised(at: Attributes, x: Any, scale: Any, bias: Any | None = None) -> Any:
    axes = list(range(at.get("axis", -1) % x.shape.rank, x.shape.rank))
    mean, variance = tf.nn.moments(x, axes, keepdims=True)
    found = (x - mean) * tf.math.rsqrt(variance + at.get("epsilon", 1e-5)) * scale
    return found if bias is None else found + bias


def _batch_normalised(at: Attributes, x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    if at.get("training_mode", 0):
        raise ValueError("normalisation by the batch, as in training")
    slope = scale * tf.math.rsqrt(variance + at.get("epsilon", 1e-5))
    form = (-1, *(1,) * (x.shape.rank - 2))
    return x * tf.reshape(slope, form) + tf.reshape(bias - mean * slope, form)


def _last(x: Any) -> Any:
    """Channels from the second place to the last, where the kernels of a CPU want them."""
    return tf.transpose(x, (0, *range(2, x.shape.rank), 1))


def _second(x: Any) -> Any:
    return tf.transpose(x, (0, x.shape.rank - 1, *range(1, x.shape.rank - 1)))


def _with_ends(at: Attributes, x: Any, value: float = 0.0) -> Any:
    """Padded as its attributes say. Raises ValueError for what is left to the shape of the input."""
    if at.get("auto_pad", b"NOTSET") != b"NOTSET" or at.get("ceil_mode", 0):
        raise ValueError("padding or places that depend on the input")
    spatial = x.shape.rank - 2
    pads = at.get("pads") or [0] * 2 * spatial
    if not any(pads):
        return x
    return tf.pad(x, [[0, 0], [0, 0], *([pads[i], pads[spatial + i]] for i in range(spatial))], constant_values=value)


def _convolved(at: Attributes, x: Any, weights: Any, bias: Any | None = None) -> Any:
    spatial = weights.shape.rank - 2
    found = tf.nn.convolution(
        _last(_with_ends(at, x)),
        tf.transpose(weights, (*range(2, spatial + 2), 1, 0)),
        strides=at.get("strides"),
        padding="VALID",
        dilations=at.get("dilations"),
    )
    return _second(found if bias is None else found + bias)


def _pooled(kind: str) -> Operator:
    def pool(at: Attributes, x: Any) -> Any:
        if kind == "AVG" and any(at.get("pads") or ()) and not at.get("count_include_pad", 0):
            raise ValueError("means that leave out what was padded")
        x = _with_ends(at, x, value=-np.inf if kind == "MAX" else 0.0)
        size = at["kernel_shape"]
        strides, dilations = at.get("strides") or [1] * len(size), at.get("dilations") or [1] * len(size)
        return _second(tf.nn.pool(_last(x), size, kind, strides=strides, padding="VALID", dilations=dilations))

    return pool


def _lstm(at: Attributes, x: Any, into: Any, again: Any, bias: Any) -> Any:
    """One way: x (T, B, C) -> (T, 1, B, hidden). ONNX has the gates input, output, forget, cell."""
    if into.shape[0] != 1 or at.get("direction", b"forward") != b"forward" or at.get("layout", 0):
        raise ValueError("a recurrent layer of two directions, or batch first")
    hidden, (own, other) = at["hidden_size"], tf.split(bias[0], 2)
    given_TBG = tf.einsum("tbc,gc->tbg", x, into[0]) + own + other

    def step(state: tuple[Any, Any], now_BG: Any) -> tuple[Any, Any]:
        gates = now_BG + tf.matmul(state[0], again[0], transpose_b=True)
        enter, leave, forget, cell = tf.split(gates, 4, -1)
        kept = tf.sigmoid(forget) * state[1] + tf.sigmoid(enter) * tf.tanh(cell)
        return tf.sigmoid(leave) * tf.tanh(kept), kept

    begin = tf.zeros((tf.shape(x)[1], hidden), x.dtype)
    return tf.scan(step, given_TBG, (begin, begin))[0][:, None]


OPERATORS: Mapping[str, Operator] = {
    "Abs": _one(tf.abs),
    "Add": _alike(tf.add),
    "And": _alike(tf.logical_and),
    "AveragePool": _pooled("AVG"),
    "BatchNormalization": _batch_normalised,
    "Cast": _cast,
    "Ceil": _one(tf.math.ceil),
    "Clip": _clip,
    "Concat": lambda at, *x: tf.concat(x, at["axis"]),
    "ConstantOfShape": _all_of,
    "Conv": _convolved,
    "Cos": _one(tf.cos),
    "Div": _divided,
    "Equal": _alike(tf.equal),
    "Erf": _one(tf.math.erf),
    "Exp": _one(tf.exp),
    "Expand": _expanded,
    "Flatten": lambda at, x: tf.reshape(x, (tf.reduce_prod(tf.shape(x)[: at.get("axis", 1)]), -1)),
    "Floor": _one(tf.floor),
    "Gather": _gathered,
    "GatherElements": _gathered_each,
    "GatherND": lambda at, x, where: tf.gather_nd(x, where, batch_dims=at.get("batch_dims", 0)),
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda at, x: tf.reduce_mean(x, list(range(2, x.shape.rank)), keepdims=True),
    "Greater": _alike(tf.greater),
    "GreaterOrEqual": _alike(tf.greater_equal),
    "Identity": _one(tf.identity),
    "IsNaN": _one(tf.math.is_nan),
    "LSTM": _lstm,
    "LayerNormalization": _normalised,
    "Less": _alike(tf.less),
    "LessOrEqual": _alike(tf.less_equal),
    "Log": _one(tf.math.log),
    "MatMul": lambda at, a, b: tf.matmul(a, b),
    "Max": _alike(tf.maximum),
    "MaxPool": _pooled("MAX"),
    "Min": _alike(tf.minimum),
    "Mul": _alike(tf.multiply),
    "Neg": _one(tf.negative),
    "NonZero": lambda at, x: tf.transpose(tf.where(x)),
    "Not": _one(tf.logical_not),
    "Or": _alike(tf.logical_or),
    "Pad": _padded,
    "Pow": lambda at, x, y: tf.pow(x, tf.cast(y, x.dtype)),
    "Range": lambda at, start, limit, delta: tf.range(start, limit, delta),
    "Reciprocal": _one(tf.math.reciprocal),
    "ReduceMax": _reduced(tf.reduce_max),
    "ReduceMean": _reduced(tf.reduce_mean),
    "ReduceMin": _reduced(tf.reduce_min),
    "ReduceProd": _reduced(tf.reduce_prod),
    "ReduceSum": _reduced(tf.reduce_sum),
    "Relu": _one(tf.nn.relu),
    "Reshape": _reshaped,
    "Shape": _shape,
    "Sigmoid": _one(tf.sigmoid),
    "Sign": _one(tf.sign),
    "Sin": _one(tf.sin),
    "Slice": _sliced,
    "Softmax": lambda at, x: tf.nn.softmax(x, axis=at.get("axis", -1)),
    "Split": _split,
    "Sqrt": _one(tf.sqrt),
    "Squeeze": _squeezed,
    "Sub": _alike(tf.subtract),
    "Tanh": _one(tf.tanh),
    "Transpose": lambda at, x: tf.transpose(x, at.get("perm")),
    "Unsqueeze": _unsqueezed,
    "Where": lambda at, where, x, y: tf.where(where, x, y),
}


def computed(operator: str, at: Attributes, inputs: Sequence[Any]) -> tuple[Any, ...]:
    """What a node gives. Raises ValueError for an operator, or a form of one, that has no counterpart here."""
    if operator not in OPERATORS:
        raise ValueError("an operator that is not translated")
    found = OPERATORS[operator](at, *inputs)
    return tuple(found) if isinstance(found, list | tuple) else (found,)
