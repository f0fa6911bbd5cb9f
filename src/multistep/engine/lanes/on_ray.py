"""Lanes as actors of a Ray cluster, each with the CPUs or the GPU that it asks for.

The run, its journal and its directory are where `multistep` was started; checkpoints and tables go through the run's
directory, which every node must see under the same path. That is tried before anything is trained: each lane reads
what was written here, and what it writes must be seen here.
"""

from __future__ import annotations

import os
import pickle
import platform
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from multistep.core.values.plan import Plan
from multistep.engine.asking import Ask
from multistep.engine.lanes.alive import LIMIT, Patience, pulse_seconds
from multistep.engine.lanes.hands import Answer, HandLost, said
from multistep.engine.lanes.worker import Doing, sendable
from multistep.errors import PlanError

POLL_SECONDS = 0.2
START_SECONDS = 120.0  # for all lanes to get the resources that they ask for
COMPARED = ("multistep", "torch", "numpy", "transformers", "safetensors")  # whose versions must be the same


class Remote:
    """What runs in an actor: `do` for one thing after the other, the others beside it."""

    def __init__(self, opener: bytes, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        self._doing = Doing(pickle.loads(opener))

    def do(self, what: str, *rest: Any) -> tuple[Any, Exception | None, float]:
        began = time.perf_counter()
        try:
            value, error = self._doing.answer(what, list(rest)), None
        except Exception as met:
            value, error = None, sendable(met)
        return value, error, time.perf_counter() - began

    def stop(self) -> None:
        self._doing.signs.stop.set()

    def alive(self) -> bool:
        """Whether it gets on with what it does, since this was asked last."""
        return self._doing.signs.seen()

    def sees(self, written: str, content: str) -> tuple[bool, str, dict[str, str]]:
        """Whether a file has that content here, where that is, which versions there are; an answer lies beside it."""
        path = Path(written)
        seen = path.is_file() and path.read_text(encoding="utf-8") == content
        if seen:
            path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}").write_text(content, encoding="utf-8")
        return seen, f"{socket.gethostname()}, process {os.getpid()}", versions_here()


