"""What a run of texts has to offer a pretrained encoder, and its networks where it is given several models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.errors import PlanError
from multistep.tasks.language.network import Network
from multistep.tasks.language.preset import MOST_CONTEXT
from multistep.tasks.pretrained.choose import Need, label_of
from multistep.tasks.pretrained.script import kind_of
from multistep.tasks.pretrained.settle import seconds_of
from multistep.tasks.pretrained.timed import tuning_speed

CHARACTERS_A_TOKEN = 4.0  # about; Chinese is read by the character
SPECIAL_TOKENS = 2.0  # around a text
Contender = tuple[Network, Recipe]


def need_of(plan: Plan, texts: Sequence[str], count: int | None = None) -> Need:
    """The task, the language and length of its training texts, the time and the device.

    `count` says how many texts there are, where these are some of them.
    """
    kind = kind_of(texts)
    characters = 1.0 if kind == "Chinese" else CHARACTERS_A_TOKEN
    read = sum(min(len(text), MOST_CONTEXT * characters) for text in texts)
    tasks = [plan.phase(i).task for i in range(plan.phase_count)]
    return Need(
        next((task for task in tasks if task == "fill-mask"), plan.task),
        kind,
        count or len(texts),
        read / max(1, len(texts)) / characters + SPECIAL_TOKENS,
        seconds_of(plan),
        tuning_speed(plan),
    )


def told_apart(found: Sequence[tuple[str, Sequence[Contender]]]) -> list[Contender]:
    """The contenders of several models, each recipe with its network's name; what knows something already goes first.

    Raises PlanError for two with one name.
    """
    told: dict[str, Contender] = {}
    short = [label_of(source).rstrip("/").rpartition("/")[2] for source, _ in found]
    for source, contenders in found:
        for network, recipe in contenders:
            if network.pretrained:
                # Trials and checkpoints are named for it, and so it is no path.
                last = label_of(source).rstrip("/").rpartition("/")[2]
                network.name = last if short.count(last) == 1 else label_of(source).strip("/").replace("/", "--")
            if network.name in told:
                raise PlanError(f"model: the candidates hold '{network.name}' twice; name each network once")
            told[network.name] = network, replace(recipe, model=network.name)
    return sorted(told.values(), key=lambda contender: not contender[0].pretrained)
