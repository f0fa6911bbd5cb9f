"""How fast this device trains, which decides what size of a model a plan's time bears."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from multistep.backends.torch.learner import pick_device
from multistep.tasks.begun import planned_cores, planned_device


@dataclass(frozen=True)
class Work:
    """A kind of work that devices do at a speed of its own.

    `rates` are operations a second by the type of the device, as such devices were seen to reach; `a_core` those of
    one core of a CPU, to which each further core adds the share `further`.
    """

    name: str
    a_core: float
    further: float = 1.0
    rates: Mapping[str, float] = field(default_factory=lambda: {"mps": 1e12, "cuda": 5e13})

    def by_rule(self, device: str, cores: int) -> float:
        """Operations a second of such a device, where nothing is measured."""
        return self.rates.get(device, self.a_core * (1 + self.further * (cores - 1)))


def operations(work: Work) -> float:
    """Operations a second, in training, of the device that sizes are chosen for."""
    return work.by_rule(planned_device(pick_device()), planned_cores())
