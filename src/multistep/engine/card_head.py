"""The YAML head of a model card, as hubs read it: what the model is for, from what it was made, and how it scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from multistep.core.evidence.scores import metric_words
from multistep.core.values.events import Evaluated
from multistep.core.values.history import History
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan
from multistep.core.values.tasks import task_named

Commits = Sequence[Mapping[str, Mapping[str, str]]]


def card_head(plan: Plan, history: History, hub: Commits) -> str:
    """The lines between the dashes; https://huggingface.co/docs/hub/model-cards says what each key means.

    Scores stand in `model-index`, each with its 95% interval and the number of examples among its `args`. Models and
    data sets that are the hub's are named with the commits that were read. A licence is nobody's to guess:
    `multistep push --license` writes it.
    """
    models = {name: commit for phase in hub for name, commit in phase.get("models", {}).items()}
    data = {name: commit for phase in hub for name, commit in phase.get("data", {}).items()}
    head: dict[str, Any] = {"pipeline_tag": task_named(plan.task).pipeline, "tags": ["multistep"]}
    if task_named(plan.task).family in ("text", "language") or models:
        head["library_name"] = "transformers"
    if models:
        head["base_model"] = list(models)
    if data:
        head["datasets"] = sorted({name.partition(":")[0] for name in data})
    if results := _results(plan, history, data):
        head["model-index"] = [{"name": f"{plan.task} by multistep", "results": results}]
    if models or data:
        head["multistep"] = {"commits": {**models, **data}}
    return to_yaml(head)


def to_yaml(head: Mapping[str, Any]) -> str:
    """The head as YAML, keys in their order."""
    from ruamel.yaml import YAML

    out, yaml = StringIO(), YAML(typ="rt")
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.width = 2**20
    yaml.dump(dict(head), out)
    return out.getvalue()


def read_head(card: str) -> tuple[dict[str, Any], str]:
    """A card's head, empty where it has none, and the text below it."""
    from ruamel.yaml import YAML

    before, _, rest = card.partition("---\n")
    head, dashes, text = rest.partition("---\n")
    if before or not dashes:
        return {}, card
    return dict(YAML(typ="safe").load(head) or {}), text


def _results(plan: Plan, history: History, data: Mapping[str, str]) -> list[dict[str, Any]]:
    """A result for each split that the network was scored on; what ships may be the baseline, which the text says."""
    winner = history.trial(history.leader.trial).full if history.leader else None
    task = task_named(plan.task)
    spec = plan.phase(plan.phase_count - 1).data
    found = []
    for split, evaluated in (("validation", winner), ("test", history.test)):
        if evaluated is None or not (metrics := _metrics(history, evaluated)):
            continue
        source = str((getattr(spec, split) or spec.source or spec.train) if spec else plan.data)
        own, _, configuration = source.partition(":")
        of_hub = source in data
        about: dict[str, Any] = {"name": source if of_hub else Path(source).name or source}
        about |= {"type": own if of_hub else "custom", "split": split}
        if of_hub:
            about |= {"config": configuration} if configuration else {}
            about["revision"] = data[source]
        found.append({"task": {"type": task.pipeline}, "dataset": about, "metrics": metrics})
    return found


def _metrics(history: History, evaluated: Evaluated) -> list[dict[str, Any]]:
    """The deciding metric with its interval, and the others by their numbers."""
    metric, interval = metric_of(history.phase.started), evaluated.interval
    numbers = {metric.name: interval.score, **evaluated.scores}
    found = []
    for name, score in numbers.items():
        if not math.isfinite(score):
            continue
        entry: dict[str, Any] = {"type": name, "value": round(score, 6), "name": metric_words(name)}
        if name == metric.name:
            ends = [round(end, 6) for end in (interval.low, interval.high) if math.isfinite(end)]
            entry["args"] = (
                {"interval_95": ends, "examples": interval.n} if len(ends) == 2 else {"examples": interval.n}
            )
        found.append(entry)
    return found
