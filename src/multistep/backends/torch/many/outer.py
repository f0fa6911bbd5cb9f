"""Steps that processes take alone, and the outer steps that bring them together (DiLoCo, arXiv 2311.08105).

Between two outer steps nothing of the model is sent: each process has its own gradients, clips them, and has its own
state of the optimizer. At each multiple of `every` steps the mean of what the processes changed since the last one is
the gradient of a step of the outer optimizer, from the weights that all had then (the base).

The streaming form (2501.18512) does so for one fragment of the model after the other, and need not wait: what is sent
comes `overlap` steps later, and the outer step is then mixed into the weights that those steps have led to.

Where a window ends in between, the processes meet too, for its end is where a run scores, saves and forks: all go on
from the plain mean of their weights, and nothing is on its way. The base stays, so that the next outer step still has
the changes of all `every` steps, and its momentum is that of outer steps alone, however a run is cut in windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from multistep.backends.torch.domain import Batch
from multistep.backends.torch.many.fragments import Mean, fragments_of
from multistep.backends.torch.many.sharing import Sharing
from multistep.backends.torch.passes import Passes
from multistep.core.values.recipe import Recipe
from multistep.engine.learner import Interrupted
from multistep.errors import PlanError, RunFailed

COPIES = 4  # of the trained weights, at most: base, momentum, changes, and what is sent of them
OF_PROCESS = "process-{rank}.safetensors"  # in a checkpoint: the inner optimizer's state of any but the first
ALONE = "another process: memory runs out with a single example of its share"


class Outer:
    """One process's part. `sharing` is None where it is alone; outer steps are then those of Lookahead (1907.08610).

    `norms` are batch normalisations, whose statistics become the mean of all wherever the processes meet.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        norms: Sequence[_BatchNorm],
        sharing: Sharing | None,
        should_stop: Callable[[], bool],
    ) -> None:
        """Raises PlanError for a recipe that leaves a process nothing to do, or whose weights have another mean."""
        assert recipe.outer is not None, "made where it is asked for"
        assert recipe.batch_size is not None, "a resolved recipe has a batch size"
        if recipe.optimizer == "schedule-free":
            raise PlanError(
                "recipe.outer: schedule-free steps from an average of its own, which each process would have of its "
                "own weights; choose another optimizer, or leave outer out"
            )
        if sharing is not None and recipe.batch_size < sharing.size:
            raise PlanError(
                f"recipe.outer: each process takes steps on its share of a batch, and of batch_size "
                f"{recipe.batch_size} on {sharing.size} processes some have none; give a batch_size of at least "
                f"{sharing.size}"
            )
        self._asked, self._sharing, self._should_stop = recipe.outer, sharing, should_stop
        self._fragments = fragments_of(recipe.outer, model)
        self._statistics: list[Tensor] = [
            s for norm in norms for s in (norm.running_mean, norm.running_var) if s is not None
        ]
        self._steps = 0  # of the phase, when `together` was last called
        self._sent = 0  # changes of fragments, in this window
        self._mean: Mean | None = None
        if sharing is not None:
            sharing.open_aside()
            bits = recipe.outer.bits
            self._mean = lambda changes: sharing.mean_aside(changes, bits)

    # Alone ------------------------------------------------------------------------------------------

    def begin(self, steps: int) -> None:
        """Before steps, after so many of the phase: weights that stand here are the base where none is known."""
        self._steps, self._sent = steps, 0
        for fragment in self._fragments:
            fragment.begin()

    def stopping(self) -> bool:
        """Whether to stop before the next step. Raises what `meet` raises where another process waits for this one."""
        if self._sharing is None:
            return self._should_stop()
        if self._sharing.called():
            self._meet()
        return False

    def gradients(self, passes: Passes, batch: Batch, seed: int) -> tuple[Tensor, Tensor]:
        """Mean gradients of this process's share; its summed loss and labels. Raises RunFailed, then in all of them."""
        try:
            return passes.gradients(batch, seed)
        except RunFailed as error:
            if self._sharing is not None:
                self._sharing.call()
                self._meet(error)
            raise

    # Together ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def together(self, steps: int, *, window_ends: bool) -> bool:
        """After so many steps of the phase: come together where it is time. Whether all have the same weights now.

        What is not finite in one process is so in all of them where a window ends. Raises Interrupted in all processes
        where one was asked to stop, RunFailed where one cannot go on.
        """
        self._steps = steps
        landing = [fragment for fragment in self._fragments if fragment.lands(steps)]
        if self._sharing is not None and (landing or window_ends):
            self._meet()
        self._send(steps)
        for fragment in landing:
            fragment.step()
        if window_ends:
            for fragment in self._fragments:
                fragment.arrive()
        same = window_ends or (landing == self._fragments and not self._asked.overlap)
        if same and self._sharing is not None:
            stepped = [] if self._asked.overlap else landing
            apart = [p for fragment in self._fragments if fragment not in stepped for p in fragment.trained]
            self._sharing.mean([*apart, *self._statistics])
        return same

    def _send(self, steps: int) -> None:
        for fragment in self._fragments:
            if fragment.is_due(steps):
                fragment.send(self._mean)
                self._sent += 1

    def _meet(self, failure: RunFailed | None = None) -> None:
        assert self._sharing is not None, "several meet"
        try:
            failed = self._sharing.meet(failed=failure is not None)
        except Interrupted:
            self._break_off()
            raise
        if failed:
            self._break_off()
            raise failure or RunFailed(ALONE)

    def _break_off(self) -> None:
        """In the midst of a window, where another process may have sent more than this one, or less: send as much, so
        that nothing of it is left to come. Where they go on, they do so from a checkpoint.
        """
        assert self._sharing is not None, "several meet"
        most, steps = self._sharing.most(self._sent), self._steps
        while self._sent < most:
            steps += 1
            self._send(steps)
        for fragment in self._fragments:
            fragment.arrive()

    def totals(self, loss: Tensor, labels: Tensor, norm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of all processes, at a window's end: the summed loss, its labels, and the mean of their gradients' norms."""
        if self._sharing is None:
            return loss, labels, norm
        mean = torch.stack([loss, labels, norm])
        self._sharing.mean([mean])
        return mean[0] * self._sharing.size, mean[1] * self._sharing.size, mean[2]

    # State ------------------------------------------------------------------------------------------

    def own_file(self, folder: Path) -> Path | None:
        """Where a process other than the first has its optimizer's state in a checkpoint; None of the first."""
        rank = 0 if self._sharing is None else self._sharing.rank
        return folder / OF_PROCESS.format(rank=rank) if rank else None

    def tensors(self, steps: int) -> dict[str, Tensor]:
        """What the next outer steps need after so many steps: nothing of it differs between the processes."""
        return {name: tensor for each in self._fragments for name, tensor in each.tensors(steps).items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` returned; for what is missing, as from the weights that stand here."""
        for fragment in self._fragments:
            fragment.load(tensors)
