"""A learner made of a learning curve and a fake clock: what would a plan decide?

It goes through the same loop, journal and checkpoints as a real run; only steps cost nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from multistep.core.evidence.curves import FAMILIES, Curve, draw_curve
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.history import History
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe, with_settings
from multistep.core.values.trial import Carry, Facts, Fit, Progress
from multistep.core.values.units import Amount, Unit
from multistep.engine.clock import BudgetClock
from multistep.engine.learner import NO_FORM, Exhibit, GuardReady, Interrupted, Learner, Readiness, Split
from multistep.engine.loop import Run
from multistep.engine.rundir import RunDirectory
from multistep.errors import RunFailed

BLOCKS = 64
UNIT = 0.01  # nats: curves fall by 20 to 300 times as much
TOKENS = 500.0  # of a block
BLOCK_SPREAD = 0.15  # some texts are harder than others, by so many nats: the same ones for every checkpoint
RECIPE = Recipe(learning_rate=0.02, batch_size=12, warmup_steps=10)
# Settings that say how a step is computed, not what it learns.
COMPUTED = ("micro_batch", "compile", "checkpointing", "sharding")


@dataclass
class FakeClock:
    """Seconds that pass only when someone says so."""

    seconds: float = 0.0

    def now(self) -> float:
        return self.seconds

    def pass_by(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass(frozen=True)
class Machine:
    """What a simulated step and a look cost, in seconds."""

    step_seconds: float = 0.05
    sample_seconds: float = 0.25
    full_seconds: float = 1.0
    save_seconds: float = 0.05


def _nothing(_recipe: Recipe) -> float:
    return 0.0


def _any_rate(rate: float, steps: int) -> float:
    return 0.0


def _plain(_recipe: Recipe) -> float:
    return 1.0


@dataclass(frozen=True)
class World:
    """What recipes do to a model that follows a curve; by default nothing at all.

    effect: recipe -> nats by which its model ends higher (below 0: lower) than the curve, in the long run.
    pace: steps in which two thirds of that come about.
    overfits: recipe -> how strongly an overfitting curve rises under it, 1 as drawn.
    cost: recipe -> how many times a plain step's seconds a step of it takes.
    loses: plateau's rate, steps taken -> nats by which a model trained so ends above the best rate's.
    between_seeds: standard deviation of what the seed does to a trial, on the whole population.
    between_blocks: standard deviation, per block, of what a checkpoint happens to find easy or hard.
    of_averages: nats by which a mean of checkpoints is better than the mean of their scores.
    forgets: plateau's rate, steps taken in a phase -> nats by which it is worse on what must not be forgotten.
    """

    effect: Callable[[Recipe], float] = _nothing
    pace: float = 200.0
    overfits: Callable[[Recipe], float] = _plain
    cost: Callable[[Recipe], float] = _plain
    loses: Callable[[float, int], float] = _any_rate
    between_seeds: float = 0.0
    between_blocks: float = 0.0
    of_averages: float = 0.0
    forgets: Callable[[float, int], float] = _any_rate


class SimulatedLearner:
    """Follows a curve by its steps at full rate; what the rate's noise costs is won back as it goes to zero.

    `drop` is that cost at the plateau's rate, in the score's unit. Implements engine.learner.Learner.
    """

    def __init__(
        self,
        curve: Curve,
        clock: FakeClock,
        machine: Machine,
        *,
        drop: float = 0.1,
        world: World | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._curve, self._clock, self._machine, self._drop = curve, clock, machine, drop
        # Who overfits goes on getting better on the training split.
        self._train_curve = replace(curve, rise=0.0) if curve.family == "overfitting" else curve
        self._should_stop = should_stop
        self._world = world or World()
        self._progress = 0.0  # steps at full rate
        self._steps = 0
        self._rate = 1.0  # of the last step, as a share of the plateau's
        self._peak = 0.0
        self._offset = 0.0  # of the score from the curve, by what recipes did
        self._over = 0.0  # what a recipe made of overfitting, beside the curve's own
        self._luck = 0.0  # of the seed
        self._kept = 0.0  # of what was known before, that an average brought back

    def initial(self, recipe: Recipe, seed: int, *, skip_examples: int = 0) -> None:
        self._progress, self._steps, self._rate, self._peak = 0.0, 0, 1.0, 0.0
        self._offset, self._over, self._luck, self._kept = 0.0, 0.0, 0.0, 0.0
        self._recipe, self._seed = recipe, seed

    def load(self, folder: Path, recipe: Recipe, seed: int, *, carry: Carry = "all", skip_examples: int = 0) -> None:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        self._progress, self._steps, self._rate, self._peak, *made = state["numbers"]
        self._offset, self._over, self._luck, self._kept = made
        if state["trial"] != [repr(recipe), seed]:
            self._peak = 0.0
            self._luck = self._world.between_seeds * _draw(seed, self._steps, recipe)
        self._recipe, self._seed = recipe, seed

    def average(self, folders: Sequence[Path], recipe: Recipe, seed: int) -> None:
        scores, lost = [], []
        for folder in folders:
            self.load(folder, recipe, seed)
            scores.append(self.population)
            lost.append(self._lost)
        self._kept += float(np.mean(lost)) - lost[-1]
        self._luck += float(np.mean(scores)) - scores[-1] - self._world.of_averages

    def adopt(self, folder: Path, recipe: Recipe, seed: int, *, skip_examples: int = 0) -> None:
        self.load(folder, recipe, seed)

    def save(self, folder: Path) -> None:
        self._clock.pass_by(self._machine.save_seconds)
        numbers = [self._progress, self._steps, self._rate, self._peak]
        numbers += [self._offset, self._over, self._luck, self._kept]
        state = {"numbers": numbers, "trial": [repr(self._recipe), self._seed]}
        (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")

    def prepare(self, known: Mapping[str, Fit], seconds_left: float | None) -> Callable[[], None] | None:
        return None

    @property
    def fit(self) -> Fit | None:
        return None

    def advance(self, rates: Sequence[float], *, resolution: int | None = None) -> Progress:
        if self._should_stop():
            raise Interrupted
        each = np.asarray(rates)
        self._peak = max(self._peak, float(each.max()))
        self._rate = float(each[-1]) / self._peak if self._peak else 0.0
        before = self._progress
        self._progress += float(each.sum()) / self._peak if self._peak else 0.0
        self._steps += len(each)
        world, curve = self._world, self._curve
        self._offset += (world.effect(self._recipe) - self._offset) * (1.0 - math.exp(-len(each) / world.pace))
        beyond = max(0.0, self._progress - max(before, curve.turn))
        if beyond and curve.family == "overfitting":
            self._over += (world.overfits(self._recipe) - 1.0) * curve.rise / 1000.0 * beyond
        self._clock.pass_by(len(each) * self._machine.step_seconds * world.cost(self._recipe))
        loss = float(self._train_curve.truth(self._progress)) - self._drop * (1 - self._rate) + self._offset
        return Progress(len(rates), loss, 1.0, 12 * len(rates), 768 * len(rates))

    def evaluate(self, split: Split, *, sample: bool) -> Evaluation:
        self._clock.pass_by(self._machine.sample_seconds if sample else self._machine.full_seconds)
        if split == "guard":
            return self._known_before()
        generator = np.random.default_rng([self._seed, self._steps, sample])
        observed = float(self._curve.observe(np.array([self._progress]), generator)[0])
        hardness = BLOCK_SPREAD * np.random.default_rng(7).standard_normal(BLOCKS)
        blocks = min(16, BLOCKS) if sample else BLOCKS
        score = observed - self._drop * (1 - self._rate) + hardness[:blocks] - hardness[:blocks].mean()
        score = score + self._made
        if self._world.between_blocks:
            own = np.random.default_rng(_number(self._seed, self._steps, self._recipe))
            score = score + self._world.between_blocks * own.standard_normal(BLOCKS)[:blocks]
        return Evaluation(
            {
                "loss": score * TOKENS,
                "count": np.full(blocks, TOKENS),
                "bytes": np.full(blocks, TOKENS),
                "block": np.arange(blocks, dtype=np.float64),
            }
        )

    def _known_before(self) -> Evaluation:
        """What must not be forgotten: the curve's floor, and what the phase's steps did to that."""
        blocks = 16
        hardness = BLOCK_SPREAD * np.random.default_rng(8).standard_normal(blocks)
        score = self._curve.floor + self._lost + hardness - hardness.mean()
        each = np.full(blocks, TOKENS)
        block = np.arange(blocks, dtype=np.float64)
        return Evaluation({"loss": score * TOKENS, "count": each, "bytes": each, "block": block})

    def export(self, folder: Path, card: str) -> str:
        state = json.dumps([self._progress, self._steps])
        (folder / "README.md").write_text(card, encoding="utf-8")
        (folder / "state.json").write_text(state, encoding="utf-8")
        return hashlib.sha256(state.encode()).hexdigest()

    def fold(self, temperature: float) -> bool:
        return False

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        flat = np.full(BLOCKS, (self._curve.floor + self._curve.drop / 2) * TOKENS)
        columns = {"loss": flat, "count": np.full(BLOCKS, TOKENS), "bytes": np.full(BLOCKS, TOKENS)}
        return "simulated baseline", Evaluation({**columns, "block": np.arange(BLOCKS, dtype=np.float64)})

    def write_baseline(self, folder: Path) -> str:
        return NO_FORM

    def exhibits(self) -> Sequence[Exhibit]:
        return []

    @property
    def population(self) -> float:
        """The score without the noise of a validation split: what a verdict is about."""
        curve = float(self._curve.truth(self._progress))
        return curve - self._drop * (1 - self._rate) + self._made

    @property
    def _lost(self) -> float:
        """Nats by which it is worse on what must not be forgotten."""
        return self._world.forgets(self._peak, self._steps) + self._kept

    @property
    def _made(self) -> float:
        """What recipe, rate and seed put on the curve."""
        return self._offset + self._over + self._luck + self._world.loses(self._peak, self._steps)


class SimulatedWorkshop:
    """Opens phases that follow one curve. Implements engine.learner.Workshop."""

    def __init__(
        self, curve: Curve, clock: FakeClock, machine: Machine | None = None, world: World | None = None
    ) -> None:
        self._curve, self._clock, self._machine = curve, clock, machine or Machine()
        self._world = world

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        learner = SimulatedLearner(self._curve, self._clock, self._machine, world=self._world, should_stop=should_stop)
        given = plan.phase(phase).recipe
        facts = Facts(
            parameters=800_000,
            train_examples=15_000,
            tokens_per_example=64,
            sample_tokens=8_000,
            validation_tokens=32_000,
            test_tokens=32_000,
            pretrained=False,
            device="simulated",
            description=f"a simulated {self._curve.family} curve",
            settings=("dropout",),
        )
        recipe = with_settings(RECIPE, {key: value for key, value in given.items() if value is not None})
        guard = GuardReady("simulated", ("loss",), "nats per token") if plan.phase(phase).guard else None
        return learner, Readiness(facts, recipe, "learning_rate" not in given, "simulated", guard=guard)

    def versions(self) -> Mapping[str, str]:
        return {"device": "simulated"}


def _draw(seed: int, step: int, recipe: Recipe) -> float:
    """A standard normal number that a trial from this step has by its seed and its recipe."""
    return float(np.random.default_rng(_number(seed, step, recipe)).standard_normal())


def _number(seed: int, step: int, recipe: Recipe) -> int:
    """A number of its own for each trial: of the settings, by name, that are not as they are by default.

    So a setting that recipes will have one day changes nothing that is drawn today, and tables stay comparable.
    """
    defaults = Recipe()
    told = sorted(
        (field.name, value)
        for field in fields(Recipe)
        if field.name not in COMPUTED and (value := getattr(recipe, field.name)) != getattr(defaults, field.name)
    )
    return int.from_bytes(hashlib.blake2b(f"{seed} {step} {told}".encode(), digest_size=8).digest())


def simulated_history(plan: Plan, curve: Curve, machine: Machine | None = None, world: World | None = None) -> History:
    """The history of the plan's run along one curve. Raises RunFailed where a real run would."""
    clock = FakeClock()
    # In memory where there is such a place: waiting for a disk is no part of a simulation.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        directory = RunDirectory(Path(folder) / "run")
        directory.create()
        workshop = SimulatedWorkshop(curve, clock, machine, world)
        run = Run(plan, directory, workshop, BudgetClock(clock.now))
        for _ in run.entries():
            pass
        return run.history


