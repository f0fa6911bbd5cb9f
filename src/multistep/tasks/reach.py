"""Names of models and data sets that are not here: told apart from misspelt ones, and asked of the hub for seconds.

Whoever names something gets an answer soon: what is misspelt is said before the hub is asked; the hub is asked once,
for all names together; where it does not answer, what its cache holds is used, and nobody waits for it again.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from multistep.core.values.plan import DataSpec, Plan
from multistep.core.values.tasks import BUILT_IN, OWN_MODEL, TASKS
from multistep.engine.kept import PREFIX
from multistep.engine.names import is_here, may_be_hub_id, misspelt, nearest_here
from multistep.errors import DataError, PlanError, UserError
from multistep.tasks.hub import first_line, refused_by_hub
from multistep.tasks.notes import say

ANSWER_SECONDS = 3.0  # for the hub to answer: with starting Python, whoever waits in vain waits five seconds
IN_MEMORY = "in memory"  # what the data of a plan are called that are Python values
Kind = Literal["model", "data"]

_offline_because = ""  # what made this process stop asking the hub, beside HF_HUB_OFFLINE


@dataclass(frozen=True)
class Named:
    """A name that is not of anything here, and what may have been meant. `known` are names that need no hub."""

    name: str
    kind: Kind
    known: Sequence[str] = ()

    def error(self, said: str) -> UserError:
        return (PlanError if self.kind == "model" else DataError)(said)


def require_here(named: Named) -> bool:
    """Whether a name may be asked of the hub. Raises PlanError or DataError, with what may be meant, where not."""
    if wrong := misspelt(named.name, named.known):
        raise named.error(f"{named.kind}: {wrong}")
    return True


# Asking ---------------------------------------------------------------------------------------------


def why_offline() -> str:
    """Why the hub is not asked; "" where it is."""
    from huggingface_hub import constants

    if _offline_because:
        return _offline_because
    return "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else ""


@contextmanager
def within_reach(names: Iterable[Named], *, begun: bool = False) -> Iterator[None]:
    """Require that each name is here, or may be had from the hub or its cache; where the hub does not answer in
    ANSWER_SECONDS, it is not asked again while this is open.

    `begun`: what a run reads that goes on may be gone, if it needs it no more. Raises PlanError or DataError.
    """
    wanted = [named for named in dict.fromkeys(names) if not is_here(named.name) and named.name not in named.known]
    asked = [named for named in wanted if (may_be_hub_id(named.name) if begun else require_here(named))]
    if not asked or (begun and why_offline()):
        yield
        return
    if not why_offline():
        answers = _ask(asked)
        for named, error in answers.items():
            if not begun and error is not None and (why := refused_by_hub(error, named.kind)):
                raise named.error(f"{named.kind} '{named.name}': not on this machine, and {why}.{_hint(named)}")
        failed = {named: first_line(error) for named, error in answers.items() if error is not None}
        if failed:
            reason = f"the hub cannot be asked ({next(iter(failed.values()))})"
            if not begun:
                _require_cached(asked, reason)
            say([f"{reason}; what its cache holds of {', '.join(n.name for n in asked)} is used"])
            with _offline(reason):
                yield
            return
    else:
        _require_cached(asked, why_offline())
    yield


def _require_cached(asked: Iterable[Named], reason: str) -> None:
    for named in asked:
        if not is_cached(named):
            kind = "" if named.kind == "model" else "--repo-type dataset "
            raise named.error(
                f"{named.kind} '{named.name}': not on this machine, and {reason}; check the name and the network, or "
                f"get it where there is one: `hf download {kind}{named.name.partition(':')[0]}`.{_hint(named)}"
            )


def _hint(named: Named) -> str:
    close = nearest_here(named.name, named.known)
    return f" Did you mean '{close}'?" if close else ""


def is_cached(named: Named) -> bool:
    """Whether the hub's caches on this machine hold something of that name."""
    from huggingface_hub import constants

    name = named.name.partition(":")[0]
    kind = "models" if named.kind == "model" else "datasets"
    folders = [Path(constants.HF_HUB_CACHE) / f"{kind}--{name.replace('/', '--')}"]
    if named.kind == "data":
        home = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
        folders.append(home / name.replace("/", "___"))
    return any(folder.is_dir() for folder in folders)


def _ask(asked: Sequence[Named]) -> Mapping[Named, Exception | None]:
    """What the hub says of each name, None for yes; all are asked at once and together wait ANSWER_SECONDS."""
    from huggingface_hub import HfApi, constants

    api = HfApi(endpoint=constants.ENDPOINT)
    found: dict[Named, Exception | None] = {}
    late = TimeoutError(f"no answer within {ANSWER_SECONDS:.0f}s")

    def ask(named: Named, question: Callable[..., Any]) -> None:
        try:
            question(named.name.partition(":")[0], timeout=ANSWER_SECONDS)
            found[named] = None
        except Exception as error:  # of httpx, of the hub, of a proxy: whoever asks is told
            # The library's own limit, which is as long, is the same to whoever waits.
            found[named] = late if "timed out" in str(error).lower() else error

    threads = []
    for named in asked:
        question = api.model_info if named.kind == "model" else api.dataset_info
        # A name that cannot be looked up may take longer than any time limit of the library.
        threads.append(threading.Thread(target=ask, args=(named, question), daemon=True))
        threads[-1].start()
    ends = time.monotonic() + ANSWER_SECONDS
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    return {named: found.get(named, late) for named in asked}


@contextmanager
def _offline(reason: str) -> Iterator[None]:
    """Have no library of this process ask the hub while this is open; reading its cache then takes no time."""
    global _offline_because
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, os.environ.get("HF_HUB_OFFLINE")
    constants.HF_HUB_OFFLINE, os.environ["HF_HUB_OFFLINE"] = True, "1"
    if "datasets" in sys.modules:  # which copied it when it was imported
        import datasets

        datasets.config.HF_HUB_OFFLINE = True
    _offline_because = reason
    try:
        yield
    finally:
        _offline_because = ""
        constants.HF_HUB_OFFLINE = before[0]
        os.environ.pop("HF_HUB_OFFLINE")
        if before[1] is not None:
            os.environ["HF_HUB_OFFLINE"] = before[1]
        if "datasets" in sys.modules:
            import datasets

            datasets.config.HF_HUB_OFFLINE = before[0]


# Of whom --------------------------------------------------------------------------------------------


def names_of_plan(plan: Plan) -> Iterator[Named]:
    """Every name in a plan that may be the hub's."""
    for index in range(plan.phase_count):
        phase = plan.phase(index)
        task = TASKS[str(phase.task)]
        if task.name == OWN_MODEL:
            continue  # whose model and data are Python values
        for data in (phase.data, phase.guard.data if phase.guard else None):
            yield from names_of_data(data)
        yield from (Named(name, "model", ("auto", "scratch", *task.presets)) for name in plan.model.names)


def names_of_data(data: DataSpec | None) -> Iterator[Named]:
    sources = (data.source, data.train, data.validation, data.test) if data else ()
    given = (source for source in sources if source and not source.startswith((IN_MEMORY, PREFIX)))
    yield from (Named(source, "data", BUILT_IN) for source in given)
