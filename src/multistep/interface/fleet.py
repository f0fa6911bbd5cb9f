"""One model trained by several processes, which a launcher such as torchrun has started with the same command.

The first runs the engine, as if it were alone; the others do what its learner is asked to do (`backends.torch.many`).
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from multistep import errors
from multistep.core.values.plan import Plan
from multistep.engine.launched import place_of
from multistep.engine.learner import Learner, Readiness, Workshop
from multistep.engine.rundir import plan_hash
from multistep.engine.signals import Stop, stopping
from multistep.errors import DataError, MultistepError, PlanError, ProcessLost, Stopped
from multistep.interface.device import NAME

if TYPE_CHECKING:
    from multistep.backends.torch.many.group import Group

END, OPEN, MEET = "end", "open", "meet"
CHECKED = ("multistep", "torch", "python", "plan")  # of which all processes must have the same


@contextmanager
def joined(plan: Plan) -> Iterator[Group | None]:
    """Within, the processes of this run know each other; None where there is one. Raises PlanError where they differ.

    However the first leaves this, the others hear of it.
    """
    place = place_of()
    if place is None:
        yield None
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost connection is told here, in one line
    from multistep.backends.torch.many.group import AGAIN, Group

    group = Group(place)
    try:
        try:
            with _on_own_device(group, plan):
                yield group
        except BaseException as error:
            known = isinstance(error, MultistepError) and not isinstance(error, ProcessLost)
            if known and not group.leads:
                error.told = True  # type: ignore[attr-defined]
            elif known and not group.unanswered:
                _end(group, _as_sent(error))  # type: ignore[arg-type]
            elif not isinstance(error, ProcessLost):
                group.failed(error)
            raise
        if group.leads:
            _end(group, None)
    except ProcessLost as lost:
        told = ProcessLost(f"{lost}; {AGAIN}")
        told.told = not group.speaks(lost)
        raise told from lost
    finally:
        group.close()


def _end(group: Group, error: tuple[str, str, int] | None) -> None:
    """Have the others end, and wait until they have heard it: the store may end with this process."""
    with suppress(ProcessLost):
        group.tell(END, error)
        group.answers()


@contextmanager
def _on_own_device(group: Group, plan: Plan) -> Iterator[None]:
    """Within, each process computes on a device of its own, and has collectives with the others."""
    from multistep.backends.torch.devices import device_of

    about: dict[str, str] = {
        "multistep": version("multistep"),
        "torch": version("torch"),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "plan": plan_hash(plan),
    }
    device, wrong = None, None
    try:
        device = device_of(group.place.local_rank, group.place.local_size)
        about["device"] = device.type
    except PlanError as error:
        wrong = error
    _meet(group, wrong or about)
    assert device is not None, "else one has said why not"
    before = os.environ.get(NAME)
    os.environ[NAME] = str(device)  # what `pick_device` reads
    try:
        group.connect(device)
        yield
    finally:
        if before is None:
            os.environ.pop(NAME, None)
        else:
            os.environ[NAME] = before


def _meet(group: Group, about: dict[str, str] | PlanError) -> None:
    """Have all processes say what they are. The first raises PlanError where they differ, the others what it says."""
    if not group.leads:
        verb, _, _ = group.hear()
        assert verb == MEET, verb
        group.answer(about)
        verb, args, _ = group.hear()
        group.answer(None)
        if verb == END:
            _raise(args[0])
        return
    group.tell(MEET)
    answers = group.answers()
    if isinstance(about, MultistepError):
        raise about
    for rank, host, other in answers:
        if isinstance(other, MultistepError):
            raise type(other)(f"process {rank} on {host}: {other}")
        for what in (*CHECKED, "device"):
            if other[what] != about[what]:
                raise PlanError(
                    f"process {rank} on {host} has {what} {other[what]}, process 0 on {group.host} has {about[what]}; "
                    f"give all processes the same {what}"
                )
    group.tell(MEET)
    group.answers()


def absent(error: BaseException) -> bool:
    """Whether the first process says in this one's stead that it cannot take part, before it has met the others."""
    place = place_of()
    if place is None or place.rank == 0:
        return False
    from multistep.backends.torch.many.group import Group

    group = Group(place)
    try:
        verb, _, _ = group.hear()
        group.answer(error if isinstance(error, MultistepError) else PlanError(str(error)))
        while verb != END:
            verb, _, _ = group.hear()
            group.answer(None)
    except ProcessLost:
        pass  # the first has failed before it met anybody, and has said why
    finally:
        group.close()
    return True


# The first ----------------------------------------------------------------------------------------------


