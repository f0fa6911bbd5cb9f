"""What outputs and targets mean: the rows of an evaluation, the metrics they allow, and a trivial model's output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from multistep.core.evidence.metric import OF_NUMBERS, Evaluation
from multistep.errors import DataError
from multistep.tasks.classes import class_metrics, class_rows, fetched, logit_rows, small_enough
from multistep.tasks.own.losses import YES_NO_LOSSES, OwnLoss

# classes: one of several, by logits; shares: the same, by a share of each class; yes-no: one of two, by one logit;
# labels: several at once; number: one; numbers: several; places: a class for each place of an example (tokens, pixels);
# mask: yes or no at each place; other: only the loss is known.
Kind = Literal["classes", "shares", "yes-no", "labels", "number", "numbers", "places", "mask", "other"]
MOST_OUTPUTS = 64  # numbers of an example's output that a table holds


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
    def classifies(self) -> bool:
        """Whether an example is one of several classes."""
        return self.kind in ("classes", "shares", "yes-no")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of metrics that apply, the default first."""
        of_places = (f"{self._places[:-1]}_accuracy", "mean_iou", "dice")
        by_kind: dict[Kind, tuple[str, ...]] = {
            "classes": class_metrics(self.width),
            "shares": tuple(name for name in class_metrics(self.width) if name != "calibrated_loss"),
            "yes-no": class_metrics(2),
            "labels": ("loss", "micro_f1", "macro_f1"),
            "number": ("loss", *OF_NUMBERS, "pearson", "spearman"),
            "numbers": ("loss", *OF_NUMBERS),
            "places": ("loss", *of_places) if self.width <= MOST_OUTPUTS else ("loss", of_places[0]),
            "mask": ("loss", *of_places),
        }
        return by_kind.get(self.kind, ("loss",))

    def rows(self, output: Any, target: Any, size: int, piece: int) -> dict[str, Tensor]:
        """One number an example for each column of the evaluation."""
        loss_B, weight_B, block_B = self.loss.rows(output, target, size, piece)
        found = {"loss": loss_B, "count": weight_B, "block": block_B}
        if self.kind == "other":
            return found
        out, target = self.loss.read(output, target)
        out = out.detach().float()
        if self.kind in ("places", "mask"):
            return self._place_rows(out, target) | found
        flat_BK = out.reshape(size, -1)
        match self.kind:
            case "classes":
                found = class_rows(out, target) | found
            case "shares":
                found = class_rows(out, target.argmax(1)) | found
            case "yes-no":
                score = flat_BK[:, 0].sigmoid() if self._logits else flat_BK[:, 0]
                prediction = (score > 0.5).float()
                sure = torch.where(score > 0.5, score, 1 - score)
                label = target.reshape(size)
                found |= {"label": label, "prediction": prediction, "probability": sure, "score": score}
                odds = score.double().clamp(1e-12, 1 - 1e-12).logit() if not self._logits else flat_BK[:, 0].double()
                found |= logit_rows(torch.stack((F.logsigmoid(-odds), F.logsigmoid(odds)), 1))
            case "labels":
                threshold = 0.0 if self._logits else 0.5
                for k in range(self.width):
                    found[f"label_{k}"] = target[:, k]
                    found[f"prediction_{k}"] = (flat_BK[:, k] > threshold).float()
                found |= logit_rows(flat_BK if self._logits else flat_BK.clamp(1e-6, 1 - 1e-6).logit())
            case "number":
                found |= {"label": target.reshape(size), "prediction": flat_BK[:, 0]}
        if self.with_scores and self.width <= MOST_OUTPUTS and "score" not in found and self.kind != "number":
            found |= {f"score_{k}": column for k, column in enumerate(self._probabilities(flat_BK).unbind(1))}
        if self.with_outputs or self.kind == "numbers":
            found |= {f"output_{k}": flat_BK[:, k] for k in range(flat_BK.shape[1])}
        if self.kind == "numbers":
            found |= {f"target_{k}": target[:, k] for k in range(self.width)}
        return found

    def _probabilities(self, flat_BK: Tensor) -> Tensor:
        if self.kind == "labels":
            return flat_BK.sigmoid() if self._logits else flat_BK
        return flat_BK.softmax(1)

    def _place_rows(self, out: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Places of each example by class, as `core.evidence.places` counts them."""
        size = len(out)
        if self.kind == "mask":
            said, wanted, first = (out > (0.0 if self._logits else 0.5)).long(), (target > 0.5).long(), 1
            counted = torch.ones_like(wanted, dtype=torch.bool)
        else:
            said, wanted, first = out.argmax(1), target, 0
            counted = (target >= 0) & (target < self.width) & (target != self.loss.ignored)
        width = max(2, self.width) if self.kind == "places" else 2
        example = torch.arange(size, device=out.device).reshape(size, *(1,) * (wanted.ndim - 1)).expand_as(wanted)
        hit = counted & (said == wanted)

        def by_class(classes: Tensor, which: Tensor) -> Tensor:
            number = (example * width + classes)[which]
            return torch.bincount(number, minlength=size * width).reshape(size, width)

        of = self._places
        found = {of: counted.reshape(size, -1).sum(1), f"right_{of}": hit.reshape(size, -1).sum(1)}
        if width <= MOST_OUTPUTS:
            for name, classes, which in (
                ("hit", wanted, hit),
                ("labelled", wanted, counted),
                ("predicted", said, counted),
            ):
                columns = by_class(classes, which)[:, first:].unbind(1)  # of masks what is marked counts
                found |= {f"{name}_{k}": column for k, column in enumerate(columns)}
        return found

    @property
    def _places(self) -> str:
        return "tokens" if self.kind == "places" and self.axes == 3 else "pixels"

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


def table_of(batches: Sequence[dict[str, Tensor]]) -> Evaluation:
    """The evaluation of rows from `Judge.rows`; blocks are numbered on from batch to batch."""
    names = [name for name in batches[0] if name != "block"]
    columns = fetched(batches, names)
    blocks, first = [], 0
    for rows in batches:
        block = rows["block"].numpy().astype(np.float64) + first
        blocks.append(block)
        first = int(block[-1]) + 1
    return small_enough(Evaluation({**columns, "block": np.concatenate(blocks)}))


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
