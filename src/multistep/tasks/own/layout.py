"""What a batch looks like: which parts the model is called with, and which part is the target.

The learner knows a batch as a flat tuple of tensors, one row an example; here it is taken apart and put together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from multistep.errors import DataError, PlanError, nearest

TARGET_KEYS = ("label", "labels", "target", "targets", "y")
Shape = Any  # None for a tensor, else ("tuple", shapes) or ("dict", keys, shapes)


def flatten(value: object, where: str) -> tuple[Shape, list[Tensor]]:
    """The tensors in nested tuples, lists and mappings, and their arrangement. Raises DataError for anything else."""
    if isinstance(value, Tensor):
        return None, [value]
    if isinstance(value, Mapping):
        keys, parts = tuple(value), list(value.values())
    elif isinstance(value, tuple | list) and value:
        keys, parts = None, list(value)
    else:
        raise DataError(
            f"{where} is {'empty' if value in ((), []) else type(value).__name__}; a batch may hold tensors, arrays "
            "and numbers alone: leave the rest out, or give a DataLoader whose collate_fn makes tensors of it"
        )
    names = keys if keys is not None else range(len(parts))
    found = [flatten(part, f"{where}[{name!r}]") for name, part in zip(names, parts, strict=True)]
    shapes = tuple(shape for shape, _ in found)
    tensors = [tensor for _, inner in found for tensor in inner]
    return (("tuple", shapes) if keys is None else ("dict", keys, shapes)), tensors


def rebuild(shape: Shape, tensors: Iterator[Tensor]) -> Any:
    """What `flatten` took apart."""
    if shape is None:
        return next(tensors)
    if shape[0] == "tuple":
        return tuple(rebuild(part, tensors) for part in shape[1])
    return {key: rebuild(part, tensors) for key, part in zip(shape[1], shape[2], strict=True)}


@dataclass(frozen=True)
class Types:
    """The types that model and loss take numbers in: floats are float32 unless the model is `double`.

    Whole numbers of a target become `whole`; `classes` tells that its floats are class numbers too, `float_inputs`
    that whole numbers of inputs become floats, `masks` that what is true or false stays so in targets of several parts,
    of which a loss of the user's own knows what it means.
    """

    double: bool
    whole: torch.dtype
    classes: bool = False
    float_inputs: bool = False
    masks: bool = False

    def with_float_inputs(self) -> Types:
        return replace(self, float_inputs=True)


@dataclass(frozen=True)
class Layout:
    """Arrangement of a batch: positional and named inputs, then the target.

    `target_key` is that of a dict's target, None where items are tuples. `keys` are a dict's inputs that the model
    takes. Numbers of tensors: `inputs` of the inputs, the rest are the target's. `gives_target` tells that the model
    is called with the target too, since it computes the loss itself.
    """

    target_key: str | None
    keys: tuple[str, ...]
    shape: Shape
    inputs: int
    gives_target: bool = False

    @classmethod
    def of(cls, batch: object, target: str | None, takes: tuple[str, ...] | None) -> Layout:
        """The layout of a first batch; `takes` are the model's arguments by name (None: any).

        Raises DataError or PlanError for a batch that cannot be told apart.
        """
        if isinstance(batch, Mapping):
            key = _target_key([str(key) for key in batch], target)
            keys = tuple(str(k) for k in batch if k != key and (_is_data(batch[k]) if takes is None else k in takes))
            if not keys:
                raise DataError(
                    f"items have {', '.join(map(repr, batch))}, but the model takes {', '.join(takes or ())}; "
                    "name the items' keys as the model's arguments"
                )
        else:
            if target is not None:
                raise PlanError(f"target='{target}' names a key, but items are no dicts; their last part is the target")
            if not isinstance(batch, tuple | list) or len(batch) < 2:
                several = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
                raise DataError(
                    "an item must be (input, target), (input, ..., target) or a dict; a batch of them is a "
                    f"{type(batch).__name__}{several}; where the input is its own target, as for an autoencoder, give "
                    "it twice: (x, x)"
                )
            key, keys = None, ()
        inputs, wanted = _parts(batch, key, keys)
        input_shape, input_tensors = flatten(inputs, "the input")
        target_shape, _ = flatten(wanted, "the target")
        return cls(key, keys, (input_shape, target_shape), len(input_tensors))

    def tensors(self, batch: object, where: str) -> tuple[Tensor, ...]:
        """A batch as a flat tuple, inputs first. Raises DataError if it is laid out in another way."""
        try:
            inputs, wanted = _parts(batch, self.target_key, self.keys)
        except KeyError as error:
            raise DataError(f"{where}: has no {error}, which the first items have") from error
        except (TypeError, IndexError) as error:
            kinds = ("dicts", "tuples") if self.target_key is not None else ("tuples", "dicts")
            raise DataError(
                f"{where}: items are {kinds[1]}, but those of train are {kinds[0]}; make all alike"
            ) from error
        input_shape, input_tensors = flatten(inputs, f"{where}, the input")
        target_shape, target_tensors = flatten(wanted, f"{where}, the target")
        if (input_shape, target_shape) != self.shape:
            raise DataError(f"{where}: items are made up otherwise than the first items are; make all alike")
        return (*input_tensors, *target_tensors)

    def require_rows(self, tensors: Sequence[Tensor], where: str) -> None:
        """Raises DataError where a part of a batch has not one row an example."""
        if not in_rows(tensors):
            sizes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
            raise DataError(
                f"{where}: the parts of a batch must have one row an example each; their shapes are {sizes}"
            )

    def tidy(self, batch: object, where: str, types: Types) -> tuple[Tensor, ...]:
        """`tensors` in the types that the model and the loss take. Raises DataError for floats that are no classes."""
        tensors = self.tensors(batch, where)
        kept = types.masks and len(tensors) > self.inputs + 1
        return (
            *(tidy(part, types) for part in tensors[: self.inputs]),
            *(
                part if kept and part.dtype is torch.bool else tidy(part, types, target=where)
                for part in tensors[self.inputs :]
            ),
        )

    def call(self, model: nn.Module, tensors: Sequence[Tensor]) -> Any:
        """What the model says of a batch."""
        inputs = rebuild(self.shape[0], iter(tensors[: self.inputs]))
        if self.target_key is not None:
            return model(**inputs, **({self.target_key: self.target(tensors)} if self.gives_target else {}))
        return model(*inputs, *((self.target(tensors),) if self.gives_target else ()))

    def target(self, tensors: Sequence[Tensor]) -> Any:
        """The batch's target: a tensor, or several as the items have them."""
        return rebuild(self.shape[1], iter(tensors[self.inputs :]))


