"""The processes that train one model together: what the first tells the others, their answers, and who is lost.

They meet at the store of the launcher (`torch.distributed.rendezvous`). Numbers of the model go by collectives
(`sharing`), all else by entries of the store: what is to be done, one entry each, and one answer of each process. Each
process counts up an entry of its own every second, so that whoever waits in vain can tell who is at fault.
"""

from __future__ import annotations

import functools
import itertools
import os
import pickle
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # which is exported at run time
from torch.distributed.rendezvous import rendezvous

from multistep.engine.launched import Place
from multistep.engine.patience import seconds_given
from multistep.errors import PlanError, ProcessLost

LIMIT_SECONDS = 600.0  # that a process may keep the others waiting within a step; torch's own limit for NCCL
LIMIT = "MULTISTEP_GROUP_SECONDS"  # in the environment: another limit
PULSE_SECONDS = 1.0
SILENT_PULSES = 3.0  # after so many without a sign of life a process is lost
AGAIN = "start the same command again to go on with the run"
FIRST_PAUSE, MOST_PAUSE = 0.0005, 0.05  # seconds between looks at the store


def limit_seconds() -> float:
    """Raises PlanError for a limit that is no number of seconds."""
    return seconds_given(LIMIT, LIMIT_SECONDS)


@functools.cache
def _store() -> Any:
    """The launcher's, which is there once in a process."""
    store, _, _ = next(iter(rendezvous("env://", timeout=timedelta(seconds=limit_seconds()))))
    return store


def _meeting(store: Any, rank: int, size: int, limit: float) -> str:
    """A name that the processes of this run have in common, and nobody before them.

    The store may hold what others have left: those of another run, or of a try that the launcher starts again. So each
    comes with a number that nobody else has, and the first one answers to that. Raises ProcessLost.
    """
    began, mine, pause = time.monotonic(), uuid.uuid4().hex, FIRST_PAUSE
    coming = list(range(1, size))
    answered: set[bytes] = set()
    if rank:
        store.set(f"multistep/comes/{rank}", mine)
    while coming if rank == 0 else not store.check([f"multistep/answer/{mine}"]):
        if time.monotonic() - began > limit:
            missing = f"{', '.join(map(str, coming))} of {size}" if rank == 0 else "0"
            raise ProcessLost(
                f"process {missing} did not come within {limit:.0f} s; {size} were to be started, with the same command"
            )
        for other in coming if rank == 0 else ():
            key = f"multistep/comes/{other}"
            if store.check([key]) and (number := store.get(key)) not in answered:
                store.set(f"multistep/answer/{number.decode()}", mine)
                answered.add(number)
        if rank == 0:
            coming = [other for other in coming if not store.check([f"multistep/{mine}/here/{other}"])]
        time.sleep(pause)
        pause = min(1.5 * pause, MOST_PAUSE)
    if rank == 0:
        return mine
    name = str(store.get(f"multistep/answer/{mine}").decode())
    store.set(f"multistep/{name}/here/{rank}", "")
    return name


