"""Lanes as actors of a Ray cluster, each with the CPUs or the GPU that it asks for.

The run, its journal and its directory are where `multistep` was started. Checkpoints go through the run's directory,
which every node must see under the same path, or through a store (`store`); evaluations come with the answers. Whether
all see the place is tried before anything is trained (`nodes`).
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from multistep.core.values.plan import Plan
from multistep.engine.asking import Ask
from multistep.engine.checkpoints import link_or_copy
from multistep.engine.lanes.alive import LIMIT, Patience, pulse_seconds
from multistep.engine.lanes.hands import Answer, HandLost, said
from multistep.engine.lanes.nodes import require_same
from multistep.engine.lanes.remote import Remote
from multistep.engine.lanes.store import Carrier, Parcel, Slot, Store
from multistep.errors import MultistepError, PlanError, RunFailed

POLL_SECONDS = 0.2
FILLING = ("save", "export", "write_baseline")  # verbs that are given a folder to write to
STORE = ".shared"  # in a run's directory: where its folders lie in the store, until they are removed


class RayHands:
    """Implements engine.lanes.hands.Hands."""

    def __init__(
        self,
        address: str | None,
        lanes: int,
        opener: bytes,
        folder: Path,
        begun: Callable[[], Mapping[str, Any]],
        should_stop: Callable[[], bool],
        *,
        cpus: float = 1.0,
        shared: str | None = None,
        start: Path | None = None,
    ) -> None:
        """`address` is ray://HOST:PORT or one that `ray.init` takes; None: a cluster on this machine. Each lane has so
        many `cpus`, and a GPU where the cluster has any. `shared` is the URL of a store that all reach, where they do
        not share a disk; `start` is where the first weights of a module that lives in Python are kept.

        Raises PlanError.
        """
        try:
            import ray
        except ImportError as error:
            raise PlanError('--on needs Ray; pip install "multistep[ray]"') from error
        self._patience = Patience()
        self._ray, self._opener, self._begun, self._should_stop = ray, opener, begun, should_stop
        self._own = not ray.is_initialized()
        if self._own:
            try:
                ray.init(address=address, log_to_driver=False, logging_level="error")
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                raise PlanError(f"--on {address}: no Ray cluster answers there ({_line(error)})") from error
        self._folder, self._cpus = folder.resolve(), cpus
        self._place = _place(self._folder, shared) if shared else ""
        self._gpus = 1.0 if ray.cluster_resources().get("GPU", 0.0) >= 1 else 0.0
        self._require_room(lanes)
        self._actors: list[Any] = [self._actor() for _ in range(lanes)]
        self._asked: dict[int, Any] = {}  # what each lane was asked last
        self._pulses: dict[int, Any] = {}  # and whether it gets on with that
        self._pulse_due = 0.0
        self._up = set[int]()  # lanes whose actors have been heard of
        self._none_since: float | None = None  # no lane has been up, though some were asked for something
        self._told_of_none = False
        self._opened = self._told = False
        self._carrier: Carrier | None = None
        self._start = start
        self._filling: dict[int, Path] = {}  # what each lane was asked to write
        try:
            require_same(ray, self._actors, self._folder, shared)
            if shared:
                self._carrier = Carrier(Store(self._place), self._folder / "checkpoints")
            self._up.update(range(lanes))
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> Sequence[str]:
        return [f"{'GPU' if self._gpus else f'{self._cpus:g} CPU'} by Ray" for _ in self._actors]

    def open(self, lane: int, plan: Plan, phase: int) -> None:
        if self._actors[lane] is None:
            self._actors[lane] = self._actor()
        opening = [plan, phase, self._begun(), self._opened]
        self._do(lane, "open", *opening, *([self._first_weights(lane)] if self._carrier else []))
        self._opened = True

    def begin(self, lane: int, ask: Ask) -> None:
        arguments = ask.arguments
        if self._carrier:
            fills = ask.verb in FILLING
            if fills and not self._filling:  # else a lane may be about to say that what it filled is there already
                self._carrier.sweep()
            if fills:
                self._filling[lane] = next(each for each in arguments if isinstance(each, Path))
            arguments = tuple(self._carrier.sent(arguments, fills=fills))
        self._do(lane, "ask", ask.verb, arguments, dict(ask.keywords))

    def _first_weights(self, lane: int) -> Parcel | Slot | None:
        """Those of a module that lives in Python, or that this lane is to write them; None where none are kept."""
        if self._carrier is None or self._start is None:
            return None
        if not self._start.exists():
            self._filling[lane] = self._start
            return Slot()
        with TemporaryDirectory(prefix="multistep-") as folder:
            link_or_copy(self._start, Path(folder) / self._start.name)
            return self._carrier.store.send(Path(folder))

    def _received(self, value: Any, to: Path) -> Any:
        assert self._carrier is not None, "asked for where there is one"
        if to != self._start:
            return self._carrier.had(value, to)
        with TemporaryDirectory(prefix=".start-", dir=to.parent) as folder:
            self._carrier.store.fetch(value.parcel, Path(folder))  # no checkpoint: it stays in the store
            for file in Path(folder).glob(to.name):
                file.replace(to)
        return value.value

    def versions(self) -> Mapping[str, str]:
        self._do(0, "versions")
        found: dict[str, str] = said(self.wait(0)[1])
        return found

    def wait(self, lane: int | None = None) -> tuple[int, Answer]:
        while True:
            with self._reached():
                asked = {ref: which for which, ref in self._asked.items() if lane in (None, which)}
                ready, _ = self._ray.wait(list(asked), num_returns=1, timeout=POLL_SECONDS)
                for ref in ready:
                    which = asked[ref]
                    del self._asked[which]
                    return which, self._answer(which, ref)
                self._feel()
            self._require_some()
            for which in self._patience.over():
                del self._asked[which]
                self._bury(which)
                return which, Answer(error=HandLost(self._patience.why))
            if self._should_stop() and not self._told:
                self._told = True
                for actor in filter(None, self._actors):
                    with self._reached():
                        actor.stop.remote()

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Raises RunFailed where a client's cluster does not answer any more."""
        try:
            yield
        except ConnectionError as error:
            raise RunFailed(
                f"the Ray cluster no longer answers ({_line(error)}); start the same command again once it does, to go "
                "on with the run"
            ) from error

    def _feel(self) -> None:
        """Ask those at work for signs of life. Who waits for resources is not up yet, and gives none."""
        if self._pulses:
            ready, _ = self._ray.wait(list(self._pulses.values()), num_returns=len(self._pulses), timeout=0)
            for lane in [each for each, ref in self._pulses.items() if ref in ready]:
                with suppress(self._ray.exceptions.RayError):  # one that is lost is found by its answer
                    if self._ray.get(self._pulses[lane]) or lane not in self._up:
                        self._up.add(lane)
                        if lane in self._asked:
                            self._patience.begins(lane)
                del self._pulses[lane]
        if (now := time.monotonic()) >= self._pulse_due:
            self._pulse_due = now + pulse_seconds()
            for lane in self._asked.keys() - self._pulses.keys():
                self._pulses[lane] = self._actors[lane].alive.remote()

    def _require_some(self) -> None:
        """Where no lane has its resources, say so, and raise RunFailed after the limit: a run that only waits spends
        its budget on nothing. A cluster may be starting machines meanwhile.
        """
        if self._up:
            self._none_since, self._told_of_none = None, False
            return
        now = time.monotonic()
        self._none_since = self._none_since or now
        waited, limit = now - self._none_since, self._patience.limit
        none = f"no lane has got its {self.names[0].removesuffix(' by Ray')} from the cluster for"
        if waited > limit:
            raise RunFailed(f"{none} {limit:g} s; start the same command again once it has room, to go on with the run")
        if waited > limit / 10 and not self._told_of_none:
            self._told_of_none = True
            logging.getLogger("multistep").warning(f"{none} {waited:.0f} s; waiting for {limit:g} s")

    def close(self) -> None:
        for actor in filter(None, self._actors):
            with suppress(Exception):
                if self._ray.is_initialized():  # else it would look for another cluster
                    self._ray.kill(actor)
        if self._carrier:
            self._carrier.store.clear()
        if self._place:
            (self._folder / STORE).unlink(missing_ok=True)
        if self._own:
            self._ray.shutdown()

    def _actor(self) -> Any:
        threads = str(max(1, int(self._cpus)))
        environment = {"OMP_NUM_THREADS": threads, **({} if self._gpus else {"MULTISTEP_DEVICE": "cpu"})}
        environment |= {LIMIT: f"{self._patience.limit}"}
        made = self._ray.remote(Remote).options(
            num_cpus=self._cpus, num_gpus=self._gpus, max_concurrency=3, runtime_env={"env_vars": environment}
        )
        return made.remote(self._opener, environment, str(Path.cwd()), self._place or None)

    def _do(self, lane: int, what: str, *rest: Any) -> None:
        with self._reached():
            self._asked[lane] = self._actors[lane].do.remote(what, *rest)
        if lane in self._up:
            self._patience.begins(lane)

    def _bury(self, lane: int) -> None:
        self._patience.ends(lane)
        self._up.discard(lane)
        self._pulses.pop(lane, None)
        self._filling.pop(lane, None)
        with suppress(Exception):
            self._ray.kill(self._actors[lane])
        self._actors[lane] = None

    def _answer(self, lane: int, ref: Any) -> Answer:
        self._patience.ends(lane)
        try:
            answer = Answer(*self._ray.get(ref))
        except self._ray.exceptions.RayError as error:
            self._bury(lane)
            return Answer(error=HandLost(f"{type(error).__name__}: {_line(error)}"))
        self._up.add(lane)
        to = self._filling.pop(lane, None)
        if to is None or answer.error:
            return answer
        try:
            return replace(answer, value=self._received(answer.value, to))
        except MultistepError as error:
            return replace(answer, error=error)

    def _require_room(self, lanes: int) -> None:
        """Raises PlanError for more lanes than the cluster has devices or cores for."""
        known = self._ray.cluster_resources()
        room = int(known.get("GPU", 0.0)) if self._gpus else int(known.get("CPU", 0.0) / self._cpus)
        if lanes > room:
            has = f"{room} GPU{'s' if room != 1 else ''}" if self._gpus else f"{known.get('CPU', 0.0):g} CPUs"
            if self._own:
                self._ray.shutdown()
            raise PlanError(f"--parallel is {lanes}; the cluster has {has}, so at most --parallel {room} is possible")


def _line(error: Exception) -> str:
    """The first line of what it says, with the last error of a traceback that it announces."""
    first, *more = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    cause = next((line for line in reversed(more) if "Error" in line), "")
    return f"{first} {cause}" if first.endswith(":") and cause else first


def _place(folder: Path, shared: str) -> str:
    """Where a run's folders lie in the store: where they did, if it was killed before it could remove them."""
    note = folder / STORE
    before = note.read_text(encoding="utf-8").strip() if note.exists() else ""
    if before.rpartition("/")[0] == shared.rstrip("/"):
        return before
    place = f"{shared.rstrip('/')}/multistep-{uuid.uuid4().hex[:12]}"
    note.write_text(f"{place}\n", encoding="utf-8")
    return place
