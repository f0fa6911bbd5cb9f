"""`multistep.train(model=module, loss=..., train=..., ...)`: what is asked, as a plan and what opens it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.data import default_collate

from multistep.core.evidence.function_metric import FunctionMetric
from multistep.core.evidence.metric import metric_named
from multistep.core.values.plan import Plan
from multistep.core.values.tasks import OWN_MODEL
from multistep.engine.elsewhere import SHORT_KEYS, hint
from multistep.errors import PlanError
from multistep.tasks.own.code import code_digest
from multistep.tasks.own.cutting import read_splits
from multistep.tasks.own.data import joined
from multistep.tasks.own.first import Wanted
from multistep.tasks.own.found import Code
from multistep.tasks.own.functions import OwnMetric, own_metric, same_as_ours
from multistep.tasks.own.model import OwnModel, unwrapped
from multistep.tasks.own.planned import OF_THE_PLAN, plan_of
from multistep.tasks.own.randomness import as_at
from multistep.tasks.own.task import OwnWorkshop

OWN = ("model", "loss", "train", "validation", "test", "target", "goal", "pretrained", "standardize")


@dataclass(frozen=True)
class Request:
    """A plan, what opens it, the function that judges it, if there is one, and the code that uses what came of it."""

    plan: Plan
    workshop: OwnWorkshop
    metric: FunctionMetric | None
    code: Code


def read_request(plan: object, given: Mapping[str, Any]) -> Request:
    """Understand the keywords of `train`. Raises PlanError or DataError for what cannot be carried out."""
    model = _module(plan, given)
    _require_known(model, given)
    if callable(given.get("metric")) and (ours := same_as_ours(given["metric"], given.get("goal"))) is not None:
        given = {**given, "metric": ours, "goal": None}
    metric = _metric(given.get("metric"), given.get("goal"))
    own = OwnModel(model)
    with as_at(0):  # reading examples may draw random numbers, which are not ours to take
        asked = {name: given.get(name) for name in ("train", "validation", "test")}
        splits, notes = read_splits(asked, given.get("target"))
        data = [split.fingerprint() for split in splits.values()]
    # Two runs of the same data and code may share what they have trained, and one goes on where the other stopped.
    collates: dict[Any, Any] = {
        joined: default_collate
    }  # ours does what torch's does, and runs were begun under that name
    code = [part for s in splits.values() for part in (type(s.items), collates.get(s.collate, s.collate))]
    loss = given.get("loss")
    numbers = dict(loss.state_dict()) if isinstance(loss, nn.Module) else {}
    asked_more = [] if given.get("standardize") is None else [("standardize", given["standardize"])]
    judged = (given.get("metric"), given.get("goal"))
    identity = code_digest([own.given, loss, numbers, *judged, *code, *data, *asked_more])
    pretrained = bool(given.get("pretrained", False))
    name = f"{type(own.given).__module__}:{own.name}" + (f" ({own.weights_hash()})" if pretrained else "")
    plan = plan_of(given, splits, model=name, identity=identity, metric=metric.metric.name if metric else None)
    named = metric_named(given["metric"]).name if isinstance(given.get("metric"), str) else None
    target, standardize = given.get("target"), given.get("standardize")
    wanted = Wanted(splits, notes, given.get("loss"), target, metric, named, standardize)
    workshop = OwnWorkshop(own, wanted, identity, pretrained=pretrained)
    code_given = Code(own.given, given.get("loss"), target, metric)
    return Request(plan, workshop, metric.metric if metric else None, code_given)


_OF_LIGHTNING = ("training_step", "configure_optimizers")


def _module(plan: object, given: Mapping[str, Any]) -> nn.Module:
    model = given.get("model")
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise PlanError(f"model is the class {model.__name__}; give an instance: model={model.__name__}(...)")
    if not isinstance(model, nn.Module):
        if several := [each for each in _parts_of(model) if isinstance(each, nn.Module)]:
            raise PlanError(
                f"model is a {type(model).__name__} of {len(several)} modules; one module is trained by one loss here: "
                "make them parts of one (two that are trained against each other, as in a GAN, cannot be)"
            )
        key = next(key for key in OWN if key != "model" and key in given)
        what = "is missing" if model is None else f"is {model!r}"
        raise PlanError(
            f"{key}= belongs to a model of your own, but model {what}; give model=a torch.nn.Module, or task= and "
            "data= for a model by name"
        )
    _require_loss_of_lightning(model, given)
    if plan is not None:
        raise PlanError("a plan names its model; give either a plan, or model= with train=")
    return model


def _parts_of(model: object) -> list[object]:
    if isinstance(model, Mapping):
        return list(model.values())
    return list(model) if isinstance(model, list | tuple) else []


def _require_loss_of_lightning(model: nn.Module, given: Mapping[str, Any]) -> None:
    """Raises PlanError where a loss would be guessed although the module has one, in what is never called here."""
    inner, _ = unwrapped(model)
    if given.get("loss") is None and all(callable(getattr(inner, name, None)) for name in _OF_LIGHTNING):
        raise PlanError(
            "model is a Lightning module, whose training_step is not called here: give loss= what "
            f"{type(inner).__name__}.training_step computes from forward's output, and recipe= what its "
            "configure_optimizers sets"
        )


def _require_known(model: nn.Module, given: Mapping[str, Any]) -> None:
    """Raises PlanError for keywords that mean nothing here, or that are missing."""
    allowed = (*OWN, *OF_THE_PLAN, *SHORT_KEYS, "out", "clock", "on_entry")
    if "data" in given:
        raise PlanError("data= names files for a task by name; a model of your own takes train=, validation= and test=")
    if given.get("task") not in (None, OWN_MODEL):
        raise PlanError(f"task is '{given['task']}', but model is a {type(model).__name__}; leave one of them out")
    for key in given:
        if key not in allowed and key != "task":
            close = hint(key, allowed, given[key], group="", typed=False)
            raise PlanError(f"unknown keyword '{key}'; allowed: {', '.join(allowed)}.{close}")
    if given.get("standardize") not in (None, True, False):
        raise PlanError(f"standardize is {given['standardize']!r}; allowed: True or False, or leave it out")
    if given.get("train") is None:
        raise PlanError("train is missing: give a dataset, a DataLoader, a list of (input, target) pairs, or tensors")
    for phase in given.get("phases") or ():
        for key in ("task", "data", "metric"):
            if isinstance(phase, Mapping) and phase.get(key) is not None:
                raise PlanError(f"phases: {key} is the same for all phases of a model of your own; leave it out")


def _metric(given: Any, goal: Any) -> OwnMetric | None:
    """The user's function; None for a metric by name. Raises PlanError for a name that is none, or a missing goal."""
    if given is None or isinstance(given, str):
        if goal is not None:
            raise PlanError("goal says which way a function is better, but metric is none; leave goal out")
        if given is not None:
            metric_named(given)
        return None
    if not callable(given) and not isinstance(given, FunctionMetric):
        raise PlanError(f"metric is {given!r}; allowed: a name, or a function (targets, predictions) -> number")
    return own_metric(given, goal)
