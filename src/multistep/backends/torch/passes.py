"""Passes over batches: the mean gradient of a whole batch, in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from multistep.backends.torch.devices import multiplying, products_in, rounding, rounds
from multistep.backends.torch.domain import Batch, Domain
from multistep.backends.torch.parts import local
from multistep.backends.torch.randomness import seed_torch
from multistep.backends.torch.scaling import LossScale
from multistep.core.values.recipe import Recipe
from multistep.errors import RunFailed


class Passes:
    """Forward and backward passes of one model in training.

    `micro_batch` is how many examples a pass holds at most (None: the whole batch); it is halved when memory runs out,
    of which `halved` tells, and the effective batch stays. `scale` is the loss scale, in float16 alone; `skip` then
    tells of the last gradients whether they are not finite, so that no step should be taken by them (1.0, else 0.0; on
    the device). `within` computes what is done with a model, where that takes more than its modules.
    """

    within: Callable[[nn.Module, Callable[[], tuple[Tensor, Tensor]]], tuple[Tensor, Tensor]] | None = None

    def __init__(
        self,
        domain: Domain,
        model: nn.Module,
        trained: Sequence[Tensor],
        recipe: Recipe,
        device: torch.device,
        micro_batch: int | None,
    ) -> None:
        self.micro_batch, self.halved = micro_batch, False
        self.scale = LossScale(device) if products_in(recipe, device) == torch.float16 else None
        self.skip: Tensor | None = None
        self._domain, self._model, self._trained = domain, model, trained
        self._recipe, self._device = recipe, device
        self._rounds = rounds(recipe, device)

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Within, forward passes compute products as the recipe says."""
        with rounding(self._rounds), multiplying(self._recipe, self._device):
            yield

    def forward(self, model: nn.Module, batch: Batch) -> None:
        """A pass without gradients, for what layers note of their inputs."""
        with self.precision():
            self._within(model, lambda: self._domain.loss(model, batch, 0.0))

    def gradients(self, batch: Batch, seed: int) -> tuple[Tensor, Tensor]:
        """Mean gradients of the whole batch; the summed loss and its labels. `seed` decides what is dropped.

        Raises RunFailed where memory does not even hold the pass of one example.
        """
        size = batch[0].shape[0]
        while True:
            self.begin(seed)
            piece = min(self.micro_batch or size, size)
            try:
                with rounding(self._rounds):
                    found = self.whole(batch) if piece == size else self._accumulated(batch, piece)
            except torch.OutOfMemoryError as error:
                if piece == 1:
                    raise RunFailed(
                        "memory runs out with a single example; choose a smaller model or a shorter context"
                    ) from error
            else:
                if self.scale:
                    self.skip = self.scale.unscale(self.gradient_list())
                return found
            # Here, not where it was caught: until that block ends, the error's frames keep what they held.
            self.micro_batch, self.halved = piece // 2, True
            self.forget()
            torch.accelerator.empty_cache()

    def begin(self, seed: int) -> None:
        """Seeded by the step, not carried along: a step that is repeated drops the same activations, and layers."""
        self.forget()
        seed_torch(seed, self._device)

    def forget(self) -> None:
        """Leave no gradients."""
        for parameter in self._trained:
            parameter.grad = None

    def gradient_list(self) -> list[Tensor]:
        return [local(p.grad) for p in self._trained if p.grad is not None]

    def _within(self, model: nn.Module, do: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return do() if self.within is None else self.within(model, do)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The summed loss of a batch, with its graph, and its labels."""

        def summed() -> tuple[Tensor, Tensor]:
            return self._domain.loss(self._model, batch, self._recipe.label_smoothing)

        with rounding(self._rounds), multiplying(self._recipe, self._device):
            return self._within(self._model, summed)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those that are there, scaled by the loss scale."""
        with rounding(self._rounds):
            self._backward(loss)

    def _backward(self, loss: Tensor) -> None:
        (self.scale.scaled(loss) if self.scale else loss).backward()  # type: ignore[no-untyped-call]

    def whole(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Gradients of a batch in one pass; the summed loss and its labels."""
        loss, count = self.loss(batch)
        self._backward(loss / count.clamp_min(1))  # a share of a batch may hold none that counts
        return loss.detach(), count

    def _accumulated(self, batch: Batch, piece: int) -> tuple[Tensor, Tensor]:
        losses: list[Tensor] = []
        counts: list[Tensor] = []
        # Of about one size: a last one of a single example is what batch normalisation can do nothing with.
        size = batch[0].shape[0]
        pieces = -(-size // piece)
        for part in range(pieces):
            cut = slice(size * part // pieces, size * (part + 1) // pieces)
            loss, count = self.loss(tuple(tensor[cut] for tensor in batch))
            losses.append(loss.detach())
            counts.append(count)
            # In float16, sums over many labels would be beyond it: about a mean is what it is scaled for.
            self._backward(loss / counts[0].clamp_min(1) if self.scale else loss)
        total = torch.stack(counts).sum()
        mean = total.clamp_min(1)
        torch._foreach_div_(self.gradient_list(), mean / counts[0].clamp_min(1) if self.scale else mean)
        return torch.stack(losses).sum(), total