def versions_here() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in COMPARED:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


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
    ) -> None:
        """`address` is ray://HOST:PORT or one that `ray.init` takes; None: a cluster on this machine. Each lane has so
        many `cpus`, and a GPU where the cluster has any. Raises PlanError.
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
                raise PlanError(f"--on {address}: no Ray cluster answers there ({error})") from error
        self._folder, self._cpus = folder.resolve(), cpus
        self._gpus = 1.0 if ray.cluster_resources().get("GPU", 0.0) >= 1 else 0.0
        self._require_room(lanes)
        self._actors: list[Any] = [self._actor() for _ in range(lanes)]
        self._asked: dict[int, Any] = {}  # what each lane was asked last
        self._pulses: dict[int, Any] = {}  # and whether it gets on with that
        self._pulse_due = 0.0
        self._up = set[int]()  # lanes whose actors have been heard of
        self._opened = self._told = False
        self._where = [""] * lanes
        try:
            self._require_shared()
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
        self._do(lane, "open", plan, phase, self._begun(), self._opened)
        self._opened = True

    def begin(self, lane: int, ask: Ask) -> None:
        self._do(lane, "ask", ask.verb, ask.arguments, dict(ask.keywords))

    def versions(self) -> Mapping[str, str]:
        self._do(0, "versions")
        found: dict[str, str] = said(self.wait(0)[1])
        return found

    def wait(self, lane: int | None = None) -> tuple[int, Answer]:
        while True:
            asked = {ref: which for which, ref in self._asked.items() if lane in (None, which)}
            ready, _ = self._ray.wait(list(asked), num_returns=1, timeout=POLL_SECONDS)
            for ref in ready:
                which = asked[ref]
                del self._asked[which]
                return which, self._answer(which, ref)
            self._feel()
            for which in self._patience.over():
                del self._asked[which]
                self._bury(which)
                return which, Answer(error=HandLost(self._patience.why))
            if self._should_stop() and not self._told:
                self._told = True
                for actor in filter(None, self._actors):
                    actor.stop.remote()

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

    def close(self) -> None:
        for actor in filter(None, self._actors):
            with suppress(Exception):
                self._ray.kill(actor)
        if self._own:
            self._ray.shutdown()

    def _actor(self) -> Any:
        threads = str(max(1, int(self._cpus)))
        environment = {"OMP_NUM_THREADS": threads, **({} if self._gpus else {"MULTISTEP_DEVICE": "cpu"})}
        environment |= {LIMIT: f"{self._patience.limit}"}
        made = self._ray.remote(Remote).options(
            num_cpus=self._cpus, num_gpus=self._gpus, max_concurrency=3, runtime_env={"env_vars": environment}
        )
        return made.remote(self._opener, environment)

    def _do(self, lane: int, what: str, *rest: Any) -> None:
        self._asked[lane] = self._actors[lane].do.remote(what, *rest)
        if lane in self._up:
            self._patience.begins(lane)

    def _bury(self, lane: int) -> None:
        self._patience.ends(lane)
        self._up.discard(lane)
        self._pulses.pop(lane, None)
        with suppress(Exception):
            self._ray.kill(self._actors[lane])
        self._actors[lane] = None

    def _answer(self, lane: int, ref: Any) -> Answer:
        self._patience.ends(lane)
        try:
            answer = Answer(*self._ray.get(ref))
        except self._ray.exceptions.RayError as error:
            self._bury(lane)
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            return Answer(error=HandLost(f"{type(error).__name__}: {first}"))
        self._up.add(lane)
        return answer

    def _require_room(self, lanes: int) -> None:
        """Raises PlanError for more lanes than the cluster has devices or cores for."""
        known = self._ray.cluster_resources()
        room = int(known.get("GPU", 0.0)) if self._gpus else int(known.get("CPU", 0.0) / self._cpus)
        if lanes > room:
            has = f"{room} GPU{'s' if room != 1 else ''}" if self._gpus else f"{known.get('CPU', 0.0):g} CPUs"
            if self._own:
                self._ray.shutdown()
            raise PlanError(f"--parallel is {lanes}; the cluster has {has}, so at most --parallel {room} is possible")

    def _require_shared(self) -> None:
        """Raises PlanError for a node that does not see the run's directory, or has other versions."""
        content = uuid.uuid4().hex
        path = self._folder / f".shared-{content[:8]}"
        path.write_text(content, encoding="utf-8")
        try:
            asked = [actor.sees.remote(str(path), content) for actor in self._actors]
            ready, late = self._ray.wait(asked, num_returns=len(asked), timeout=START_SECONDS)
            if late:
                raise PlanError(
                    f"--parallel is {len(asked)}; after {START_SECONDS:.0f}s only {len(ready)} lanes have got the "
                    "resources that they ask for: others use the cluster"
                )
            answers = self._ray.get(asked)
            for lane, (seen, where, versions) in enumerate(answers, start=1):
                if not seen:
                    raise PlanError(
                        f"lane {lane} ({where}) does not see {self._folder}, where a file was written here: the run's "
                        "directory must lie where all nodes see it under one path; name such a folder with --out DIR"
                    )
                ours = versions_here()
                if wrong := [k for k in ours if versions.get(k) != ours[k]]:
                    told = ", ".join(f"{k} {ours[k]} here and {versions.get(k, 'none')} there" for k in wrong)
                    raise PlanError(f"lane {lane} ({where}) has other versions: {told}; have the same on all nodes")
            written = list(self._folder.glob(f"{path.name}.*"))
            if len(written) < len(answers):
                raise PlanError(
                    f"{self._folder}: what lanes write there is not seen here ({len(written)} of {len(answers)}); name "
                    "a folder that all nodes share with --out DIR"
                )
        finally:
            for file in (path, *self._folder.glob(f"{path.name}.*")):
                file.unlink(missing_ok=True)
