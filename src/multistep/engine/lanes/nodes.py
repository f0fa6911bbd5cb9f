"""Whether all nodes see the same place and have the same versions, before anything is trained."""

from __future__ import annotations

import os
import platform
import socket
import uuid
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from multistep.engine.lanes.store import Store
from multistep.errors import PlanError

START_SECONDS = 120.0  # for all lanes to get the resources that they ask for
COMPARED = ("multistep", "torch", "numpy", "transformers", "safetensors")  # whose versions must be the same


def versions_here() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in COMPARED:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def here() -> str:
    """Which node and process this is, for people."""
    return f"{socket.gethostname()}, process {os.getpid()}"


def sees(place: str, name: str, content: bytes, answer: str) -> tuple[str, str, dict[str, str]]:
    """By a lane: why it does not see what was written there, or ""; where it is; its versions. It writes an answer."""
    wrong = ""
    try:
        store = Store(place)
        if store.read(name) == content:
            store.write(answer, content)
        else:
            wrong = "sees another file there" if store.read(name) else "does not see what was written there"
    except PlanError as error:
        wrong = f"says: {error}"
    return wrong, here(), versions_here()


def require_same(ray: Any, actors: Sequence[Any], folder: Path, shared: str | None) -> None:
    """Have each actor read what is written here and answer there: in the run's folder, or in the store `shared`.

    Raises PlanError for a lane that cannot, or has other versions.
    """
    place = shared or str(folder)
    store, content = Store(place), uuid.uuid4().hex.encode()
    name = f".shared-{content[:8].decode()}"
    answers = [f"{name}-{lane + 1}" for lane in range(len(actors))]
    store.write(name, content)
    try:
        asked = [actor.sees.remote(place, name, content, answer) for actor, answer in zip(actors, answers, strict=True)]
        ready, late = ray.wait(asked, num_returns=len(asked), timeout=START_SECONDS)
        if late:
            raise PlanError(
                f"--parallel is {len(asked)}; after {START_SECONDS:.0f}s only {len(ready)} lanes have got the "
                "resources that they ask for: others use the cluster"
            )
        for lane, ref in enumerate(asked, start=1):
            try:
                wrong, where, versions = ray.get(ref)
            except ray.exceptions.RayError as error:
                first = next(iter(reversed(str(error).strip().splitlines())), type(error).__name__)
                raise PlanError(
                    f"lane {lane} could not be started ({first}); every node needs the multistep of this one"
                ) from error
            _require_versions(lane, where, versions)
            if wrong:
                raise PlanError(f"lane {lane} ({where}) {_not_seen(wrong, folder, shared)}")
        if missing := [lane for lane, answer in enumerate(answers, start=1) if store.read(answer) != content]:
            lanes = f"lane {missing[0]}" if len(missing) == 1 else f"lanes {', '.join(map(str, missing))}"
            option = "--shared URL" if shared else "--out DIR"
            raise PlanError(
                f"{place}: what {lanes} wrote there is not seen here; name a place that all nodes share with {option}"
            )
    finally:
        for file in (name, *answers):
            store.remove(file)


def _require_versions(lane: int, where: str, versions: dict[str, str]) -> None:
    ours = versions_here()
    if wrong := [k for k in ours if versions.get(k) != ours[k]]:
        told = ", ".join(f"{k} {ours[k]} here and {versions.get(k, 'none')} there" for k in wrong)
        raise PlanError(f"lane {lane} ({where}) has other versions: {told}; have the same on all nodes")


def _not_seen(wrong: str, folder: Path, shared: str | None) -> str:
    if wrong.startswith("says"):
        return wrong
    if shared:
        return f"{wrong}, in {shared}: name a place that all nodes reach with --shared URL"
    return (
        f"{wrong}, in {folder}: the run's directory must lie where all nodes see it under one path; name such a folder "
        "with --out DIR, or a store that all reach with --shared s3://BUCKET/FOLDER"
    )
