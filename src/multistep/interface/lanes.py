"""Trials side by side on this machine: how many are possible, what each computes on, and what it is given to open."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multistep.core.values.plan import Plan
from multistep.engine.kept import is_kept
from multistep.engine.lanes.hands import Hands
from multistep.engine.lanes.processes import Place, ProcessHands
from multistep.engine.learner import Learner, Readiness, Workshop
from multistep.engine.rundir import RunDirectory
from multistep.errors import PlanError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Lanes:
    """What was asked for of trials side by side.

    `parallel` of them at once; None: as many as when the run was last at work, or one. `on` is the address of a Ray
    cluster, "ray" for one on this machine; None: processes of this machine. `shared` is the URL of a store that all
    nodes of the cluster reach, where they do not share the run's directory.
    """

    parallel: int | None = None
    on: str | None = None
    shared: str | None = None

    def require_possible(self, plan: Plan) -> None:
        """Before anything is written. Raises PlanError."""
        if self.on is None and self.shared is not None:
            raise PlanError("--shared names what the nodes of a cluster share; name the cluster with --on, too")
        if self.shared is not None and is_kept(plan):
            raise PlanError(
                "shared: data that were given as objects in Python lie in the run's directory, which the lanes do not "
                "see; write them to files that all nodes see, or name a folder that all share with out, without shared"
            )
        if self.on is not None and (self.parallel or 1) < 1:
            raise PlanError(f"--parallel is {self.parallel}; allowed: 1 or more")
        if self.on is None and self.parallel not in (None, 1):
            places(self.parallel)


ONE_AFTER_THE_OTHER = Lanes()


@dataclass
class TaskOpener:
    """Opens the phases of a plan in a lane's process. Implements engine.lanes.worker.Opener.

    `workshop` is that of a module or a Keras model, which lives in Python; else it follows from the plan.
    """

    plan: Plan
    workshop: Any = None
    start: Path | None = None  # where the first weights of such a module are kept
    _stack: ExitStack = field(default_factory=ExitStack, init=False)

    def __getstate__(self) -> tuple[Plan, Any, Path | None]:
        return self.plan, self.workshop, self.start

    def __setstate__(self, state: tuple[Plan, Any, Path | None]) -> None:
        self.plan, self.workshop, self.start = state
        self._stack = ExitStack()

    def open(
        self, plan: Plan, phase: int, should_stop: Callable[[], bool], begun: Mapping[str, Any], *, again: bool
    ) -> tuple[Learner, Readiness]:
        from multistep.tasks.begun import as_begun

        self.close()
        context: AbstractContextManager[None] = as_begun(**begun)
        self._stack.enter_context(context)
        workshop = self._workshop()
        if again and self.start is not None:
            workshop.keep_start(self.start, resuming=True)  # the first lane has written them
        learner, ready = workshop.open(plan, phase, should_stop)
        return learner, ready

    def start_in(self, folder: Path) -> None:
        """Implements engine.lanes.remote.Starts."""
        assert self.start is not None, "asked for where there are such weights"
        self.start = folder / self.start.name
        self._workshop().keep_start(self.start, resuming=self.start.exists())

    def close(self) -> None:
        """Choose by this machine again, not by the one on which the run began."""
        self._stack.close()

    def versions(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self._workshop().versions()
        return found

    def _workshop(self) -> Any:
        if self.workshop is None:
            from multistep.tasks import workshop_for

            self.workshop = workshop_for(self.plan)
        return self.workshop


def places(parallel: int) -> list[Place]:
    """What each of so many lanes computes on. Raises PlanError where this machine has not so many devices or cores."""
    if parallel < 1:
        raise PlanError(f"--parallel is {parallel}; allowed: 1 or more")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise PlanError("--parallel runs trials side by side, torchrun one model on several processes: use one of them")
    if os.environ.get("MULTISTEP_DEVICE", "").strip().lower() == "cpu":
        return _of_cores(parallel)  # without a second for torch
    from multistep.backends.torch.devices import pick_device

    device = pick_device()
    if device.type == "cpu":
        return _of_cores(parallel)
    if device.index is not None and parallel > 1:
        raise PlanError(f"--parallel is {parallel}, but the device is '{device}' alone; leave --device out")
    import torch

    count = torch.accelerator.device_count()
    if parallel > count:
        one = f"torch finds {count} device{'s' if count != 1 else ''} ({device.type}) here"
        raise PlanError(f"--parallel is {parallel}; {one}, so at most --parallel {count} is possible")
    if device.type != "cuda":
        return [Place(str(device), {}) for _ in range(parallel)]
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = seen if len(seen) >= count else [str(number) for number in range(count)]
    return [
        Place(f"cuda:{number}", {"CUDA_VISIBLE_DEVICES": names[number], "MULTISTEP_DEVICE": "cuda"})
        for number in range(parallel)
    ]


def _of_cores(parallel: int) -> list[Place]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if parallel > cores:
        raise PlanError(
            f"--parallel is {parallel}; this machine has {cores} core{'s' if cores != 1 else ''} for it, so at most "
            f"--parallel {cores} is possible"
        )
    share = max(1, cores // parallel)
    given = os.environ.get("OMP_NUM_THREADS", "")
    share = min(share, int(given)) if given.isdecimal() and int(given) else share
    words = f"cpu, {share} thread{'s' if share != 1 else ''}"
    return [Place(words, {**dict.fromkeys(THREADS, str(share)), "MULTISTEP_DEVICE": "cpu"}) for _ in range(parallel)]


def lanes_before(directory: RunDirectory, on: str | None = None) -> int:
    """In how many lanes a run went on last, as far as this machine has devices for them; 1 of a new one."""
    from multistep.core.values.events import LanesOpened
    from multistep.engine.journal import read_entries

    if not directory.exists:
        return 1
    found = [e.event for e in read_entries(directory.journal) if isinstance(e.event, LanesOpened)]
    wanted = len(found[-1].lanes) if found else 1
    while wanted > 1 and on is None:
        try:
            places(wanted)
        except PlanError:
            wanted -= 1
        else:
            break
    return max(1, wanted)


@contextmanager
def hands_for(
    plan: Plan,
    directory: RunDirectory,
    asked: Lanes,
    workshop: Workshop | None,
    *,
    may_measure: bool,
    should_stop: Callable[[], bool],
) -> Iterator[Hands | None]:
    """The hands of so many lanes while the run goes on; None for one here, which needs none. Raises PlanError."""
    parallel, on = asked.parallel or lanes_before(directory, asked.on), asked.on
    if parallel == 1 and on is None:
        yield None
        return
    where = places(parallel) if on is None else []
    start = directory.start if workshop is not None else None
    opener = _pickled(TaskOpener(plan, workshop, start))

    def begun() -> Mapping[str, Any]:
        return {
            "machine": directory.began_on,
            "moved": dict(directory.places),
            "speeds": directory.speeds,
            "may_measure": may_measure,
        }

    if on is not None:
        from multistep.engine.lanes.on_ray import RayHands

        address = None if on == "ray" else on
        hands = RayHands(
            address, parallel, opener, directory.folder, begun, should_stop, shared=asked.shared, start=start
        )
        with closing(hands):
            yield hands
        return
    with closing(ProcessHands(_offline(where), opener, begun, should_stop)) as processes:
        yield processes


def _offline(where: list[Place]) -> list[Place]:
    """With what this process has found out of the hub: that it gives no answer, or is not to be asked."""
    from multistep.tasks.reach import why_offline

    if not why_offline():
        return where
    return [Place(place.name, {**place.environment, "HF_HUB_OFFLINE": "1"}) for place in where]


def _pickled(opener: TaskOpener) -> bytes:
    """Raises PlanError for a module or data that no other process can have."""
    if opener.workshop is None:
        return pickle.dumps(opener)
    try:
        try:
            import cloudpickle  # takes along what a script or a notebook defines
        except ModuleNotFoundError:
            cloudpickle = pickle
        content: bytes = cloudpickle.dumps(opener)
        return content
    except Exception as error:
        raise PlanError(
            f"parallel: the model and the data of this call cannot be sent to other processes ({error}); define them "
            "in a module that can be imported, without open files, locks or lambdas (or pip install cloudpickle), or "
            "leave parallel out"
        ) from error
