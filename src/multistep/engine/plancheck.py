"""What a plan says: contradictions, and names that no task knows, each with what is allowed instead."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from multistep.core.choice.moves import check_moves
from multistep.core.evidence.metric import METRICS, OF_NUMBERS, metric_named
from multistep.core.values.plan import DataSpec, Plan
from multistep.core.values.tasks import OWN_MODEL, family_of, guarded_as, task_named
from multistep.core.values.units import Amount, Unit
from multistep.engine.origins import Origins, Place
from multistep.errors import PlanError

_OF_TOKENS = ("loss", "perplexity", "bits_per_byte")
_OF_ANSWERS = ("exact_match", "token_f1", "rouge_l", "answer_accuracy")  # where the texts are conversations
_OF_SPEECH = ("loss", "wer", "cer")
_OF_PAIRS = ("preference_accuracy", "margin", "loss")
_OF_NUMBERS = (*OF_NUMBERS, "pearson", "spearman")
_OF_PLACES = ("pixel_accuracy", "token_accuracy", "mean_iou", "dice")
_OF_OTHERS = (*_OF_TOKENS[1:], *_OF_ANSWERS, *_OF_SPEECH[1:], *_OF_PAIRS[:-1], *_OF_NUMBERS, *_OF_PLACES)
_OF_CLASSES = tuple(name for name in METRICS if name not in _OF_OTHERS)
# Tasks whose last layer may begin as a linear probe.
PROBED = ("text-classification", "image-classification", "speech-recognition")
# What a task can be judged by at all; on given data it may be less, which only reading them tells.
JUDGED_BY: Mapping[str, tuple[str, ...]] = {
    "text-generation": (*_OF_TOKENS, *_OF_ANSWERS),
    "preference": _OF_PAIRS,
    "fill-mask": _OF_TOKENS,
    "text-classification": (*_OF_CLASSES, *_OF_NUMBERS),
    "image-classification": (*_OF_CLASSES, *_OF_NUMBERS),
    "speech-recognition": _OF_SPEECH,
}


def check_meaning(plan: Plan, origins: Origins) -> None:
    """What the types cannot say: known task and metric, data that can be found in one way."""
    for index in range(plan.phase_count):
        _check_phase(plan, index, origins)
    try:
        family_of(plan)
    except PlanError as error:
        raise PlanError(f"{origins.at(('phases',))}: {error}") from error
    if plan.tolerance is not None and not plan.tolerance > 0:
        raise PlanError(f"{origins.at(('tolerance',))}: tolerance is {plan.tolerance:g}; allowed: more than 0")
    if not 0 <= plan.seed < 2**31:
        raise PlanError(f"{origins.at(('seed',))}: seed is {plan.seed}; allowed: 0 to {2**31 - 1}")
    _check_candidates(plan, origins)
    for name in ("parameters", "layers", "width", "heads", "context", "vocabulary"):
        size = getattr(plan.model, name)
        least = {"parameters": 1000, "width": 8, "context": 2, "vocabulary": 257}.get(name, 1)
        if size is not None and size < least:
            raise PlanError(f"{origins.at(('model', name))}: model.{name} is {size}; allowed: {least} or more")


def _check_candidates(plan: Plan, origins: Origins) -> None:
    """Several models are raced where a task has several networks, and only one phase trains them."""
    names, where = plan.model.candidates, origins.at(("model",))
    if not names:
        return
    told = ", ".join(names)
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise PlanError(f"{where}: model: '{repeated}' stands twice among the candidates ({told}); name each once")
    if plan.model.name != "auto":
        raise PlanError(f"{where}: model: both a name ({plan.model.name}) and candidates ({told}); give one of them")
    if plan.task != "text-classification":
        raise PlanError(
            f"{where}: model: several candidates ({told}) are raced in text-classification alone; name one for "
            f"{plan.task}"
        )
    if plan.phase_count > 1:
        raise PlanError(f"{where}: model: several candidates ({told}), but all phases train one network; name one")
    if plan.budget is not None and plan.budget.unit in (Unit.EPOCHS, Unit.TOKENS):
        raise PlanError(
            f"{where}: model: several candidates ({told}) have batches of their own, so with a budget of {plan.budget} "
            "they could not be raced over equal lengths; give the budget in time or steps, or name one"
        )
    if "model" in plan.phase(0).recipe:
        raise PlanError(f"{where}: model: several candidates ({told}), and recipe.model names one; leave that out")
    for name in ("parameters", "layers", "width", "heads", "vocabulary"):
        if getattr(plan.model, name) is not None:
            raise PlanError(f"{where}: model.{name}: sizes are for one network, and these are several ({told})")


def _check_phase(plan: Plan, index: int, origins: Origins) -> None:
    phase = plan.phase(index)
    try:
        task = task_named(str(phase.task)).name
    except PlanError as error:
        raise PlanError(f"{origins.at(place_of(plan, index, 'task'))}: {error}") from error
    if phase.metric is not None and task != OWN_MODEL:  # whose metric may be a function's name
        where = origins.at(place_of(plan, index, "metric"))
        try:
            name = metric_named(phase.metric).name
        except PlanError as error:
            raise PlanError(f"{where}: {error}") from error
        if name not in JUDGED_BY.get(task, METRICS):
            raise PlanError(
                f"{where}: metric '{name}' cannot be measured for {task}; allowed: {', '.join(JUDGED_BY[task])}"
            )
    _check_moves(plan, index, origins)
    _check_guard(plan, index, origins)
    _check_beta(plan, index, origins)
    _check_head(plan, index, origins)
    _check_outer(plan, index, origins)
    assert phase.data is not None, "a plan has data"
    _check_data(phase.data, origins.at(place_of(plan, index, "data")))


def _check_data(data: DataSpec, where: str) -> None:
    if bool(data.source) == bool(data.train) or (data.source and (data.validation or data.test)):
        raise PlanError(f"{where}: data names either one source, or train (and validation, test) files")
    for name, share in data.shares.items():
        least = "more than 0 and" if name == "validation" else "0 (no test split), or more and"
        if not 0 <= share < 1 or (name == "validation" and share == 0):
            raise PlanError(f"{where}: data.{name} is {share:g}; allowed: {least} less than 1, or where the data is")
        if getattr(data, name):
            raise PlanError(f"{where}: data.{name} names {getattr(data, name)}, so no share of train is cut for it")
    if (total := sum(data.shares.values())) >= 1:
        raise PlanError(
            f"{where}: data.validation and data.test take {total:g} of train; leave more than nothing of it"
        )


def _check_beta(plan: Plan, index: int, origins: Origins) -> None:
    """What is of preferences alone; in the plan's recipe it is for those of its phases that have some."""
    own = plan.phases[index].recipe if plan.phases else {}
    prefers = [plan.phase(i).task == "preference" for i in range(plan.phase_count)]
    if ("beta" in own and not prefers[index]) or ("beta" in plan.recipe and not any(prefers)):
        place: Place = ("phases", index) if "beta" in own else ()
        raise PlanError(
            f"{origins.at((*place, 'recipe', 'beta'))}: recipe.beta is for phases whose task is preference; leave it "
            "out"
        )


