"""The parts of a model whose changes are sent at different times (Streaming DiLoCo, arXiv 2501.18512)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from multistep.backends.torch.compiling import regions
from multistep.core.values.recipe import Outer

BASE, MOMENTUM, CHANGE = "base.", "momentum.", "change."  # what names of its tensors begin with in a checkpoint
Mean = Callable[[Sequence[Tensor]], Callable[[], None]]  # begins to make tensors the mean of all processes' ones


class Fragment:
    """Some of the trained weights, with the weights that their next outer step starts from.

    Their changes are sent after the steps `offset`, `offset + every`, ..., and come `overlap` steps later.
    """

    def __init__(self, asked: Outer, offset: int, trained: Mapping[str, Tensor]) -> None:
        self._asked, self._offset, self.trained = asked, offset, list(trained.values())
        self._names = list(trained)
        self._base: list[Tensor] = []  # none before the first step
        self._rule: torch.optim.SGD
        self._changes: list[Tensor] | None = None  # on their way, or there and not made a step of yet
        self._finish: Callable[[], None] | None = None  # of what is on its way

    def begin(self) -> None:
        """Before steps: know the weights that stand here, unless those of the last outer step are known."""
        if not self._base:
            self._stand_on([p.detach().clone() for p in self.trained])

    def _stand_on(self, base: list[Tensor]) -> None:
        asked = self._asked
        self._base = base
        ahead = asked.optimizer == "nesterov" and asked.momentum > 0
        self._rule = torch.optim.SGD(base, lr=asked.learning_rate, momentum=asked.momentum, nesterov=ahead)

    def is_due(self, steps: int) -> bool:
        return (steps - self._offset) % self._asked.every == 0

    def lands(self, steps: int) -> bool:
        """Whether an outer step is to be made after so many steps, of changes that were sent before or are due now."""
        sent = self._changes is not None or not self._asked.overlap
        return sent and (steps - self._offset - self._asked.overlap) % self._asked.every == 0

    def send(self, mean: Mean | None) -> None:
        """Begin to send the changes since the last outer step; `mean` is None where there is nobody else."""
        self._changes = list(torch._foreach_sub(self._base, self.trained))
        self._finish = mean and mean(self._changes)

    def arrive(self) -> None:
        """Wait for what is on its way."""
        if self._finish:
            self._finish()
        self._finish = None

    def step(self) -> None:
        """The outer step. Of the steps that were taken since their changes were sent, `mixing` is kept."""
        self.arrive()
        assert self._changes is not None, "see `lands`"
        for base, change in zip(self._base, self._changes, strict=True):
            base.grad = change
        self._changes = None
        self._rule.step()
        self._rule.zero_grad(set_to_none=True)
        if self._asked.overlap:
            torch._foreach_lerp_(self.trained, self._base, 1.0 - self._asked.mixing)
        else:
            torch._foreach_copy_(self.trained, self._base)

    def tensors(self, steps: int) -> dict[str, Tensor]:
        """What the next outer step needs after so many steps. Where the weights themselves are the base, no base."""
        found: dict[str, Tensor] = {}
        if not self._base:
            return found
        stands = self.is_due(steps) and not self._asked.overlap
        for i, (name, base) in enumerate(zip(self._names, self._base, strict=True)):
            if not stands:
                found[f"{BASE}{name}"] = base
            if (momentum := self._rule.state[base].get("momentum_buffer")) is not None:
                found[f"{MOMENTUM}{name}"] = momentum
            if self._changes is not None:
                found[f"{CHANGE}{name}"] = self._changes[i]
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` returned; for what is missing, as from the weights that stand here."""
        found = [(p, tensors.get(f"{BASE}{name}")) for name, p in zip(self._names, self.trained, strict=True)]
        self._stand_on([p.detach().clone() if base is None else base.to(p, copy=True) for p, base in found])
        changes = [tensors.get(f"{CHANGE}{name}") for name in self._names]
        there = [change.to(p, copy=True) for change, p in zip(changes, self.trained, strict=True) if change is not None]
        self._changes = there if len(there) == len(changes) else None
        for name, base in zip(self._names, self._base, strict=True):
            if (momentum := tensors.get(f"{MOMENTUM}{name}")) is not None:
                self._rule.state[base]["momentum_buffer"] = momentum.to(base, copy=True)


def fragments_of(asked: Outer, model: nn.Module) -> list[Fragment]:
    """The trained weights of a model in as many parts as are asked for, each due at a time of its own.

    Of blocks that the model repeats, each part has every n-th, which the paper found a little better than neighbours;
    what is in no block goes where there is least. Parts that nothing is left for are left out.
    """
    block_of = {id(p): i for i, block in enumerate(regions(model)) for p in block.parameters()}
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    parts: list[dict[str, Tensor]] = [{} for _ in range(asked.fragments)]
    for name, p in named.items():
        if (block := block_of.get(id(p))) is not None:
            parts[block % asked.fragments][name] = p
    rest = [(name, p) for name, p in named.items() if id(p) not in block_of]
    for name, p in sorted(rest, key=lambda pair: -pair[1].numel()):
        min(parts, key=lambda part: sum(q.numel() for q in part.values()))[name] = p
    times = [asked.every * (i + 1) // asked.fragments for i in range(asked.fragments)]
    return [Fragment(asked, time, part) for time, part in zip(times, parts, strict=True) if part]
