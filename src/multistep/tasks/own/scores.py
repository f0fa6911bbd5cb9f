"""What outputs and targets mean: the columns of an evaluation, and the metrics they allow. Of whatever framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from multistep.core.evidence.metric import OF_NUMBERS, Evaluation
from multistep.tasks.classes import class_metrics, class_rows, fetched, logit_rows, small_enough

# classes: one of several, by logits; shares: the same, by a share of each class; yes-no: one of two, by one logit;
# labels: several at once; number: one; numbers: several; places: a class for each place of an example (tokens, pixels);
# mask: yes or no at each place; other: only the loss is known.
Kind = Literal["classes", "shares", "yes-no", "labels", "number", "numbers", "places", "mask", "other"]
MOST_OUTPUTS = 64  # numbers of an example's output that a table holds

IGNORED = -100  # the class number that torch's losses leave out by default


@dataclass(frozen=True)
class Scores:
    """How outputs are scored beside targets. `width` is the number of classes or of numbers in an output.

    `logits` tells that an output of yes or no, or of labels, is a logarithm of odds, no probability; `ignored` is the
    class number of a place that does not count. `with_outputs` and `with_scores` tell to keep the output's numbers, and
    probabilities, beside, for a metric that asks for them. `axes` are the axes of an output.
    """

    kind: Kind
    width: int
    logits: bool = True
    ignored: int = IGNORED
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

    def columns(self, out: Tensor, target: Tensor, size: int) -> dict[str, Tensor]:
        """One number an example for each column but the loss's (of classes with their cross-entropy).

        `out` is in float32: of classes logits in its second axis, of anything else with the target's shape. Not of
        kind "other".
        """
        if self.kind in ("places", "mask"):
            return self._place_rows(out, target)
        found: dict[str, Tensor] = {}
        flat_BK = out.reshape(size, -1)
        match self.kind:
            case "classes":
                found = class_rows(out, target)
            case "shares":
                found = class_rows(out, target.argmax(1))
            case "yes-no":
                score = flat_BK[:, 0].sigmoid() if self.logits else flat_BK[:, 0]
                prediction = (score > 0.5).float()
                sure = torch.where(score > 0.5, score, 1 - score)
                label = target.reshape(size)
                found |= {"label": label, "prediction": prediction, "probability": sure, "score": score}
                odds = score.double().clamp(1e-12, 1 - 1e-12).logit() if not self.logits else flat_BK[:, 0].double()
                found |= logit_rows(torch.stack((F.logsigmoid(-odds), F.logsigmoid(odds)), 1))
            case "labels":
                threshold = 0.0 if self.logits else 0.5
                for k in range(self.width):
                    found[f"label_{k}"] = target[:, k]
                    found[f"prediction_{k}"] = (flat_BK[:, k] > threshold).float()
                found |= logit_rows(flat_BK if self.logits else flat_BK.clamp(1e-6, 1 - 1e-6).logit())
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
            return flat_BK.sigmoid() if self.logits else flat_BK
        return flat_BK.softmax(1)

    def _place_rows(self, out: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Places of each example by class, as `core.evidence.places` counts them."""
        size = len(out)
        if self.kind == "mask":
            said, wanted, first = (out > (0.0 if self.logits else 0.5)).long(), (target > 0.5).long(), 1
            counted = torch.ones_like(wanted, dtype=torch.bool)
        else:
            said, wanted, first = out.argmax(1), target, 0
            counted = (target >= 0) & (target < self.width) & (target != self.ignored)
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
