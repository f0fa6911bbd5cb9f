"""What a finished classifier's folder says of its probabilities: what they are divided by, and where labels begin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multistep.core.evidence.calibration import HALF, Calibration, at_threshold, logits_of, of_classes, of_labels
from multistep.core.evidence.metric import Evaluation, Floats
from multistep.errors import PlanError
from multistep.tasks.classes import every_logit, small_enough
from multistep.tasks.folders import TASK_FILE, read_task
from multistep.tasks.notes import say

CLOSE = 0.02  # of the largest logit: as far as bfloat16 may be off


@dataclass(frozen=True)
class Calibrated:
    """`temperature` is what the model's logits are still to be divided by; `cut` the probability above which a label,
    or the second of two classes, is said.
    """

    temperature: float = 1.0
    cut: float = HALF

    @classmethod
    def read(cls, model: str, threshold: float | None = None) -> Calibrated:
        """That of a model folder, with `threshold` in place of its own. Raises PlanError for a damaged one."""
        about: Any = read_task(model).get("calibration") or {}
        try:
            temperature = 1.0 if about.get("folded") else float(about.get("temperature", 1.0))
            chosen = about.get("threshold") or {}
            cut = float(chosen["value"]) if chosen.get("used") else HALF
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PlanError(
                f"{model}/{TASK_FILE}: damaged, what it says of the calibration is no such ({error!r}); export or copy "
                "the model again"
            ) from error
        return cls(temperature, cut if threshold is None else threshold)

    def probabilities(self, logits_NK: Floats) -> Floats:
        """Of one class a row, from logits or logarithms of probabilities (shape: rows, classes)."""
        return of_classes(np.asarray(logits_NK, np.float64) / self.temperature)

    def of_several(self, shares_NK: Floats) -> Floats:
        """Each label's probability, from the probabilities that the model gives by itself (shape: rows, labels)."""
        likely = np.clip(shares_NK, 1e-12, 1 - 1e-12)
        return of_labels((np.log(likely) - np.log1p(-likely)) / self.temperature)

    def likeliest(self, shares_K: Floats) -> int:
        """The class that is said: of two by the threshold, else the likeliest."""
        if len(shares_K) == 2 and self.cut != HALF:
            return int(shares_K[1] > self.cut)
        return int(np.argmax(shares_K))

    def decided(self, score: Callable[[], Evaluation], model: str, *, hot: bool = False) -> Evaluation:
        """An evaluation with what is said at the threshold, which is told; `hot` if its logits are not divided yet."""
        with every_logit(self.cut != HALF):
            table = score()
        logits_NK = logits_of(table)
        if self.cut == HALF or logits_NK is None or ("label" in table.columns and logits_NK.shape[1] != 2):
            return small_enough(table)
        say([f"{model}: labels are said above a probability of {self.cut:.2f}, which the run chose on validation"])
        return small_enough(at_threshold(table, Calibration(self.temperature if hot else 1.0), self.cut))


def at_half(table: Evaluation, model: str) -> tuple[float, Evaluation] | None:
    """The folder's threshold, and the table as it would be at 0.5; None where that is what it is at."""
    cut, logits_NK = Calibrated.read(model).cut, logits_of(table)
    if cut == HALF or logits_NK is None or ("label" in table.columns and logits_NK.shape[1] != 2):
        return None
    return cut, at_threshold(table, Calibration(1.0), HALF)  # where 0.5 lies does not depend on a temperature


def fold(model: nn.Module, temperature: float, classes: int, logits: Callable[[], Tensor]) -> bool:
    """Divide what the last linear layer gives by `temperature`; undone where the model's logits do not follow.

    `logits` asks the model about some examples. Returns whether they do follow.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers or layers[-1].out_features != classes:
        return False
    own = [p for p in (layers[-1].weight, layers[-1].bias) if p is not None]
    kept = [p.detach().clone() for p in own]
    before = logits().float()
    with torch.no_grad():
        for p in own:
            p.div_(temperature)
    after = logits().float()
    if bool((after * temperature - before).abs().max() <= CLOSE * before.abs().max()):
        return True
    with torch.no_grad():
        for p, was in zip(own, kept, strict=True):
            p.copy_(was)
    return False