class LeadingWorkshop:
    """Opens phases in all processes, in the first of them first. Implements engine.learner.Workshop."""

    def __init__(self, own: Workshop, group: Group, stop: Stop) -> None:
        self._own, self._group, self._stop = own, group, stop

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        from multistep.backends.torch.devices import pick_device
        from multistep.backends.torch.many.leader import Leader
        from multistep.backends.torch.many.shards import OPTIMIZERS
        from multistep.tasks.begun import as_machine
        from multistep.tasks.reckoned import is_sharded

        learner, ready = self._own.open(plan, phase, should_stop)
        full = is_sharded(ready.facts.parameters, ready.recipe, pick_device(), self._group.place)
        _share(learner, self._group, self._stop, full)
        settled = replace(plan, model=plan.model.named(*ready.models)) if ready.models else plan
        # The others choose sizes as the first did, by its speed; what it has read lies in the cache of its machine.
        self._group.tell(OPEN, settled, phase, as_machine(), full)
        mine = _compared(ready)
        for rank, host, other in self._group.answers():
            if isinstance(other, MultistepError):
                raise type(other)(f"process {rank} on {host}: {other}")
            for what, value in mine.items():
                if other[what] != value:
                    kind = DataError if what == "data" else PlanError
                    raise kind(
                        f"process {rank} on {host} comes to other {what} than process 0 on {self._group.host} "
                        f"({_short(other[what])}, not {_short(value)}); have the same files on all machines, or a "
                        "folder that all of them read"
                    )
        facts = replace(ready.facts, device=f"{self._group.size} x {ready.facts.device}")
        if full:
            facts = replace(facts, optimizers=tuple(name for name in facts.optimizers if name in OPTIMIZERS))
        return Leader(learner, self._group, sharded=full), replace(ready, facts=facts)

    def versions(self) -> Mapping[str, str]:
        return {**self._own.versions(), "processes": str(self._group.size)}


def _compared(ready: Readiness) -> dict[str, Any]:
    """What all processes must come to. Sizes are compared by the parameters, which say it in one number."""
    guard = ready.guard.fingerprint if ready.guard else None
    return {"data": (ready.fingerprint, guard), "parameters": ready.facts.parameters, "recipe": ready.recipe}


def _short(value: object) -> str:
    said = str(value)
    return said if len(said) <= 60 else f"{said[:60]}..."


def _share(learner: Learner, group: Group, stop: Stop, full: bool) -> None:
    """Have a learner take its share, of the model too if `full`. Raises PlanError for one that cannot."""
    from multistep.backends.torch.devices import pick_device

    if not hasattr(learner, "sharing"):
        raise PlanError(
            f"{group.size} processes were started, but a model of Keras is trained by one; start it without a launcher"
        )
    from multistep.backends.torch.many.sharing import Sharing

    learner.sharing = Sharing(group, pick_device(), lambda: stop.number, stop.note, full=full)


# The others ---------------------------------------------------------------------------------------------


def follow(group: Group, workshop: Callable[[Plan], Workshop]) -> None:
    """Do what the first process says until the run ends. Raises what the run ended with."""
    from multistep.backends.torch.many import leader
    from multistep.tasks.begun import as_begun

    logging.getLogger("multistep").setLevel(logging.ERROR)  # the first one says what there is to say
    learner: Learner | None = None
    opened: Workshop | None = None
    with stopping() as stop:
        while True:
            verb, args, keywords = group.hear()
            if verb == END:
                group.answer(None)
                _raise(args[0])
                return
            if verb != OPEN:
                assert learner is not None, "phases are opened first"
                leader.follow(group, learner, verb, args, keywords)
                continue
            plan, phase, machine, full = args
            try:
                opened = opened or workshop(plan)
                with as_begun(machine["machine"], machine["moved"], machine["speeds"]):
                    learner, ready = opened.open(plan, phase, stop.asked)
                _share(learner, group, stop, full)
            except (MultistepError, OSError) as error:
                group.answer(error if isinstance(error, MultistepError) else DataError(str(error)))
            else:
                group.answer(_compared(ready))


def _as_sent(error: MultistepError) -> tuple[str, str, int]:
    return type(error).__name__, str(error), error.exit_code


def _raise(sent: tuple[str, str, int] | None) -> None:
    """Raise what the first process said that it ended with; it has told people of it."""
    if sent is None:
        return
    name, message, code = sent
    kind = getattr(errors, name, MultistepError)
    error: MultistepError = Stopped(message, code - 128) if kind is Stopped else kind(message)
    error.told = True
    raise error
