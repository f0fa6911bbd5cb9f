"""What each task found out about data and model, put together as `core.values.understood.Understood`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from multistep.backends.torch.devices import pick_device, precision_name
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Facts
from multistep.core.values.understood import Part, Understood, one_or_many
from multistep.core.values.units import Amount
from multistep.data.names import NO_TEST
from multistep.tasks.begun import speeds_then
from multistep.tasks.pretrained.choose import label_of, licence_of
from multistep.tasks.pretrained.script import kind_of
from multistep.tasks.pretrained.settle import SCRATCH
from multistep.tasks.reckoned import Costs, expected_words, foreseen_steps, training_words

# What a note of the readers is about, by what all notes of its kind say; the first that fits. The rest stay notes.
TOPICS: Mapping[str, re.Pattern[str]] = {
    "duplicates": re.compile(r"measures memory|word for word in train|repeat another"),
    "cut": re.compile(
        r"\bcut (by .*)?into |splits from column|splits are (in column|the folders)|no validation was given|make up "
    ),
    "left_out": re.compile(r"left out|left aside|dropped|skipped|cannot be used"),
    "columns": re.compile(
        r"data\.(delimiter|header|encoding|root)\b|(from|in|is|are) columns? '|(from|as) '[^']+'|"
        "conversations from|pairs from"
    ),
}
LANGUAGES = {"any language": "not English by its letters"}  # what else `kind_of` tells is the language's name
UNNAMED = ("auto", SCRATCH)
LOOKED_AT = 1000  # texts, for their language


def told(
    facts: Facts,
    plan: Plan,
    phase: int,
    recipe: Recipe,
    *,
    splits: Iterable[Part],
    models: Sequence[str] = (),
    classes: Mapping[str, int] | None = None,
    labels: str = "",
    texts: Iterable[str] = (),
    data: str | None = None,
    weights: str | None = None,
    costs: Costs | None = None,
    checked: bool = True,
) -> Facts:
    """The facts with what the run understood in them.

    `models` are the names that the plan's models came to; `texts` those whose language is told by their letters. `data`
    and `weights` say what the plan does not: what the source is called, and where the weights come from. `costs` are
    those of a training example, where they can be told.
    """
    source = data or str(plan.phase(phase).data or "")
    facts = replace(facts, foreseen_steps=foreseen_steps(plan, phase, recipe, costs))
    sorted_notes = by_topic(of_files((note for note in facts.notes if note != NO_TEST), source))
    shown = [part for part in splits if part.size]
    if not any(part.name == "test" for part in shown):
        shown.append(Part("no test split, so the final score is the validation split's, on which it was chosen", 0, ""))
    kind = kind_of(some) if (some := list(texts)) else ""
    device = pick_device()
    threads = torch.get_num_threads()
    cpu = f" CPU, {threads} {one_or_many(threads, 'threads')}" if device.type == "cpu" else ""
    understood = Understood(
        data=source,
        columns=sorted_notes["columns"],
        classes=classes or {},
        labels=labels,
        splits=tuple(shown),
        cut=sorted_notes["cut"],
        duplicates=sorted_notes["duplicates"],
        checked=checked,
        left_out=sorted_notes["left_out"],
        language=LANGUAGES.get(kind, kind),
        model=facts.description,
        parameters=facts.parameters,
        weights=weights or _weights(facts, phase, recipe, models),
        device=f"{facts.device}{cpu}",
        precision=precision_name(recipe, device),
        budget=_budget(plan, phase),
        training=training_words(facts, recipe, shown[0].unit, device),
        expected=expected_words(facts, recipe, costs, plan),
        notes=sorted_notes["notes"],
    )
    return replace(facts, understood=understood, speeds=speeds_then())


def of_files(notes: Iterable[str], source: str) -> list[str]:
    """The readers' notes with files named as seen from the source, and what several files have in common said once."""
    files: dict[str, list[str]] = {}
    inside = f"{source.rstrip('/')}/"
    for note in notes:
        name, about, said = note.partition(": ")
        if about and name == source:
            files.setdefault(said, [])
        elif about and source and name.startswith(inside):
            files.setdefault(said, []).append(name.removeprefix(inside))
        else:
            files.setdefault(note, [])
    return [f"{', '.join(dict.fromkeys(names))}: {said}" if names else said for said, names in files.items()]


def by_topic(notes: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The readers' notes by what they are about; those of no topic are `notes`."""
    found: dict[str, list[str]] = {topic: [] for topic in (*TOPICS, "notes")}
    for note in dict.fromkeys(notes):
        topic = next((name for name, pattern in TOPICS.items() if pattern.search(note)), "notes")
        found[topic].append(note)
    return {topic: tuple(some) for topic, some in found.items()}


def counted(names: Sequence[str], numbers: Iterable[int]) -> dict[str, int]:
    """How many examples each class has, by the class numbers of all examples."""
    counts = np.bincount(np.fromiter(numbers, np.int64), minlength=len(names))
    return {name: int(count) for name, count in zip(names, counts, strict=False)}


def _weights(facts: Facts, phase: int, recipe: Recipe, models: Sequence[str]) -> str:
    """Where the weights come from, under which licence, and which of them are trained."""
    trained = "" if recipe.adapter == "none" else f"; trained through adapters ({recipe.adapter})"
    if phase > 0:
        return f"those of the phase before{trained}"
    named = [name for name in models if name not in UNNAMED]
    if not facts.pretrained or not named:
        return f"{'pretrained' if facts.pretrained else 'from nothing (drawn at random)'}{trained}"
    said = [f"{label_of(name)} (licence: {licence(name) or 'not stated there'})" for name in named]
    return f"pretrained, from {', '.join(said)}{trained}"


def licence(source: str) -> str | None:
    """The licence of a model: of a listed one, else what its own README says in its head."""
    if known := licence_of(source):
        return known
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.repocard import metadata_load

    card = Path(source).expanduser() / "README.md"
    if not Path(source).expanduser().is_dir():
        try:
            cached = try_to_load_from_cache(source, "README.md")
        except ValueError:  # no name that the hub allows
            return None
        card = Path(cached) if isinstance(cached, str) else card
    try:
        content = metadata_load(card) or {}
    except Exception:  # a card that no YAML reader understands says nothing
        return None
    return str(content["license"]) if content.get("license") else None


def _budget(plan: Plan, phase: int) -> str:
    until, many = plan.phase(phase).until, plan.phase_count
    if plan.budget is None:
        end = f"after {until}" if isinstance(until, Amount) else "when the score no longer gets better"
        return f"no limit: it ends {end}" if many == 1 else f"none: this phase, one of {many}, ends {end}"
    if many == 1:
        return str(plan.budget)
    own = f", this one until {until}" if until else ""
    return f"{plan.budget}, for {many} phases{own}"