class Group:
    """All processes of a run as one of them sees them. To be closed."""

    def __init__(self, place: Place) -> None:
        """Raises ProcessLost where the others are not found."""
        self.rank, self.size, self.place = place.rank, place.size, place
        self.host = socket.gethostname()
        self._limit = limit_seconds()
        try:
            base = _store()
            name = f"multistep/{_meeting(base, self.rank, self.size, self._limit)}"
            self._store = PrefixStore(name, base)
            # By a connection of its own: a thread that waits on one keeps it to itself.
            self._pulses = PrefixStore(f"{name}/alive", base.clone())
        except (dist.DistError, RuntimeError) as error:
            raise ProcessLost(
                f"process {self.rank} of {self.size} on {self.host} did not find the others at "
                f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} within {self._limit:.0f} s ({error})"
            ) from error
        self._told = 0
        self.meetings = 0  # so far, of processes that take steps alone in between
        self._listened = 0.0  # when it was last looked whether somebody waits at the next one
        self.unanswered = False  # whether the others may be at work on what they were told last
        self._ended = threading.Event()
        self._heard = time.monotonic()  # when the store last answered
        self._pulse = threading.Thread(target=self._beat, daemon=True, name="alive")
        self._pulse.start()
        threading.Thread(target=self._watch, daemon=True, name="heard").start()

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def others(self) -> range:
        """All but the first."""
        return range(1, self.size)

    # Signs of life ----------------------------------------------------------------------------------

    def _beat(self) -> None:
        for beat in itertools.count():
            with suppress(dist.DistError, RuntimeError):  # whoever waits for something notices, and says so
                self._pulses.set(str(self.rank), str(beat))
                self._pulses.check([str(self.rank)])  # which is answered, unlike what is set
            self._heard = time.monotonic()
            if self._ended.wait(PULSE_SECONDS):
                return

    def _watch(self) -> None:
        """End this process where the store does not answer for longer than the limit.

        torch waits for an answer as long as the connection stands, which it does for a quarter of an hour on a machine
        that is cut off from the network; and what waits so in torch cannot be interrupted otherwise.
        """
        while not self._ended.wait(PULSE_SECONDS):
            if time.monotonic() - self._heard > self._limit + SILENT_PULSES * PULSE_SECONDS:
                lost = f"process {self.rank} of {self.size} on {self.host} is cut off from the others; {AGAIN}"
                os.write(2, f"multistep: {lost}\n".encode())
                os._exit(1)

    def _silent(self, ranks: Iterable[int]) -> list[int]:
        """Those of these processes that give no sign of life; takes some seconds."""
        wanted = [rank for rank in ranks if rank != self.rank]

        def pulses() -> list[bytes]:
            # Who has not given one yet is not waited for.
            return [self._pulses.get(str(r)) if self._pulses.check([str(r)]) else b"" for r in wanted]

        before = pulses()
        time.sleep(SILENT_PULSES * PULSE_SECONDS)
        return [rank for rank, one, other in zip(wanted, before, pulses(), strict=True) if one == other]

    def lost(self, why: BaseException | None = None) -> ProcessLost:
        """What to raise where the others do not do what they should: by what they left in the store, or by silence."""
        try:
            for rank in range(self.size):
                if self._store.check([f"failed/{rank}"]):
                    host, said = pickle.loads(self._store.get(f"failed/{rank}"))
                    return ProcessLost(f"process {rank} of {self.size} ({host}) failed: {said}")
            silent = self._silent(range(self.size))
        except (dist.DistError, RuntimeError):
            silent = [0]  # where the store is
        if silent:
            names, one = " and ".join(map(str, silent)), len(silent) == 1
            return ProcessLost(
                f"process{'' if one else 'es'} {names} of {self.size} no longer answer{'s' if one else ''}: killed, "
                "hanging, or on a machine that is gone"
            )
        cause = f" ({str(why).splitlines()[0]})" if why else ""
        return ProcessLost(f"the {self.size} processes lost touch with each other{cause}")

    def speaks(self, lost: ProcessLost) -> bool:
        """Whether it is this process that says so: the first that is left."""
        if self.leads:
            return True
        with suppress(dist.DistError, RuntimeError):
            if self._store.check(["failed/0"]):
                return False
        return "process 0 of" in str(lost) or "processes 0 and" in str(lost)

    def failed(self, error: BaseException) -> None:
        """Tell the others that this process goes on no more; they wait for it in the middle of something."""
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        with suppress(dist.DistError, RuntimeError):
            self._put(f"failed/{self.rank}", (self.host, said))

    # What is told, and answered -----------------------------------------------------------------------

    def _read(self, keys: Sequence[str], of: Iterable[int]) -> list[Any]:
        """Entries by these processes, waited for as long as they give signs of life. Raises ProcessLost."""
        pause, looked = FIRST_PAUSE, time.monotonic()
        try:
            # Not by the store's own wait, which writes two lines of warnings whenever its time is up.
            while not self._store.check(list(keys)):
                time.sleep(pause)
                pause = min(1.5 * pause, MOST_PAUSE)
                if time.monotonic() - looked > self._limit:
                    missing = [rank for key, rank in zip(keys, of, strict=True) if not self._store.check([key])]
                    if self._silent(missing):
                        raise self.lost()
                    looked = time.monotonic()
                if pause == MOST_PAUSE and self._store.check(["failed/0"]):
                    raise self.lost()
            return [pickle.loads(self._store.get(key)) for key in keys]
        except (dist.DistError, RuntimeError) as error:
            raise self.lost(error) from error

    def _put(self, key: str, value: object) -> None:
        self._store.set(key, pickle.dumps(value))  # type: ignore[arg-type]  # which takes bytes as well

    def tell(self, verb: str, *args: Any, **keywords: Any) -> None:
        """By the first: have the others do something. Each is to `answer`."""
        self._told += 1
        self.unanswered = True
        try:
            self._put(f"verb/{self._told}", (verb, args, keywords))
            if self._told > 2:  # which all have answered
                self._store.delete_key(f"verb/{self._told - 2}")
        except (dist.DistError, RuntimeError) as error:
            raise self.lost(error) from error

    def hear(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """By the others: what is to be done next."""
        self._told += 1
        found: tuple[str, tuple[Any, ...], dict[str, Any]] = self._read([f"verb/{self._told}"], [0])[0]
        return found

    def answer(self, found: object) -> None:
        """By the others: what came of it; an exception where it could not be done."""
        with suppress(dist.DistError, RuntimeError):  # who waits for it says so
            self._put(f"done/{self._told}/{self.rank}", (self.host, found))

    def answers(self) -> list[tuple[int, str, Any]]:
        """By the first: rank, machine and answer of all others, once each has given it."""
        keys = [f"done/{self._told}/{rank}" for rank in self.others]
        found = self._read(keys, self.others)
        self.unanswered = False
        with suppress(dist.DistError, RuntimeError):  # who needs the store next says what is wrong with it
            for key in keys:
                self._store.delete_key(key)
        return [(rank, host, answer) for rank, (host, answer) in zip(self.others, found, strict=True)]

    def call(self) -> None:
        """Have the others come to the next meeting before it is time."""
        with suppress(dist.DistError, RuntimeError):  # who waits there says so
            self._store.set(f"call/{self.meetings}", "")

    def called(self) -> bool:
        """Whether another process has called; looked for once a second, so that it costs nothing."""
        if time.monotonic() - self._listened < PULSE_SECONDS:
            return False
        self._listened = time.monotonic()
        try:
            return bool(self._store.check([f"call/{self.meetings}"]))
        except (dist.DistError, RuntimeError) as error:
            raise self.lost(error) from error

    def connect(self, device: torch.device) -> None:
        """Have collectives; `device` is where the tensors of this process lie."""
        if dist.is_initialized():
            raise PlanError("torch.distributed is initialised already, which multistep does itself; leave that out")
        with self.collective():
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=PrefixStore("collectives", self._store),
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=self._limit),
                device_id=device if device.type == "cuda" else None,
            )

    def collective(self) -> _Collective:
        """Within, what collectives raise is told as ProcessLost."""
        return _Collective(self.lost)

    def close(self) -> None:
        self._ended.set()
        if dist.is_initialized():
            with suppress(dist.DistError, RuntimeError):
                dist.destroy_process_group()
        self._pulse.join(2 * PULSE_SECONDS)


class _Collective:
    """Raises ProcessLost where collectives fail: they say who closed which connection, and not why."""

    def __init__(self, lost: Callable[[BaseException], ProcessLost]) -> None:
        self._lost = lost

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        told = isinstance(error, dist.DistError) or type(error) is RuntimeError
        if error is not None and told:
            raise self._lost(error) from error
