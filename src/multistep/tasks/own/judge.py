"""What the outputs of a module mean: the rows of an evaluation, and a trivial model's output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from multistep.errors import DataError
from multistep.tasks.own.losses import YES_NO_LOSSES, OwnLoss
from multistep.tasks.own.scores import MOST_OUTPUTS, Kind, Scores


def kind_of(output: Any, target: Any, loss: OwnLoss, size: int) -> Kind:
    """What an output and its target are, by their shapes, types and loss; `size` is the number of examples."""
    out, wanted = loss.read(output, target)
    if not (isinstance(out, Tensor) and isinstance(wanted, Tensor)) or not (out.ndim and out.is_floating_point()):
        return "other"
    if wanted.is_complex() or not len(out) == size == (len(wanted) if wanted.ndim else 0):
        return "other"
    single = out.ndim == 1 or (out.ndim == 2 and out.shape[1] == 1)
    if isinstance(loss.given, YES_NO_LOSSES) and out.shape == wanted.shape:
        if out.ndim > 2:
            return "mask"
        return "yes-no" if single else "labels" if out.shape[1] <= MOST_OUTPUTS else "other"
    if not wanted.is_floating_point() and out.ndim == wanted.ndim + 1 and out.shape[1] > 1:
        if wanted.ndim == 1:
            return "classes"
        return "places" if out.shape[2:] == wanted.shape[1:] else "other"
    if out.shape == wanted.shape and wanted.is_floating_point():
        if isinstance(loss.given, nn.CrossEntropyLoss) and out.ndim == 2 and not single:
            return "shares"
        return "number" if single else "numbers" if out.ndim == 2 and out.shape[1] <= MOST_OUTPUTS else "other"
    return "other"


@dataclass(frozen=True)
class Judge:
    """How one phase's outputs are scored. `width` is the number of classes or of numbers in an output.

    `with_outputs` and `with_scores` tell to keep the output's numbers, and probabilities, beside, for a metric that
    asks for them. `axes` are the axes of an output.
    """

    kind: Kind
    width: int
    loss: OwnLoss
    with_outputs: bool = False
    with_scores: bool = False
    axes: int = 2

    @property
    def scores(self) -> Scores:
        return Scores(
            self.kind,
            self.width,
            logits=self._logits,
            ignored=self.loss.ignored,
            with_outputs=self.with_outputs,
            with_scores=self.with_scores,
            axes=self.axes,
        )

    @property
    def classifies(self) -> bool:
        """Whether an example is one of several classes."""
        return self.scores.classifies

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of metrics that apply, the default first."""
        return self.scores.metrics

    def rows(self, output: Any, target: Any, size: int, piece: int) -> dict[str, Tensor]:
        """One number an example for each column of the evaluation."""
        loss_B, weight_B, block_B = self.loss.rows(output, target, size, piece)
        found = {"loss": loss_B, "count": weight_B, "block": block_B}
        if self.kind == "other":
            return found
        out, target = self.loss.read(output, target)
        return self.scores.columns(out.detach().float(), target, size) | found

    @property
    def _logits(self) -> bool:
        return not isinstance(self.loss.given, nn.BCELoss)

    def constant(self, targets: Sequence[Any], output: Tensor | None) -> tuple[str, Tensor] | None:
        """A trivial model: its name and what it says of every example (shape: 1, ...), from training targets.

        `output` is the network's own of some examples, whose form it has. None where nothing trivial can be said.
        """
        if output is None or not all(isinstance(target, Tensor) for target in targets):
            return None
        if self.kind in ("classes", "places"):
            labels = torch.cat([target.flatten() for target in targets])
            counted = labels[(labels >= 0) & (labels < self.width)].long()
            share_C = (torch.bincount(counted, minlength=self.width) + 1.0) / (len(counted) + self.width)
            return "majority", share_C.log().float().reshape(1, self.width, *(1,) * (self.axes - 2))
        alike = all(target.shape[1:].numel() == output.shape[1:].numel() for target in targets)
        if not alike or any(target.shape[1:] != targets[0].shape[1:] or not _numbers(target) for target in targets):
            return None
        wanted = torch.cat(list(targets)).float()
        form = (1, *output.shape[1:])
        if self.kind == "shares":
            return "majority", wanted.mean(0).clamp_min(1e-6).log().reshape(form)
        if isinstance(self.loss.given, YES_NO_LOSSES):
            share = (wanted.sum(0, keepdim=True) + 1) / (len(wanted) + 2)
            return "majority", (share.logit() if self._logits else share).reshape(form)
        mean = wanted.mean(0, keepdim=True).reshape(form)
        return ("mean", mean) if self._compares(wanted.reshape(-1, *form[1:]), torch.cat(list(targets)), mean) else None

    def _compares(self, said: Tensor, wanted: Tensor, mean: Tensor) -> bool:
        """Whether the loss is least where the output is the target; of a rate's logarithm, say, it is not."""
        try:
            at, beside = (self.loss.value(out.to(wanted), wanted, 0.0).mean() for out in (said, mean.expand_as(said)))
        except Exception:  # whatever a user's loss says to an output that is no model's
            return False
        return bool(at <= beside)

    def repeated(self, constant: Tensor, target: Any, size: int) -> Tensor:
        """A constant output for each example of a batch, its axes as the model has them."""
        if self.kind != "places":
            return constant.expand(size, *constant.shape[1:]).contiguous()
        found = constant.expand(size, constant.shape[1], *target.shape[1:])
        return (found.movedim(1, -1) if self.loss.reading.moved else found).contiguous()


def _numbers(target: Tensor) -> bool:
    return target.is_floating_point()


def require_labels(split: str, labels: Tensor, width: int, ignored: int | None) -> None:
    """Raises DataError for a label that is none of the classes that the model tells apart."""
    wrong = (labels < 0) | (labels >= width)
    if ignored is not None:
        wrong &= labels != ignored
    if bool(wrong.any()):
        label, least = int(labels[wrong][0]), int(labels.min())
        why = ""
        if label == width and least >= 1:
            why = "; if the labels count from 1, subtract 1 from all"
        elif label < 0:
            why = f"; if {label} means that there is no label, give nn.CrossEntropyLoss(ignore_index={label})"
        elif label >= width:
            why = f"; give the model {label + 1} outputs or more, or mend the label"
        raise DataError(
            f"{split}: there is a label {label}, but the model tells {width} classes apart (0 to {width - 1}){why}"
        )


def pieces_for(examples: int, most_calls: int) -> int:
    """How many examples are scored together where a loss must be called for each piece."""
    return max(1, math.ceil(examples / most_calls))
