"""Which tensor of a model's output is scored, how its axes lie, and whether the output holds a loss of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

# Names of what is scored in outputs with several parts, the surest first.
MAIN_KEYS = ("logits", "out", "output", "outputs", "prediction", "predictions", "preds", "pred", "y_hat", "y_pred")


@dataclass(frozen=True)
class Reading:
    """How an output is read beside its target, as torch's losses want both.

    `moved`: the classes are its last axis, as transformers has them, and become the second. `shifted`: each place
    tells the label of the next one, so the last place and the first label are left out. `first` tells that of several
    parts without names the first is scored; `flat` that an output of one number an example loses its second axis.
    """

    moved: bool = False
    shifted: bool = False
    first: bool = False
    flat: bool = False

    def __call__(self, output: Any, target: Any) -> tuple[Any, Any]:
        out = main_tensor(output, first=self.first)
        if out is None:
            return output, target
        if self.shifted:
            out, target = out[:, :-1], target[:, 1:]
        if self.flat and out.numel() == len(out):
            out = out.reshape(len(out))
        return (out.movedim(-1, 1) if self.moved else out), target


def main_tensor(output: object, *, first: bool = True) -> Tensor | None:
    """What a model says, as one tensor: its output, or the part of it with one of MAIN_KEYS; None if there is none."""
    if isinstance(output, Tensor):
        return output if output.ndim else None
    found: object = next((part for key in MAIN_KEYS if (part := _named(output, key)) is not None), None)
    if found is None and isinstance(output, Mapping):
        tensors = [part for part in output.values() if isinstance(part, Tensor) and part.ndim]
        found = tensors[0] if len(tensors) == 1 else None
    if found is None and first and isinstance(output, tuple | list):
        found = next((part for part in output if isinstance(part, Tensor) and part.ndim), None)
    return found if isinstance(found, Tensor) and found.ndim else None


def _named(output: object, key: str) -> object:
    found = output.get(key) if isinstance(output, Mapping) else getattr(output, key, None)
    return found if isinstance(found, Tensor) else None


def loss_within(output: object) -> Tensor | None:
    """The loss that a model computed itself: its output, the part of that name, or the one single number in it."""
    found: object = output if isinstance(output, Tensor) else _named(output, "loss")
    if found is None and isinstance(output, tuple | list):
        single = [part for part in output if isinstance(part, Tensor) and not part.ndim]
        found = single[0] if len(single) == 1 else None
    if not isinstance(found, Tensor) or found.numel() != 1 or not found.is_floating_point():
        return None
    return None if isinstance(output, Tensor) and output.ndim else found


def lies_last(out: object, target: object) -> bool:
    """Whether the classes of an output are its last axis, by the shape of class numbers for each place."""
    if not (isinstance(out, Tensor) and isinstance(target, Tensor)) or out.ndim < 3 or out.ndim != target.ndim + 1:
        return False
    return out.shape[:-1] == target.shape and out.shape[2:] != target.shape[1:]