def _target_key(keys: list[str], target: str | None) -> str:
    if target is not None:
        if target not in keys:
            raise PlanError(f"target='{target}': items have {', '.join(keys)}.{nearest(target, keys)}")
        return target
    found = [key for key in TARGET_KEYS if key in keys]
    if len(found) != 1:
        why = f"{' and '.join(found)} may both be the target" if found else "none of them looks like the target"
        raise PlanError(f"items have {', '.join(keys)}: {why}; name it with target='...'")
    return found[0]


def _parts(batch: Any, key: str | None, keys: tuple[str, ...]) -> tuple[Any, Any]:
    """Inputs and target of a batch."""
    if key is None:
        return tuple(batch[:-1]), batch[-1]
    return {name: batch[name] for name in keys}, batch[key]


def in_rows(tensors: Sequence[Tensor], size: int | None = None) -> bool:
    """Whether all have one row an example: the same number of rows, `size` where that is known."""
    return {len(tensor) if tensor.ndim else 0 for tensor in tensors} in (
        [{size}] if size is not None else [{len(tensors[0])}] if tensors[0].ndim else []
    )


def _is_data(value: object) -> bool:
    """Whether a part of a batch is made of tensors, as a model's arguments are; names and texts are not."""
    try:
        flatten(value, "")
    except DataError:
        return False
    return True


def rows_of(value: Any, rows: slice, size: int) -> Any:
    """Some examples of a nested output or target of `size` examples; None where it has no rows.

    Of outputs with names, parts that are no tensors (caches of transformers models) are left out.
    """
    if isinstance(value, Tensor):
        return value[rows] if value.ndim and len(value) == size else None
    if isinstance(value, Mapping):
        known = {key: part for key, part in value.items() if isinstance(part, Tensor | Mapping | tuple | list)}
        parts = {key: rows_of(part, rows, size) for key, part in known.items()}
        return None if any(part is None for part in parts.values()) else _same_type(value, parts)
    if isinstance(value, tuple | list):
        items = [rows_of(part, rows, size) for part in value]
        if any(part is None for part in items):
            return None
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return None


def _same_type(value: Mapping[str, Any], parts: dict[str, Any]) -> Any:
    """Outputs of transformers models are mappings with attributes."""
    try:
        return parts if type(value) is dict else type(value)(**parts)
    except TypeError:
        return parts


def tidy(tensor: Tensor, types: Types, *, target: str | None = None) -> Tensor:
    """Numbers in the types that torch models and losses take; `target` names the split of which it is a target.

    Raises DataError for a float that should be a class number and is none.
    """
    if tensor.dtype in (torch.float64, torch.float16, torch.bfloat16) and not types.double:
        tensor = tensor.float()
    if target is None and types.float_inputs and not tensor.is_floating_point() and not tensor.is_complex():
        return tensor.double() if types.double else tensor.float()
    if target is None or tensor.is_complex():
        return tensor
    if not tensor.is_floating_point():
        return tensor.to(types.whole)
    if types.classes:
        if bool((wrong := tensor != tensor.round()).any()):
            raise DataError(
                f"{target}: there is a target {float(tensor[wrong][0]):g}, where class numbers are wanted; give whole "
                "numbers from 0 on, or a loss for numbers (nn.MSELoss())"
            )
        return tensor.long()
    return tensor