def _check_head(plan: Plan, index: int, origins: Origins) -> None:
    """What is of classifiers and recognisers alone; a plan's own is for those of its phases that train one."""
    own = plan.phases[index].recipe if plan.phases else {}
    classify = [plan.phase(i).task in PROBED for i in range(plan.phase_count)]
    if ("head" in own and not classify[index]) or ("head" in plan.recipe and not any(classify)):
        place: Place = ("phases", index) if "head" in own else ()
        raise PlanError(
            f"{origins.at((*place, 'recipe', 'head'))}: recipe.head is for phases that classify texts or images, or "
            "recognise speech; leave it out"
        )


def _check_outer(plan: Plan, index: int, origins: Origins) -> None:
    """What steps that each process takes alone cannot be of."""
    phase = plan.phase(index)
    if phase.recipe.get("outer") is None:
        return
    place: Place = ("phases", index) if plan.phases and "outer" in plan.phases[index].recipe else ()
    where = f"{origins.at((*place, 'recipe', 'outer'))}: recipe.outer"
    if phase.recipe.get("optimizer") == "schedule-free":
        raise PlanError(
            f"{where}: schedule-free steps from an average of its own, which each process would have of its own "
            "weights; choose another optimizer, or leave outer out"
        )
    if phase.recipe.get("sharding") == "full":
        raise PlanError(
            f"{where}: steps that each process takes alone need all of the model, and recipe.sharding is full; leave "
            "one of them out"
        )