@dataclass(frozen=True)
class Outcome:
    """What a plan decided along one curve."""

    family: str
    steps: int
    seconds: float
    trunk_steps: int
    stopped: str
    reason: str
    score: float | None


def simulate(plan: Plan, *, seed: int = 0, noise: float = 0.01, machine: Machine | None = None) -> list[Outcome]:
    """Run the plan along one curve of each family. `noise`: the validation score's standard deviation."""
    outcomes = []
    for number, family in enumerate(FAMILIES):
        generator = np.random.default_rng([seed, number])
        curve = draw_curve(family, generator, total_steps=_steps(plan, machine), unit=UNIT, noise_sd=noise)
        try:
            history = simulated_history(plan, curve, machine)
        except RunFailed as error:
            outcomes.append(Outcome(family, 0, 0.0, 0, "failed", str(error), None))
            continue
        outcomes.append(_outcome(family, history))
    return outcomes


def _steps(plan: Plan, machine: Machine | None) -> float:
    """About how long the plan is, so that the curves have something to show within it."""
    lengths = [phase.until for phase in plan.phases if isinstance(phase.until, Amount)]
    amounts: list[Amount | None] = [*lengths] or [plan.budget]
    total = 0.0
    for amount in amounts:
        if amount is None:
            return 10_000.0
        per_step = {
            Unit.SECONDS: (machine or Machine()).step_seconds,
            Unit.STEPS: 1.0,
            Unit.EPOCHS: 12 / 15_000,
            Unit.TOKENS: 768.0,
        }[amount.unit]
        total += amount.value / per_step
    return total


def _outcome(family: str, history: History) -> Outcome:
    trunk, control, leader = history.phase.trunk, history.phase.control, history.leader
    assert trunk is not None
    assert history.finished is not None
    return Outcome(
        family,
        history.steps,
        history.seconds,
        trunk.step,
        history.finished.stopped,
        control.reason if control else "",
        leader.interval.score if leader and leader.interval else None,
    )
