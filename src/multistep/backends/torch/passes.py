"""Passes over batches: the mean gradient of a whole batch, in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from multistep.backends.torch.devices import reduces
from multistep.backends.torch.domain import Batch, Domain
from multistep.backends.torch.randomness import seed_torch
from multistep.core.values.recipe import Recipe
from multistep.errors import RunFailed


class Passes:
    """Forward and backward passes of one model in training.

    `micro_batch` is how many examples a pass holds at most (None: the whole batch); it is halved when memory runs out,
    and the effective batch stays.
    """

    def __init__(
        self,
        domain: Domain,
        model: nn.Module,
        trained: Sequence[Tensor],
        recipe: Recipe,
        device: torch.device,
        micro_batch: int | None,
    ) -> None:
        self.micro_batch = micro_batch
        self._domain, self._model, self._trained = domain, model, trained
        self._smoothing, self._device = recipe.label_smoothing, device
        self._reduced = reduces(recipe, device)

    def precision(self) -> AbstractContextManager[object]:
        """Within, products are computed as the recipe says."""
        return torch.autocast(self._device.type, dtype=torch.bfloat16) if self._reduced else nullcontext()

    def forward(self, model: nn.Module, batch: Batch) -> None:
        """A pass without gradients, for what layers note of their inputs."""
        with self.precision():
            self._domain.loss(model, batch, 0.0)

    def gradients(self, batch: Batch, seed: int) -> tuple[Tensor, Tensor]:
        """Mean gradients of the whole batch; the summed loss and its labels. `seed` decides what is dropped."""
        size = batch[0].shape[0]
        while True:
            self.forget()
            # Seeded by the step, not carried along: a step that is repeated drops the same activations, and layers.
            seed_torch(seed, self._device)
            piece = min(self.micro_batch or size, size)
            try:
                return self._whole(batch) if piece == size else self._accumulated(batch, piece)
            except torch.OutOfMemoryError as error:
                if piece == 1:
                    raise RunFailed(
                        "memory runs out with a single example; choose a smaller model or a shorter context"
                    ) from error
                self.micro_batch = piece // 2
                torch.accelerator.empty_cache()

    def forget(self) -> None:
        """Leave no gradients."""
        for parameter in self._trained:
            parameter.grad = None

    def gradient_list(self) -> list[Tensor]:
        return [p.grad for p in self._trained if p.grad is not None]

    def _whole(self, batch: Batch) -> tuple[Tensor, Tensor]:
        with self.precision():
            loss, count = self._domain.loss(self._model, batch, self._smoothing)
        (loss / count).backward()  # type: ignore[no-untyped-call]
        return loss.detach(), count

    def _accumulated(self, batch: Batch, piece: int) -> tuple[Tensor, Tensor]:
        losses, counts = [], []
        for start in range(0, batch[0].shape[0], piece):
            part = tuple(tensor[start : start + piece] for tensor in batch)
            with self.precision():
                loss, count = self._domain.loss(self._model, part, self._smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            counts.append(count)
        total = torch.stack(counts).sum()
        torch._foreach_div_(self.gradient_list(), total)
        return torch.stack(losses).sum(), total
