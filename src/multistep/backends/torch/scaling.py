"""Loss scaling, for gradients that float16 would round to zero or beyond its largest number.

All of it stays on the device: whether a step's gradients were finite, whether the step is taken, and the next scale.
The rule is that of `torch.amp.GradScaler`, which asks the device before each step of an optimizer that is not fused.
Source: arXiv 1710.03740.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

FIRST = 2.0**16
GROWTH, BACKOFF, INTERVAL = 2.0, 0.5, 2000  # doubled after so many steps in a row that were taken, else halved
LEAST = 2.0**-14  # gradients that are not finite at such a scale are not finite at any


class LossScale:
    """What losses are multiplied by before their gradients are computed."""

    def __init__(self, device: torch.device) -> None:
        self._scale = torch.full((), FIRST, device=device)
        self._streak = torch.zeros((), dtype=torch.int32, device=device)

    def scaled(self, loss: Tensor) -> Tensor:
        return loss * self._scale

    @torch.no_grad()
    def unscale(self, gradients: Sequence[Tensor]) -> Tensor:
        """Divide the gradients by the scale; return 1.0 if one of them is not finite, else 0.0 (on the device)."""
        found = torch.zeros_like(self._scale)
        back = self._scale.double().reciprocal().float()
        for kind in {g.dtype for g in gradients}:
            torch._amp_foreach_non_finite_check_and_unscale_([g for g in gradients if g.dtype == kind], found, back)
        return found

    @torch.no_grad()
    def follow(self, found: Tensor) -> None:
        """Halve the scale after a step that was not taken; double it after many that were."""
        torch._amp_update_scale_(self._scale, self._streak, found, GROWTH, BACKOFF, INTERVAL)

    @property
    def exhausted(self) -> Tensor:
        """Whether it was halved so often that the scale is not what is wrong (on the device)."""
        return self._scale < LEAST

    def tensors(self) -> dict[str, Tensor]:
        return {"scale": self._scale, "streak": self._streak}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` returned; without any, from the first scale."""
        for name, own in self.tensors().items():
            if name in tensors:
                own.copy_(tensors[name])
