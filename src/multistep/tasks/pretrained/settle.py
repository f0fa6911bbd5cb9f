"""The names of a plan's models with `auto` replaced by what it comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from multistep.core.values.plan import ModelSpec, Plan
from multistep.core.values.units import Unit
from multistep.errors import PlanError
from multistep.tasks.pretrained.choose import Chosen, Need, choose
from multistep.tasks.recipes import lengths_of
from multistep.tasks.speeds import Work

AUTO, SCRATCH = "auto", "scratch"
SIZES = ("parameters", "layers", "width", "heads", "vocabulary")
# MiniLM on one core (docs/appendix/measured-tasks.md); a Llama of 135 million parameters took 8 ms a token there.
TUNING = Work("tuning", a_core=6e10)


@dataclass(frozen=True)
class Settled:
    """`names` are sources, presets or "scratch", never "auto". `left_open` tells that the plan did not say as much."""

    names: tuple[str, ...]
    left_open: bool
    notes: tuple[str, ...] = ()

    @property
    def record(self) -> tuple[str, ...]:
        """What a resumed run is to be given; empty where its plan says it."""
        return self.names if self.left_open else ()

    def applied(self, plan: Plan) -> Plan:
        """The plan of a task that trains one network: its model is a source, a preset, or "auto", here for nothing."""
        if len(self.names) > 1:
            raise PlanError(
                f"model: several candidates ({', '.join(self.names)}), but {plan.task} trains one; name one"
            )
        return starting_from(plan, self.names[0])


def settle(plan: Plan, need: Callable[[], Need]) -> Settled:
    """What the names of the plan's models come to; `need` is asked where the data and the time decide."""
    if AUTO not in plan.model.names or not is_open(plan):
        return Settled(tuple(SCRATCH if name == AUTO else name for name in plan.model.names), left_open=False)
    chosen: Chosen = choose(need())
    names = [(chosen.source or SCRATCH) if name == AUTO else name for name in plan.model.names]
    return Settled(tuple(dict.fromkeys(names)), left_open=True, notes=chosen.notes)


def is_open(plan: Plan) -> bool:
    """Whether `auto` may be a pretrained model: not where sizes, a tokenizer, a rate or a network are given, which are
    meant for one from nothing.
    """
    spec: ModelSpec = plan.model
    sized = any(getattr(spec, name) is not None for name in SIZES) or spec.tokenizer != AUTO
    recipes = [plan.phase(i).recipe for i in range(plan.phase_count)]
    return not sized and not any("model" in recipe or "learning_rate" in recipe for recipe in recipes)


def starting_from(plan: Plan, name: str) -> Plan:
    """The plan with one model; "auto", which is nothing, for "scratch"."""
    return replace(plan, model=plan.model.named(AUTO if name == SCRATCH else name))


def seconds_of(plan: Plan) -> float | None:
    """The time that a plan gives to training; None where it is not told in time."""
    seconds = [amount.value for amount in lengths_of(plan) if amount.unit is Unit.SECONDS]
    return sum(seconds) if seconds else None
