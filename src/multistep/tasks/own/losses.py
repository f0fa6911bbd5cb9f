"""The user's loss as the learner needs it: a sum and a number of labels, and a number for each example."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from multistep.errors import DataError, PlanError
from multistep.tasks.own.layout import rows_of

IGNORED = -100  # the class number that torch's losses leave out by default
MOST_CALLS = 4096  # of a loss function while a split is scored
CLASS_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss)
YES_NO_LOSSES = (nn.BCEWithLogitsLoss, nn.BCELoss)
FLOAT_TARGETS = (*YES_NO_LOSSES, nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
FUNCTIONS: Mapping[Any, Callable[[], nn.Module]] = {
    F.cross_entropy: nn.CrossEntropyLoss,
    F.nll_loss: nn.NLLLoss,
    F.mse_loss: nn.MSELoss,
    F.l1_loss: nn.L1Loss,
    F.smooth_l1_loss: nn.SmoothL1Loss,
    F.huber_loss: nn.HuberLoss,
    F.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
    F.binary_cross_entropy: nn.BCELoss,
}


class OwnLoss:
    """A loss module or function (output, target) -> mean loss.

    A loss of torch, or a function that returns one number an example, is known example by example. Any other is
    called with pieces of a batch while a split is scored: single examples, or more of a large split; or whole
    batches where that gives something else (contrastive losses).
    """

    def __init__(self, given: Any) -> None:
        if isinstance(given, type):
            raise PlanError(f"loss is the class {given.__name__}; give an instance: loss={given.__name__}()")
        with contextlib.suppress(TypeError):  # what cannot be hashed is none of torch's functions
            given = FUNCTIONS[given]() if given in FUNCTIONS else given
        if not callable(given):
            raise PlanError(f"loss is {given!r}; allowed: a loss module, or a function (output, target) -> mean loss")
        if isinstance(given, nn.Module) and any(True for _ in given.parameters()):
            raise PlanError("the loss has parameters, which nothing would train; make them part of the model")
        self.given = given
        self.name = _name(given)
        self.smoothing = given.label_smoothing if isinstance(given, nn.CrossEntropyLoss) else 0.0
        self._function: Any = copy.deepcopy(given) if isinstance(given, nn.Module) else given
        self._whole: Any = None  # the same by whole batches, which is a little faster
        self._sums = False
        if isinstance(given, _Loss) and type(given).__module__.startswith("torch."):
            self._sums = self._function.reduction in ("sum", "batchmean")
            self._function.reduction = "none"
            if not (isinstance(given, CLASS_LOSSES) and given.weight is not None):
                self._whole = copy.deepcopy(given)
                self._whole.reduction = "sum" if self._sums or isinstance(given, CLASS_LOSSES) else "mean"
        self.by_example = True  # whether one call gives a number for each example
        self.joint = False  # whether its value for a batch is no mean over examples

    @property
    def smooths(self) -> bool:
        """Whether label smoothing means something to it."""
        return isinstance(self._function, nn.CrossEntropyLoss)

    @property
    def float_targets(self) -> bool:
        """Whether it compares numbers, and so wants class numbers as such."""
        return isinstance(self._function, FLOAT_TARGETS)

    @property
    def unit(self) -> str:
        """What the loss is counted in."""
        return "nats per label" if isinstance(self._function, (*CLASS_LOSSES, *YES_NO_LOSSES)) else self.name

    def to(self, device: torch.device) -> None:
        if isinstance(self._function, nn.Module):
            self._function.to(device)
        if self._whole is not None:
            self._whole.to(device)

    def summed(self, output: Any, target: Any, size: int, label_smoothing: float) -> tuple[Tensor, Tensor]:
        """The summed loss of a batch of `size` examples, and the number of labels."""
        labelled = self._has_labels(target)
        value = self._value(output, target, label_smoothing, whole=True)
        labels = torch.full((), size, device=value.device)
        if labelled:
            labels = (target != self._function.ignore_index).sum()
        if value.ndim == 0:
            summed = self._whole is not None and self._whole.reduction == "sum"
            return (value if summed else value * labels), labels.clamp_min(1)
        loss_B, weight_B = self._by_example(value, target)
        # Weighted classes: torch's mean is over weights, ours over labels. Of a batch without labels both are 0.
        return loss_B.sum() / weight_B.sum().clamp_min(1e-12) * labels, labels.clamp_min(1)

    def rows(self, output: Any, target: Any, size: int, piece: int) -> tuple[Tensor, Tensor, Tensor]:
        """Each example's loss, the weight that it has in the mean, and its block (shape: B, all).

        `piece` is how many examples are scored together, and make a block, where one call gives a single number.
        """
        if self.by_example:
            value = self._value(output, target, 0.0)
            return (*self._by_example(value, target), torch.arange(size))
        block_B = torch.zeros(size) if self.joint else torch.arange(size) // piece
        starts = [0] if self.joint else range(0, size, piece)
        values = []
        for start in starts:
            cut = slice(start, size if self.joint else start + piece)
            part = (output, target) if self.joint else (rows_of(output, cut, size), rows_of(target, cut, size))
            values.append(self._value(*part, 0.0))
        loss_B = torch.stack(values)[block_B.long().to(values[0].device)]
        return loss_B, torch.ones_like(loss_B), block_B

    def _has_labels(self, target: Any) -> bool:
        """Whether the target holds class numbers, of which some may be ignored."""
        numbers = isinstance(target, Tensor) and not target.is_floating_point()
        return numbers and isinstance(self._function, CLASS_LOSSES)

    def _value(self, output: Any, target: Any, label_smoothing: float, *, whole: bool = False) -> Tensor:
        function = self._whole if whole and self._whole is not None else self._function
        if self.smooths:
            function.label_smoothing = label_smoothing
        half = isinstance(output, Tensor) and output.dtype in (torch.bfloat16, torch.float16)
        if half and torch.is_autocast_enabled(output.device.type):
            # Losses are for whole precision, and one of torch's refuses anything else.
            with torch.autocast(output.device.type, enabled=False):
                value = function(output.float(), target)
        else:
            value = function(output, target)
        if not isinstance(value, Tensor):
            raise PlanError(f"the loss {self.name} returned a {type(value).__name__}; it must return a tensor")
        return value.float()

    def _by_example(self, value: Tensor, target: Any) -> tuple[Tensor, Tensor]:
        """Losses of elements (B, ...) -> each example's, and its weight in the mean."""
        flat = value.flatten(1) if value.ndim > 1 else value[:, None]
        if self._has_labels(target):
            counts = target != self._function.ignore_index
            weight = counts.float()
            if self._function.weight is not None:
                weight = weight * self._function.weight.float()[target.where(counts, 0)]
            return flat.sum(1), (weight.flatten(1).sum(1) if weight.ndim > 1 else weight)
        return (flat.sum(1) if self._sums else flat.mean(1)), torch.ones(len(flat), device=value.device)

    # Trying it ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def try_out(self, output: Any, target: Any, size: int) -> None:
        """See on a first batch whether the loss is a mean over examples. Raises DataError, PlanError."""
        try:
            whole = self._value(output, target, 0.0)
        except (PlanError, DataError):
            raise
        except Exception as error:
            raise PlanError(
                f"the loss {self.name} cannot be called with the model's output and the target "
                f"({type(error).__name__}: {error}); {shapes(output, target)}"
            ) from error
        if whole.ndim:
            if len(whole) != size:
                raise PlanError(
                    f"the loss {self.name} gives {tuple(whole.shape)} for {size} examples; it must give their mean, or "
                    "one number an example"
                )
            return
        self.by_example, self.joint = False, True
        parts = [(rows_of(output, slice(i, i + 1), size), rows_of(target, slice(i, i + 1), size)) for i in range(size)]
        if size > 1 and all(out is not None and wanted is not None for out, wanted in parts):
            try:
                singles = [float(self._value(*part, 0.0)) for part in parts]
            except Exception:  # whatever a loss says to a single example: it is scored by batches then
                return
            self.joint = not math.isclose(sum(singles) / size, float(whole), rel_tol=1e-3, abs_tol=1e-6)


def inferred(output: Any, target: Any) -> nn.Module:
    """The loss that output and target ask for. Raises PlanError where they leave it open."""
    if isinstance(output, Tensor) and isinstance(target, Tensor):
        if not target.is_floating_point() and output.ndim == target.ndim + 1 and output.shape[1] > 1:
            return nn.CrossEntropyLoss()
        if target.is_floating_point() and output.shape == target.shape:
            return nn.MSELoss()
    raise PlanError(
        f"loss is missing and cannot be told from the data: {shapes(output, target)}; give loss=nn.CrossEntropyLoss(), "
        "another loss module, or a function (output, target) -> mean loss"
    )


def shapes(output: Any, target: Any) -> str:
    """What the model gives and what is wanted of it, in words."""
    return f"the model gives {_shape(output)}, the target is {_shape(target)}"


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__


def _name(given: object) -> str:
    name = getattr(given, "__name__", None) or type(given).__name__
    return "the given function" if name == "<lambda>" else str(name)
