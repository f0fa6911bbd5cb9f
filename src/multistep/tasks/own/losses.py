"""The user's loss as the learner needs it: a sum and a number of labels, and a number for each example."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from multistep.errors import PlanError
from multistep.tasks.own.layout import rows_of
from multistep.tasks.own.names import FUNCTIONS, NAMED, named_loss
from multistep.tasks.own.reading import Reading, loss_within
from multistep.tasks.own.rebound import StandIn
from multistep.tasks.own.scores import IGNORED

MOST_CALLS = 4096  # of a loss function while a split is scored
CLASS_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss)
YES_NO_LOSSES = (nn.BCEWithLogitsLoss, nn.BCELoss)
DISTANCES = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
FLOAT_TARGETS = (*YES_NO_LOSSES, *DISTANCES)


class OwnLoss:
    """A loss module, a function (output, target) -> mean loss, or a loss's name.

    A loss of torch, or a function that returns one number an example, is known example by example. Any other is
    called with pieces of a batch while a split is scored: single examples, or more of a large split; or whole
    batches where that gives something else (contrastive losses).
    """

    def __init__(self, given: Any, model: nn.Module) -> None:
        """`model` is the user's, which the loss may read."""
        if isinstance(given, type):
            raise PlanError(f"loss is the class {given.__name__}; give an instance: loss={given.__name__}()")
        if isinstance(given, str):
            given = named_loss(given)
        with contextlib.suppress(TypeError):  # what cannot be hashed is none of torch's functions
            given = FUNCTIONS[given]() if given in FUNCTIONS else given
        if not callable(given):
            raise PlanError(
                f"loss is {given!r}; allowed: a name ({', '.join(NAMED)}), a loss module, or a function "
                "(output, target) -> mean loss"
            )
        of_model = {id(parameter) for parameter in model.parameters()}
        trained = [p for p in given.parameters() if p.requires_grad] if isinstance(given, nn.Module) else []
        if any(id(parameter) not in of_model for parameter in trained):
            raise PlanError("the loss has parameters, which nothing would train; make them part of the model")
        self.given = given
        self.name = _name(given)
        self.smoothing = given.label_smoothing if isinstance(given, nn.CrossEntropyLoss) else 0.0
        self.standard = isinstance(given, _Loss) and type(given).__module__.startswith("torch.")
        self.reading = Reading()
        self.of_model = False  # whether what is trained on is the loss that the model computes itself
        self.stand_in = StandIn(model)
        self._function: Any = copy.deepcopy(given) if isinstance(given, nn.Module) and not trained else given
        self._whole: Any = None  # the same by whole batches, which is a little faster
        self._sums, self._least = False, _least_weight(given)
        if self.standard:
            self._sums = self._function.reduction in ("sum", "batchmean")
            self._function.reduction = "none"
            if not (isinstance(given, CLASS_LOSSES) and given.weight is not None):
                self._whole = copy.deepcopy(given)
                self._whole.reduction = "sum" if self._sums or isinstance(given, CLASS_LOSSES) else "mean"
        self.by_example = True  # whether one call gives a number for each example
        self.joint = False  # whether its value for a batch is no mean over examples

    @classmethod
    def of_the_model(cls, same: nn.Module | None, reading: Reading, model: nn.Module) -> OwnLoss:
        """The loss that the model computes itself; `same` is the loss of torch that it was seen to be, if any."""
        loss = cls(same or _within, model)
        loss.of_model, loss.reading, loss.smoothing = True, reading, 0.0
        loss.name = f"the model's own loss{f' ({_name(same)})' if same else ''}"
        loss.by_example, loss.joint = same is not None, same is None
        return loss

    def standing_for(self, model: nn.Module) -> contextlib.AbstractContextManager[None]:
        """While it is open, a loss that reads the module that was given reads this one instead."""
        return contextlib.nullcontext() if self.standard else self.stand_in.standing_for(model)

    @property
    def smooths(self) -> bool:
        """Whether label smoothing means something to it."""
        return isinstance(self._function, nn.CrossEntropyLoss) and not self.of_model

    @property
    def float_targets(self) -> bool:
        """Whether it compares numbers, and so wants class numbers as such."""
        return isinstance(self._function, FLOAT_TARGETS)

    @property
    def unit(self) -> str:
        """What the loss is counted in."""
        if isinstance(self._function, (*CLASS_LOSSES, *YES_NO_LOSSES)):
            return "nats per label"
        return "as the function counts" if self.name == "lambda" else self.name

    @property
    def ignored(self) -> int:
        """The class number that is left out."""
        return int(self._function.ignore_index) if isinstance(self._function, CLASS_LOSSES) else IGNORED

    def to(self, device: torch.device) -> None:
        if isinstance(self._function, nn.Module) and self._function is not self.given:
            self._function.to(device)
        if self._whole is not None:
            self._whole.to(device)

    def read(self, output: Any, target: Any) -> tuple[Any, Any]:
        """Output and target as torch's losses, and scores, want them."""
        return self.reading(output, target)

    def summed(self, output: Any, target: Any, size: int, label_smoothing: float) -> tuple[Tensor, Tensor]:
        """The summed loss of a batch of `size` examples, and the number of labels."""
        labels = self._labels(output, target, size)
        if self.of_model:
            value = _within(output, target).float()
            labels = labels.to(value.device)
            return value * labels, labels.clamp_min(1)
        value = self.value(output, target, label_smoothing, whole=True)
        labels = labels.to(value.device)
        wanted = self._read(output, target)[1]
        if value.ndim == 0:
            summed = self._whole is not None and self._whole.reduction == "sum"
            if summed and not self._sums and not self._has_labels(wanted):
                value = value / _places(wanted)  # shares of classes: torch's mean is over all places of an example
            return (value if summed else value * labels), labels.clamp_min(1)
        loss_B, weight_B = self._by_example(value, wanted)
        if not self._has_labels(wanted):
            return loss_B.sum() / weight_B.sum().clamp_min(1e-12) * labels, labels.clamp_min(1)
        # Weighted classes: torch's mean is over weights, which add up over the pieces of a batch. In the least of them,
        # so that there are as many as there are labels, or more.
        return loss_B.sum() / self._least, (weight_B.sum() / self._least).clamp_min(1)

    def rows(self, output: Any, target: Any, size: int, piece: int) -> tuple[Tensor, Tensor, Tensor]:
        """Each example's loss, the weight that it has in the mean, and its block (shape: B, all).

        `piece` is how many examples are scored together, and make a block, where one call gives a single number.
        """
        if self.by_example:
            value = self.value(output, target, 0.0)
            return (*self._by_example(value, self._read(output, target)[1]), torch.arange(size))
        block_B = torch.zeros(size) if self.joint else torch.arange(size) // piece
        starts = [0] if self.joint else range(0, size, piece)
        values = []
        for start in starts:
            cut = slice(start, size if self.joint else start + piece)
            part = (output, target) if self.joint else (rows_of(output, cut, size), rows_of(target, cut, size))
            values.append(self.value(*part, 0.0))
        loss_B = torch.stack(values)[block_B.long().to(values[0].device)]
        return loss_B, torch.ones_like(loss_B), block_B

    def _read(self, output: Any, target: Any) -> tuple[Any, Any]:
        """What the function is called with: a user's own gets what the model says, as it says it."""
        return self.reading(output, target) if self.standard else (output, target)

    def _labels(self, output: Any, target: Any, size: int) -> Tensor:
        """How many labels the mean of a batch is over."""
        out, wanted = self._read(output, target)
        if self._has_labels(wanted):
            return torch.as_tensor((wanted != self._function.ignore_index).sum())
        return torch.full((), size, device=out.device if isinstance(out, Tensor) else None)

    def _has_labels(self, target: Any) -> bool:
        """Whether the target holds class numbers, of which some may be ignored."""
        numbers = isinstance(target, Tensor) and not target.is_floating_point()
        return numbers and isinstance(self._function, CLASS_LOSSES)

    def value(self, output: Any, target: Any, label_smoothing: float, *, whole: bool = False) -> Tensor:
        """What the loss itself returns, in float32. Raises PlanError for what is no tensor."""
        function = self._whole if whole and self._whole is not None else self._function
        if self.smooths:
            function.label_smoothing = label_smoothing
        output, target = self._read(output, target)
        half = isinstance(output, Tensor) and output.dtype in (torch.bfloat16, torch.float16)
        if half and torch.is_autocast_enabled(output.device.type):
            # Losses are for whole precision, and one of torch's refuses anything else.
            with torch.autocast(output.device.type, enabled=False):
                value = function(output.float(), target)
        else:
            value = function(output, target)
        if not isinstance(value, Tensor):
            advice = ", their sum for instance" if isinstance(value, tuple | list | Mapping) else ""
            raise PlanError(f"the loss {self.name} returned a {type(value).__name__}; it must return a tensor{advice}")
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


def _least_weight(given: Any) -> float:
    """Of the classes that count; 1 where none is weighed."""
    weights = given.weight.tolist() if isinstance(given, CLASS_LOSSES) and given.weight is not None else []
    return min((weight for weight in weights if weight > 0), default=1.0)


def _places(target: Tensor) -> int:
    """How many places an example has whose classes stand in the second axis."""
    return max(1, target.numel() // max(1, target.shape[0] * target.shape[1])) if target.ndim > 2 else 1


def _within(output: Any, _target: Any) -> Tensor:
    """The loss that stands in a model's own output."""
    found = loss_within(output)
    assert found is not None, "a model's own loss was seen before"
    return found.reshape(())


def _name(given: object) -> str:
    name = getattr(given, "__name__", None) or type(given).__name__
    return "lambda" if name == "<lambda>" else str(name)
