"""The model tried on the first examples: what its outputs and the targets mean, and whether the loss fits them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multistep.errors import DataError, PlanError
from multistep.tasks.keras.data import Array, Split, leaves
from multistep.tasks.keras.losses import DISTANCES, OF_CLASSES, SHARES, SPARSE, YES_NO, KerasLoss
from multistep.tasks.own.scores import MOST_OUTPUTS, Kind, Scores

TRIED = 8  # examples
MEANT = 2000  # examples whose targets are looked at
LEAST = 1e-7  # of a probability, before its logarithm is taken: Keras' own epsilon


@dataclass(frozen=True)
class Understood:
    """How outputs are read and scored. `probabilities` tells that they are, rather than logits; `one_hot` of targets
    that they have a column a class, of which one is 1.
    """

    loss: KerasLoss
    scores: Scores
    probabilities: bool
    one_hot: bool
    notes: tuple[str, ...]

    def read(self, outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        """Outputs and targets as `Scores.columns` wants them: classes as logits in the second axis."""
        out = torch.from_numpy(np.asarray(outputs, np.float32))
        wanted = torch.from_numpy(np.asarray(targets))
        kind = self.scores.kind
        if kind in ("classes", "shares", "places"):
            if self.probabilities:
                out = out.clamp_min(LEAST).log()
            if self.one_hot:
                wanted = wanted.argmax(-1)
            elif kind != "shares":
                wanted = wanted.reshape(out.shape[:-1]).long()
            return (out.movedim(-1, 1), wanted) if kind == "places" else (out, wanted)
        return out, wanted.reshape(out.shape).float()

    def constant(self, targets: Any) -> tuple[str, Array] | None:
        """A trivial model: its name, and what it says of an example in the model's own form; None where it has none."""
        if self.scores.kind in ("other", "mask", "places"):
            return None
        wanted = np.asarray(targets, np.float64)
        if self.scores.kind == "classes" and not self.one_hot:
            labels = wanted.astype(np.int64).ravel()
            wanted = np.eye(self.scores.width)[labels[(labels >= 0) & (labels < self.scores.width)]]
        if self.scores.kind in ("classes", "shares"):
            share = (wanted.sum(0) + 1.0) / (len(wanted) + self.scores.width)
            share /= share.sum()
            return "majority", (share if self.probabilities else np.log(share)).astype(np.float32)
        form = (self.scores.width,) if self.scores.axes == 2 else ()
        if self.scores.kind in ("yes-no", "labels"):
            share = ((wanted.sum(0) + 1.0) / (len(wanted) + 2.0)).reshape(form)
            return "majority", np.asarray(share if self.probabilities else np.log(share / (1 - share)), np.float32)
        return "mean", np.asarray(wanted.mean(0).reshape(form), np.float32)


def understand(
    loss: KerasLoss, outputs: Any, targets: Any, shown: Any, *, with_outputs: bool, with_scores: bool
) -> Understood:
    """By the outputs of a few examples, their targets, and the targets of more (`shown`). Raises PlanError."""
    out, wanted = _single(outputs), _single(targets)
    if out is None or wanted is None or out.ndim == 0:
        return Understood(loss, Scores("other", 1), False, False, ())
    notes: list[str] = []
    kind, classes_known = loss.kind, loss.kind in OF_CLASSES
    classes = classes_known or (kind not in (YES_NO, *DISTANCES) and _look_like_classes(out, wanted))
    shares = bool(out.ndim > 1 and out.shape[-1] > 1 and _are_shares(out))
    probabilities = not loss.from_logits if kind in (*OF_CLASSES, YES_NO) else shares
    if classes and probabilities and not shares:
        raise PlanError(
            f"the loss {loss.name} takes probabilities, but the model's outputs are none: they sum to "
            f"{float(out[0].sum()):.3g}, not 1; end the model with activation='softmax', or give it from_logits=True"
        )
    if kind == YES_NO and probabilities and bool(((out < 0) | (out > 1)).any()):
        raise PlanError(
            f"the loss {loss.name} takes probabilities, but the model gives {float(out.min()):.3g} to "
            f"{float(out.max()):.3g}; end the model with activation='sigmoid', or give the loss from_logits=True"
        )
    if classes and not probabilities and shares:
        notes.append(f"loss: {loss.name} takes logits, but the model's outputs look like probabilities, squashed twice")
    found: Kind = "other"
    one_hot = False
    if classes:
        if kind == SHARES or (kind != SPARSE and wanted.shape == out.shape):
            every = np.asarray(shown, np.float32)
            one_hot = out.ndim == 2 and bool((np.sort(every, -1)[:, :-1] == 0).all() and (every.max(-1) == 1).all())
            found = "classes" if one_hot else "shares" if out.ndim == 2 else "other"
        elif wanted.size == out[..., 0].size:
            found = "classes" if out.ndim == 2 else "places"
    elif kind == YES_NO:
        single = out.ndim == 1 or out.shape[1:] == (1,)
        few = out.ndim == 2 and out.shape[1] <= MOST_OUTPUTS
        found = "yes-no" if single else "labels" if few else "mask" if wanted.size == out.size else "other"
    elif wanted.size == out.size:
        single = out.ndim == 1 or out.shape[1:] == (1,)
        found = "number" if single else "numbers" if out.ndim == 2 and out.shape[1] <= MOST_OUTPUTS else "other"
    width = int(out.shape[-1]) if out.ndim > 1 else 1
    if found != "other" and not classes and wanted.size != out.size:
        found = "other"
    scores = Scores(
        found,
        width,
        logits=not probabilities,
        with_outputs=with_outputs,
        with_scores=with_scores,
        axes=out.ndim,
    )
    return Understood(loss, scores, probabilities, one_hot, tuple(notes))


def _looked_at(split: Split) -> Any:
    return np.unique(np.linspace(0, len(split) - 1, min(len(split), MEANT)).astype(np.int64))


def _single(value: Any) -> Array | None:
    found = leaves(value)
    return found[0] if len(found) == 1 and found[0].dtype != object else None


def _look_like_classes(out: Array, wanted: Array) -> bool:
    whole = wanted.dtype.kind in "iub"
    return out.ndim == 2 and out.shape[1] > 1 and whole and wanted.size == len(out)


def _are_shares(out: Array) -> bool:
    return bool((out >= -1e-6).all() and np.allclose(out.sum(-1), 1.0, atol=1e-3))


def require_finite(splits: Mapping[str, Split]) -> None:
    """Raises DataError for numbers that are not finite, among the examples that are looked at."""
    for name, split in splits.items():
        places = _looked_at(split)
        inputs, targets, _ = split.read(places)
        for what, value in (("inputs", inputs), ("targets", targets)):
            for array in leaves(value):
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    row = places[np.argwhere(~np.isfinite(array))[0][0]]
                    raise DataError(
                        f"{name}: {what} of example {row} hold a number that is not finite; mend or leave it out"
                    )


def require_labels(understood: Understood, splits: Mapping[str, Split]) -> None:
    """Raises DataError for labels that are none of the model's classes, among the examples that are looked at."""
    scores = understood.scores
    for name, split in splits.items():
        if scores.kind in ("classes", "places") and not understood.one_hot:
            labels = np.asarray(split.read(_looked_at(split))[1]).astype(np.int64)
            wrong = labels[(labels < 0) | (labels >= scores.width)]
            if wrong.size:
                why = "; if the labels count from 1, subtract 1 from all" if labels.min() >= 1 else ""
                raise DataError(
                    f"{name}: there is a label {int(wrong[0])}, but the model tells {scores.width} classes apart (0 to "
                    f"{scores.width - 1}){why}"
                )
