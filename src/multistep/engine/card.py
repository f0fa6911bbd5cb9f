"""The model card: what stands beside exported weights so that they can be judged without the run."""

from __future__ import annotations

from multistep.core.function_metric import metric_of
from multistep.core.history import History
from multistep.core.metric import Interval
from multistep.core.plan import Plan
from multistep.core.tasks import task_named
from multistep.core.units import format_seconds


def model_card(plan: Plan, history: History) -> str:
    """Markdown with the YAML head that model hubs read."""
    phase = history.phase
    metric = metric_of(phase.started)
    winner = history.trial(history.incumbent.trial) if history.incumbent else None
    rows = []
    if winner and winner.full:
        rows.append(("validation", winner.full.interval, _baseline(history, "validation")))
    if history.test:
        rows.append(("test", history.test.interval, _baseline(history, "test")))
    table = "\n".join(
        f"| {split} | {_words(own)} | {_words(base) if base else ''} | {own.n} |" for split, own, base in rows
    )
    recipe = winner.trial.recipe if winner else phase.started.recipe
    move = f"; last move kept: {winner.trial.move}" if winner and winner.trial.move else ""
    name = history.baselines[0].name if history.baselines else "baseline"
    notes = "\n".join(f"- {note}" for note in phase.started.facts.notes)
    return f"""---
pipeline_tag: {task_named(plan.task).pipeline}
tags: [multistep]
---
# {plan.task}, trained by multistep

{phase.started.facts.description}, {phase.started.facts.parameters:,} parameters.

| split | {metric.name} ({metric.unit}), 95% interval | {name} | examples |
|---|---|---|---|
{table}

- data: {phase.started.name}: {plan.phase(phase.started.phase).data}
- budget: {plan.budget or "none"}; spent {format_seconds(history.seconds)}, {history.steps:,} steps, \
{history.tokens:,} tokens
- seed: {plan.seed}
- recipe: {recipe.optimizer}, learning rate {winner.trial.learning_rate if winner else 0:.3g}, \
batch {recipe.batch_size}{move}
{notes}
"""


def _baseline(history: History, split: str) -> Interval | None:
    return next((b.interval for b in history.baselines if b.split == split), None)


def _words(interval: Interval) -> str:
    return f"{interval.score:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