def _check_guard(plan: Plan, index: int, origins: Origins) -> None:
    """What a phase must not forget, as far as the plan alone tells."""
    phase = plan.phase(index)
    guard = phase.guard
    if guard is None:
        return
    place: Place = ("phases", index, "guard")
    task = guarded_as(str(phase.task))
    if task is None:
        raise PlanError(
            f"{origins.at(place)}: only phases of text can have a guard, since their whole model goes on from one "
            f"phase to the next; a phase of {phase.task} begins with new parts, which have nothing to forget: leave "
            "the "
            "guard out"
        )
    _check_data(guard.data, origins.at((*place, "data")))
    if guard.metric is not None:
        where = origins.at((*place, "metric"))
        try:
            name = metric_named(guard.metric).name
        except PlanError as error:
            raise PlanError(f"{where}: guard.{error}") from error
        if name not in JUDGED_BY[task]:
            raise PlanError(
                f"{where}: guard.metric '{name}' cannot be measured for {task}, as which the guard's data is scored; "
                "allowed: "
                f"{', '.join(JUDGED_BY[task])}"
            )
    if guard.at_most_worse is not None and not 0 <= guard.at_most_worse < math.inf:
        raise PlanError(
            f"{origins.at((*place, 'at_most_worse'))}: guard.at_most_worse is {guard.at_most_worse:g}; allowed: 0 or "
            "more, in the unit of the guard's metric"
        )


def place_of(plan: Plan, index: int, key: str) -> Place:
    """Where a phase's value stands: in the phase, or in the plan where the phase has none of its own."""
    own = bool(plan.phases) and getattr(plan.phases[index], key) is not None
    return ("phases", index, key) if own else (key,)


def _check_moves(plan: Plan, index: int, origins: Origins) -> None:
    """Moves that contradict the recipe or the length, and schedules that need one."""
    phase = plan.phase(index)
    if isinstance(phase.moves, tuple):
        where = origins.at(place_of(plan, index, "moves"))
        try:
            check_moves(phase.moves, phase.recipe, plan.budget)
        except PlanError as error:
            raise PlanError(f"{where}: moves: {error}") from error
        if phase.moves and isinstance(phase.until, Amount):
            raise PlanError(
                f"{where}: moves are named, but until is {phase.until}, which leaves them no room; leave until out, "
                "or set it to stable"
            )
    schedule = phase.recipe.get("schedule")
    if schedule in ("one-cycle", "multi-step") and plan.budget is None and not isinstance(phase.until, Amount):
        own: Place = ("phases", index) if plan.phases and "schedule" in plan.phases[index].recipe else ()
        raise PlanError(
            f"{origins.at((*own, 'recipe', 'schedule'))}: recipe.schedule is {schedule}, which needs a length; give "
            "a budget, or the phase an until"
        )


def judged_by_loss(plan: Plan) -> tuple[Plan, str | None]:
    """The plan as simulated learners can run it, which know nothing but a loss; and what is to be said of that."""
    names = dict.fromkeys(m for i in range(plan.phase_count) if (m := plan.phase(i).metric))
    others = [name for name in names if name not in METRICS or metric_named(name).name not in _OF_TOKENS]
    if not others:
        return plan, None
    phases = tuple(replace(p, metric=None if p.metric in others else p.metric) for p in plan.phases)
    metric = None if plan.metric in others else plan.metric
    # A tolerance is in the unit of the metric that it was given for.
    simulated = replace(plan, metric=metric, phases=phases, tolerance=None)
    return simulated, f"judged by loss, since simulated learners have no {' or '.join(others)}"
