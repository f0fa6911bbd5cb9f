"""Steps that processes take alone, and the outer steps that bring them together (DiLoCo, arXiv 2311.08105).

Between two outer steps nothing of the model is sent: each process has its own gradients, clips them, and has its own
state of the optimizer. At each multiple of `every` steps the mean of what the processes changed since the last one is
the gradient of a step of the outer optimizer, from the weights that all had then (the base).

Where a window ends in between, the processes meet too, for its end is where a run scores, saves and forks: all go on
from the plain mean of their weights. The base stays, so that the next outer step still has the changes of all `every`
steps, and its momentum is that of outer steps alone, however a run is cut in windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from multistep.backends.torch.domain import Batch
from multistep.backends.torch.many.sharing import Sharing
from multistep.backends.torch.passes import Passes
from multistep.core.values.recipe import Recipe
from multistep.errors import PlanError, RunFailed

BASE, MOMENTUM = "base.", "momentum."  # what names of its tensors begin with in a checkpoint
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
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._names, self._trained = list(named), list[Tensor](named.values())
        self._statistics: list[Tensor] = [
            s for norm in norms for s in (norm.running_mean, norm.running_var) if s is not None
        ]
        self._base: list[Tensor] = []  # none before the first step
        self._rule: torch.optim.SGD

    # Alone ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Before steps: know the weights that stand here, unless those of the last outer step are known."""
        if not self._base:
            self._stand_on([p.detach().clone() for p in self._trained])

    def _stand_on(self, base: list[Tensor]) -> None:
        asked = self._asked
        self._base = base
        ahead = asked.optimizer == "nesterov" and asked.momentum > 0
        self._rule = torch.optim.SGD(base, lr=asked.learning_rate, momentum=asked.momentum, nesterov=ahead)

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

        What is not finite in one process is so in all of them afterwards. Raises Interrupted in all processes where
        one was asked to stop, RunFailed where one cannot go on.
        """
        due = steps % self._asked.every == 0
        if not due and not window_ends:
            return False
        if self._sharing is not None:
            self._meet()
            self._sharing.mean(self._statistics)
        if due:
            changes = list(torch._foreach_sub(self._base, self._trained))
            if self._sharing is not None:
                self._sharing.mean(changes)
            for base, change in zip(self._base, changes, strict=True):
                base.grad = change
            self._rule.step()
            self._rule.zero_grad(set_to_none=True)
            torch._foreach_copy_(self._trained, self._base)
        elif self._sharing is not None:
            self._sharing.mean(self._trained)
        return True

    def _meet(self, failure: RunFailed | None = None) -> None:
        assert self._sharing is not None, "several meet"
        if self._sharing.meet(failed=failure is not None):
            raise failure or RunFailed(ALONE)

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
        """What the next outer step needs after so many steps: nothing of it differs between the processes.

        Behind an outer step the weights themselves are the base.
        """
        found: dict[str, Tensor] = {}
        for name, base in zip(self._names, self._base, strict=True) if self._base else ():
            if steps % self._asked.every:
                found[f"{BASE}{name}"] = base
            if (momentum := self._rule.state[base].get("momentum_buffer")) is not None:
                found[f"{MOMENTUM}{name}"] = momentum
        return found

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` returned; for what is missing, as from the weights that stand here."""
        found = [(p, tensors.get(f"{BASE}{name}")) for name, p in zip(self._names, self._trained, strict=True)]
        self._stand_on([p.detach().clone() if base is None else base.to(p, copy=True) for p, base in found])
        for name, base in zip(self._names, self._base, strict=True):
            if (momentum := tensors.get(f"{MOMENTUM}{name}")) is not None:
                self._rule.state[base]["momentum_buffer"] = momentum.to(base, copy=True)
