"""The model card: what stands beside exported weights so that they can be judged without the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from multistep.core.evidence.metric import Interval, Metric
from multistep.core.evidence.scores import form_of, metric_words
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Setting
from multistep.core.values.tasks import task_named
from multistep.core.values.units import format_seconds
from multistep.engine.card_head import card_head
from multistep.engine.chosen import leader_of
from multistep.engine.planfile import to_yaml
from multistep.engine.result import changed_settings, counted_in


def model_card(plan: Plan, history: History, hub: Sequence[Mapping[str, Mapping[str, str]]] = ()) -> str:
    """Markdown with the YAML head that model hubs read; `hub` are the commits that each phase read, if any."""
    phase = history.phase
    metric = metric_of(phase.started)
    winner = history.trial(history.leader.trial) if history.leader else None
    rows = []
    if winner and winner.full:
        rows.append(("validation", winner.full.interval, _baseline(history, "validation")))
    if history.test:
        rows.append(("test", history.test.interval, _baseline(history, "test")))
    table = "\n".join(
        f"| {split} | {_words(metric, own)} | {_words(metric, base) if base else ''} | {own.n} |"
        for split, own, base in rows
    )
    unit = f", {form_of(metric).unit}" if form_of(metric).unit else ""
    name = history.baselines[0].name if history.baselines else "baseline"
    phases = "\n".join(_phase(plan, record) for record in history.phases)
    notes = "\n".join(f"- {note}" for note in dict.fromkeys(n for p in history.phases for n in p.started.facts.notes))
    ships = f"\n- {history.shipping.reason}" if history.shipping else ""
    return _without_places(
        plan,
        f"""---
{card_head(plan, history, hub)}---
# {plan.task}, trained by multistep

{phase.started.facts.description}, {phase.started.facts.parameters:,} parameters.

| split | {metric_words(metric.name)}{unit} (95% interval) | {name} | examples |
|---|---|---|---|
{table}

## Use
In this folder:
```python
{phase.started.facts.usage.replace("{model}", repr("."))}
```
{_verbs(plan)}

## How sure it is
{_how_sure(plan, history, metric_words(metric.name))}

## How it was made
- budget: {plan.budget or "none"}; spent {format_seconds(history.seconds)}, {history.steps:,} steps, \
{_read(history)}
- seed: {plan.seed}{ships}

## Phases
{phases}

## Plan
```yaml
{to_yaml(plan).rstrip()}
```

## Notes
{notes or "- none"}
""",
    )


def _read(history: History) -> str:
    """`619,008 tokens`; where phases count different things, how many examples there were of whatever kind."""
    counted = counted_in(history)
    return f"{history.tokens:,} {counted}" if counted else f"{history.examples:,} examples"


def _without_places(plan: Plan, card: str) -> str:
    """The card without the paths of the machine that it was written on: they say nothing elsewhere."""
    every = [plan.phase(i) for i in range(plan.phase_count)]
    specs = [spec for phase in every for spec in (phase.data, phase.guard.data if phase.guard else None) if spec]
    names = [*plan.model.names, *(part for s in specs for part in (s.source, s.train, s.validation, s.test) if part)]
    for name in sorted({name for name in names if Path(name).is_absolute()}, key=len, reverse=True):
        card = card.replace(name, Path(name).name)
    return card


def _verbs(plan: Plan) -> str:
    """The commands that use the folder, as an engineer would name them."""
    family = task_named(plan.task).family
    if family == "text":
        return "Or `multistep generate . --prompt ...`, `multistep chat .`, `multistep evaluate . --data FILE`."
    if family == "own":
        return "`result.load(module)` of the run fills a module of the same class."
    return "Or `multistep predict . INPUT`, `multistep evaluate . --data FILE`."


def _how_sure(plan: Plan, history: History, metric: str) -> str:
    """What was chosen, what of it is proven, and what the table's intervals are of."""
    leader = leader_of(history)
    last = plan.phase(plan.phase_count - 1).data
    said = [f"{leader['sentence']}" if leader else "Nothing was chosen."]
    said.append(
        f"The intervals of {metric} are over the examples of {last}: 95 of 100 such intervals hold "
        "the score on all data of the kind."
    )
    if history.test:
        said.append("The test split was looked at once, after everything was chosen; validation was chosen on.")
    else:
        said.append("There was no test split: the score is of the split that the choice was made on, and flatters.")
    return " ".join(said)


def _line(record: PhaseRecord) -> list[TrialRecord]:
    """The trials, one after the other, that led to what the phase ended with."""
    found: list[TrialRecord] = []
    head = record.finished.head if record.finished else None
    while head and (trial := record.trials.get(head.rpartition("@")[0])):
        found.insert(0, trial)
        head = trial.trial.start
    return found


def _phase(plan: Plan, record: PhaseRecord) -> str:
    """What a phase trained on, for how long and how: the settings of the trial that it ended with."""
    wanted = plan.phase(record.started.phase)
    line = _line(record)
    last = line[-1] if line else next(iter(record.of_kind("control")), None)
    recipe = last.trial.recipe if last else record.started.recipe
    given = {key: getattr(recipe, key) for key in wanted.recipe}  # whatever a user asked for is told
    given |= {"optimizer": recipe.optimizer, "batch_size": recipe.batch_size}
    given["learning_rate"] = last.trial.learning_rate if last else recipe.learning_rate
    settings = ", ".join(f"{key} {_setting(value)}" for key, value in given.items())
    until = wanted.until or ("the budget or stable" if plan.budget else "stable")
    lines = [
        f"{record.started.phase + 1}. {record.started.name}: {wanted.task} on {wanted.data}",
        f"    - until: {until}; ended: {record.finished.stopped if record.finished else 'not yet'}",
        f"    - recipe: {settings}",
        f"    - {record.started.facts.train_examples:,} training examples",
    ]
    moves = [t for t in line if t.trial.move]
    for trial in moves:
        changed = ", ".join(f"{key} {_setting(pair['to'])}" for key, pair in changed_settings(record, trial).items())
        lines.append(f"    - move that led: {trial.trial.move}" + (f" ({changed})" if changed else ""))
    return "\n".join(lines)


def _setting(value: Setting) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _baseline(history: History, split: str) -> Interval | None:
    return next((b.interval for b in history.baselines if b.split == split), None)


def _words(metric: Metric, interval: Interval) -> str:
    """`79.2% (77.9 to 80.5%)`."""
    form = form_of(metric, interval.high - interval.low)
    return f"{form.of(interval.score)} ({form.between(interval) or 'interval not known'})"
