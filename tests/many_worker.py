"""What test_many.py has one process do, and each of two: started by a server that has imported all of it before."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import pickle
import random
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from cases_chat import small_llama
from contract import CASES, Case, OwnCase
from corpora import OBJECTS, SUBJECTS, VERBS
from safetensors.torch import load_file

from multistep import cli
from multistep.backends.torch import saved
from multistep.backends.torch.learner import TorchLearner
from multistep.backends.torch.passes import Passes
from multistep.backends.torch.weights import STATE
from multistep.core.values.plan import DataSpec, Plan
from multistep.core.values.recipe import Recipe
from multistep.engine.launched import follows
from multistep.engine.learner import Learner, Workshop
from multistep.engine.signals import Stop
from multistep.errors import RunFailed
from multistep.interface import fleet
from multistep.interface.fleet import LeadingWorkshop, follow, joined
from multistep.tasks import workshop_for
from multistep.tasks.own.request import read_request

STEPS = {"text-generation": 100}  # of the others fewer, though they agree as long (docs/how-to/many-devices.md)
FEW = 20


def steps_of(name: str) -> int:
    return STEPS.get(name, FEW)


def pairs(folder: Path) -> DataSpec:
    """Who does it is asked; the right name is chosen over another one."""
    choose = random.Random(0)
    for name, rows in {"train": 60, "validation": 24, "test": 24}.items():
        lines = []
        for _ in range(rows):
            who, other = choose.sample(SUBJECTS, 2)
            prompt = f"{who} {choose.choice(VERBS)} {choose.choice(OBJECTS)}. Who?"
            lines.append(json.dumps({"prompt": prompt, "chosen": who, "rejected": other}) + "\n")
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    train, validation, test = (str(folder / f"{name}.jsonl") for name in ("train", "validation", "test"))
    return DataSpec(train=train, validation=validation, test=test)


PREFERENCE = Case("preference", "preference", pairs, {"recipe": {"batch_size": 6}}, model=small_llama)
KNOWN = {case.name: case for case in (*CASES, PREFERENCE)}


# What comes of a learner: the loss of each step, the columns of all of the validation split's scores, and the weights.
Seen = tuple[list[float], Mapping[str, Any], Mapping[str, torch.Tensor]]


def opened(case: Case, folder: Path, data: DataSpec) -> tuple[Plan, Workshop]:
    if isinstance(case, OwnCase):
        request = read_request(None, {"model": case.own.build(), **case.own.keywords()})
        return request.plan, request.workshop.keep_start(folder / "start.safetensors", resuming=follows())
    plan = case.plan(folder, data)
    return plan, workshop_for(plan)


def quiet(recipe: Recipe, **changes: Any) -> Recipe:
    """Nothing that is drawn for a share alone, averaged weights beside the trained ones, and steps that no rounding
    error grows by.
    """
    recipe = replace(recipe, **changes)
    found = replace(recipe, averaging=0.3, dropout=0.0, augmentation=0.0, gradient_clip=recipe.gradient_clip or 1.0)
    return replace(found, learning_rate=min(recipe.learning_rate or 1e-3, 2e-3))


def worked(learner: Learner, recipe: Recipe, folder: Path, steps: int) -> Seen:
    learner.initial(recipe, 0)
    rate = recipe.learning_rate or 1e-3
    losses = [learner.advance([rate]).loss for _ in range(steps // 2)]
    folder.mkdir()
    learner.save(folder)
    learner.load(folder, recipe, 0)
    losses += [learner.advance([rate]).loss for _ in range(steps // 2)]
    learner.save(folder)
    table = learner.evaluate("validation", sample=False)
    return losses, table.columns, load_file(folder / STATE)


def alone(name: str, folder: Path, steps: int, **changes: Any) -> Seen:
    plan, workshop = opened(KNOWN[name], folder / name, pickle.loads((folder / name / "data").read_bytes()))
    learner, ready = workshop.open(plan, 0, lambda: False)
    return worked(learner, quiet(ready.recipe, **changes), folder / name / "alone", steps)


def one_of_two(name: str, folder: Path, steps: int, **changes: Any) -> None:
    torch.manual_seed(int(follows()))  # an own module's first weights are those that it has in the first process
    plan, workshop = opened(KNOWN[name], folder / name, pickle.loads((folder / name / "data").read_bytes()))
    if changes:
        plan = replace(plan, recipe={**plan.recipe, **changes})
    with joined(plan) as group:
        assert group is not None
        if not group.leads:
            follow(group, lambda _: workshop)
            return
        stop = Stop()
        learner, ready = LeadingWorkshop(workshop, group, stop).open(plan, 0, stop.asked)
        seen = worked(learner, quiet(ready.recipe), folder / name / "two", steps)
        (folder / name / "seen").write_bytes(pickle.dumps(seen))


def shared_cases(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        one_of_two(name, folder, steps_of(name))


def sharded_cases(folder: Path, cases: Mapping[str, Mapping[str, Any]], steps: int) -> None:
    """Each with what its recipe changes beside it."""
    for name, changes in cases.items():
        one_of_two(name, folder, steps, sharding="full", **changes)


# Whole runs -----------------------------------------------------------------------------------------


def command(*words: str) -> None:
    """The command line; its exit code is the process's."""
    sys.argv = ["multistep", *words]
    cli.main()


def parted(do: str, *args: Any, **keywords: Any) -> None:
    """Another of these, with checkpoints that each process writes its part of."""
    saved.WHOLE_BYTES = 0
    globals()[do](*args, **keywords)


def killed_in(verb: str, rank: int, number: int, *words: str, by: int = signal.SIGKILL) -> None:
    """The same, where one process dies at a verb of its learner, by its number."""
    count = itertools.count(1)
    do = getattr(TorchLearner, verb)

    def dying(learner: TorchLearner, *args: Any, **keywords: Any) -> Any:
        if next(count) == number:
            if verb == "save":
                do(learner, *args, **keywords)  # written, and not published
            os.kill(os.getpid(), by)
        return do(learner, *args, **keywords)

    if int(os.environ["RANK"]) == rank:
        setattr(TorchLearner, verb, dying)
    command(*words)


def elsewhere(folder: Path, *words: str) -> None:
    """The command line, by the second process in another working folder."""
    if follows():
        os.chdir(folder)
    command(*words)


def other_version(*words: str) -> None:
    if follows():
        fleet.version = lambda distribution_name: "0.0.1"  # type: ignore[attr-defined]
    command(*words)


def without_memory(*words: str, sharded: bool = False) -> None:
    """The second process cannot pass over a single example, or in the middle of a pass over its share."""

    def fails(*_: Any) -> Any:
        raise torch.OutOfMemoryError if sharded else RunFailed("memory runs out with a single example")

    verb = "loss" if sharded else "gradients"
    if follows():
        setattr(Passes, verb, fails)
    command(*words)


# One of two processes -------------------------------------------------------------------------------


def of_module(module: str, do: str, *args: Any) -> None:
    """A function of another module of the tests."""
    getattr(importlib.import_module(module), do)(*args)


def child(place: Mapping[str, str], where: Path, log: Path, do: str, args: Sequence[Any], keywords: Any) -> None:
    os.environ.update(place)
    os.chdir(where)
    out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    torch.set_num_threads(1)
    globals()[do](*args, **keywords)
