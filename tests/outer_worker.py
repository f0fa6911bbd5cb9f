"""What test_outer.py has each of two processes do: steps alone, outer steps, and what goes wrong with one of them."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import many_worker
import torch
import torch.distributed as dist
from torch import Tensor

from multistep.backends.torch.learner import TorchLearner
from multistep.backends.torch.passes import Passes
from multistep.core.values.recipe import Outer, Recipe
from multistep.engine.launched import follows
from multistep.engine.learner import Interrupted, Learner
from multistep.engine.signals import Stop
from multistep.errors import RunFailed
from multistep.interface.fleet import LeadingWorkshop, follow, joined

CASE = "text-generation"
MEAN = Outer(every=1, optimizer="sgd", learning_rate=1.0, momentum=0.0)
THREE = Outer(every=3)
STREAMED = Outer(every=4, fragments=2, overlap=1, mixing=0.25)
IN_FOUR_BITS = Outer(every=4, fragments=2, bits=4)
BUSY = Outer(every=4, fragments=4, overlap=3)
NEVER = Outer(every=10**6)
WINDOWS = (4, 3, 1)  # of 8 steps; for THREE two outer steps and three ends of windows, none of which falls on one
RATE = 2e-3


def recipe_of(ready: Recipe, outer: Outer | None, **changes: Any) -> Recipe:
    changes = {"averaging": 0.3, "dropout": 0.0, "batch_size": 7, **changes}
    return replace(ready, outer=outer, learning_rate=RATE, **changes)


def weights_of(learner: TorchLearner) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in learner._model.named_parameters()}


@contextmanager
def counted(learner: TorchLearner) -> Iterator[list[tuple[str, int]]]:
    """Within, what is sent: each collective by name, and after how many steps."""
    sent: list[tuple[str, int]] = []
    kept = {name: getattr(dist, name) for name in ("all_reduce", "all_gather", "broadcast", "all_gather_object")}

    def noting(name: str) -> Any:
        def call(*args: Any, **keywords: Any) -> Any:
            sent.append((name, learner._steps))
            return kept[name](*args, **keywords)

        return call

    for name in kept:
        setattr(dist, name, noting(name))
    try:
        yield sent
    finally:
        for name, do in kept.items():
            setattr(dist, name, do)


def in_second(at_step: int, then: Any) -> None:
    """Have the second process do something in the pass of a step of the next window, counted from 1."""
    if not follows():
        return
    verb, count = "gradients", 0
    do = getattr(Passes, verb)

    def gradients(passes: Passes, batch: Any, seed: int) -> Any:
        nonlocal count
        count += 1
        found = do(passes, batch, seed)
        if count == at_step:
            setattr(Passes, verb, do)
            then(passes)
        return found

    setattr(Passes, verb, gradients)


def spoil(passes: Passes) -> None:
    passes.gradient_list()[0].fill_(float("nan"))


def stop(_: Passes) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def fail(_: Passes) -> None:
    raise RunFailed("memory runs out with a single example")


@contextmanager
def slowed(seconds: float) -> Iterator[None]:
    """Within, this process takes so long over each pass."""
    verb = "gradients"
    do = getattr(Passes, verb)

    def gradients(passes: Passes, batch: Any, seed: int) -> Any:
        time.sleep(seconds)
        return do(passes, batch, seed)

    setattr(Passes, verb, gradients)
    try:
        yield
    finally:
        setattr(Passes, verb, do)


def scenes(folder: Path, case: Path) -> None:
    """All scenes of the first process; the second follows, and goes wrong where it is told to."""
    many = many_worker.KNOWN[CASE]
    plan, workshop = many_worker.opened(many, case, pickle.loads((case / "data").read_bytes()))
    with joined(plan) as group:
        assert group is not None
        if not group.leads:
            wrongs = {BUSY: iter([fail]), NEVER: iter([spoil, stop])}  # in their windows
            verb = "advance"
            advance = TorchLearner.advance

            def watched(learner: TorchLearner, *args: Any, **keywords: Any) -> Any:
                if learner._recipe.outer in wrongs:
                    in_second(2, next(wrongs[learner._recipe.outer]))
                return advance(learner, *args, **keywords)

            setattr(TorchLearner, verb, watched)
            follow(group, lambda _: workshop)
            return
        asked = Stop()
        learner, ready = LeadingWorkshop(workshop, group, asked).open(plan, 0, asked.asked)
        own: TorchLearner = learner._own  # type: ignore[attr-defined]
        seen: dict[str, Any] = {"mean": trained(learner, own, recipe_of(ready.recipe, MEAN, optimizer="adamw"))}
        for name, outer in {"three": THREE, "in four bits": IN_FOUR_BITS, "streamed": STREAMED}.items():
            seen[name] = trained(learner, own, recipe_of(ready.recipe, outer))
        for name, outer in {"three": THREE, "streamed": STREAMED}.items():
            resumed(learner, recipe_of(ready.recipe, outer), folder / name)
        seen["failed"] = broken_off(learner, recipe_of(ready.recipe, BUSY))
        seen["streamed again"] = trained(learner, own, recipe_of(ready.recipe, STREAMED))
        seen |= wrong(learner, own, recipe_of(ready.recipe, NEVER))
        (folder / "seen").write_bytes(pickle.dumps(seen))


def trained(learner: Learner, own: TorchLearner, recipe: Recipe) -> Mapping[str, Any]:
    learner.initial(recipe, 0)
    with counted(own) as sent:
        losses = [learner.advance([RATE] * steps).loss for steps in WINDOWS]
    table = learner.evaluate("validation", sample=True)
    return {"losses": losses, "sent": sent, "weights": weights_of(own), "scored": table.columns}


def broken_off(learner: Learner, recipe: Recipe) -> str:
    """What is said where the second process fails while changes are on their way, of which it has sent more."""
    learner.initial(recipe, 0)
    try:
        with slowed(0.1):
            learner.advance([RATE] * 20)
    except RunFailed as error:
        return str(error)
    return ""


def resumed(learner: Learner, recipe: Recipe, folder: Path) -> None:
    """Saved in the midst of inner steps, and gone on with: at once, and from the checkpoint."""
    learner.initial(recipe, 0)
    learner.advance([RATE] * 4)
    for name in ("saved", "at once", "resumed"):
        (folder / name).mkdir(parents=True)
    learner.save(folder / "saved")
    learner.advance([RATE] * 4)
    learner.save(folder / "at once")
    learner.load(folder / "saved", recipe, 0)
    learner.advance([RATE] * 4)
    learner.save(folder / "resumed")


def wrong(learner: Learner, own: TorchLearner, recipe: Recipe) -> Mapping[str, Any]:
    """A number that is not finite in the second process, then a signal to it alone."""
    learner.initial(recipe, 0)
    progress = learner.advance([RATE] * 4)
    finite = all(bool(torch.isfinite(p).all()) for p in own._trained)
    learner.initial(recipe, 0)
    began, stopped = time.monotonic(), False
    try:
        with slowed(0.05):
            learner.advance([RATE] * 200)
    except Interrupted:
        stopped = True
    return {"spoilt": (progress.finite, finite), "stopped": (stopped, time.monotonic() - began, own._steps)}
