"""A run directory: what lies where, who may write, and the tables of the evaluations."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from multistep.core.evidence.metric import Evaluation, Floats
from multistep.core.values.plan import Plan
from multistep.core.values.tasks import OWN_MODEL
from multistep.engine.checkpoints import link_or_copy, sync
from multistep.engine.kept import FOLDER
from multistep.engine.plain import plain, to_json
from multistep.engine.planfile import read_plan, to_yaml
from multistep.errors import PlanError, RunDirectoryError, RunFailed

START = "start.safetensors"  # the first weights of a model that lives in the user's code
# What may stand in a folder where a run begins: a plan, which is left as it is, and what a kill leaves at once.
FREE_NAMES = ("plan.yaml", ".plan.yaml.new", ".lock")
LATER: Mapping[str, object] = {  # keys of plans, as left open
    "candidates": [],
    "train_on": "assistant",
    "guard": None,
    "delimiter": None,
    "header": None,
    "encoding": None,
    "root": None,
    "class_weights": "none",
    "validation_share": None,
    "test_share": None,
}
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def plan_hash(plan: Plan) -> str:
    """Twelve hexadecimal digits that tell plans apart; the same plan gives the same ones anywhere.

    What is kept once a run has ended says nothing of how it runs, and may be asked for later.
    """
    content = plain(plan)
    del content["keep"]
    return hashlib.blake2b(to_json(_without_later(content)).encode(), digest_size=6).hexdigest()


def _without_later(content: Any) -> Any:
    """Without keys that came later and say nothing new, so that what was begun before them can be resumed."""
    if isinstance(content, dict):
        known = {key: value for key, value in content.items() if not (key in LATER and value == LATER[key])}
        return {key: _without_later(value) for key, value in known.items()}
    return [_without_later(item) for item in content] if isinstance(content, list | tuple) else content


def default_folder(plan: Plan) -> Path:
    return Path("runs") / f"{plan.task}-{plan_hash(plan)}"


def goes_on_by(task: str | None, folder: Path) -> str:
    """What goes on with an unfinished run: a command, or the Python call that began it."""
    return f"multistep.train(..., out='{folder}')" if task == OWN_MODEL else f"multistep resume {folder}"


def write_atomically(path: Path, content: str) -> None:
    """Replace a file's content whole or not at all."""
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync(path.parent)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raises RunDirectoryError where writing is not allowed; a full disk is another matter."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        raise RunDirectoryError(
            f"{folder}: cannot write there ({error.strerror}); make it writable, or name another folder with --out DIR"
        ) from error


@contextmanager
def full_disk_told(folder: Path, again: str) -> Iterator[None]:
    """Raises RunFailed where the disk is full, with what goes on with the run."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise RunFailed(
            f"{folder}: the disk is full; what was published before is whole. Free some space and go on with `{again}`"
        ) from error


class RunDirectory:
    """The files of one run. Only the process that holds `locked` may write.

    The journal, empty at first, is what marks a folder as ours: without one nothing in it is touched.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: frozenset[str] | None = None  # what stood in the folder before `create` made it a run directory
        self._places: Mapping[str, str] | None = None  # once they were read
        self._made = False  # whether `create` made the folder
        self.plan_file = folder / "plan.yaml"
        self.resolved = folder / "resolved.json"
        self.journal = folder / "journal.jsonl"
        self.heartbeat = folder / ".heartbeat"
        self.checkpoints = folder / "checkpoints"
        self.evaluations = folder / "evaluations"
        self.model = folder / "model"
        self.baseline = folder / "baseline"  # where that ships
        self.result = folder / "result.json"
        self.report = folder / "report.html"
        self.events = folder / "events"
        self.exhibits = folder / "exhibits.json"
        self.start = folder / START
        self.data = folder / FOLDER  # what was given as objects in Python

    @property
    def exists(self) -> bool:
        return self.journal.exists()

    def create(self) -> None:
        """Make the folder. Raises RunDirectoryError where something else stands, or writing is not allowed."""
        with writing(self.folder):
            self._made = not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self.exists:
                found = frozenset(path.name for path in self.folder.iterdir())
                if {"resolved.json", "checkpoints", "evaluations"} <= found:
                    raise RunDirectoryError(
                        f"{self.journal}: missing, though the rest of a run is there; it is the only record of what "
                        "the run did, so it cannot go on. Put it back from a copy, or begin anew with --out DIR"
                        + (f"; {self.model} holds the model that came out" if self.model.is_dir() else "")
                    )
                if strangers := sorted(found - set(FREE_NAMES)):
                    raise RunDirectoryError(
                        f"{self.folder}: not empty and no run directory (it holds '{strangers[0]}'); name a new "
                        "or empty folder with --out DIR"
                    )
                self.journal.touch()
                self._found = found
            self.evaluations.mkdir(exist_ok=True)
            self.checkpoints.mkdir(exist_ok=True)

    def keep_plan(self, plan: Plan) -> None:
        """Have the plan and the working folder on disk before anything slow begins, so that a kill can be mended.

        Raises RunDirectoryError where a file with another plan lies before the first entry of the journal.
        """
        with writing(self.folder):
            if not self.plan_file.exists():
                write_atomically(self.plan_file, to_yaml(plan))
            elif not self.journal.stat().st_size and not self._is_of(plan):
                raise RunDirectoryError(
                    f"{self.plan_file}: not the plan that is to be run, and it is not overwritten; name another folder "
                    "with --out DIR"
                )
            if not self.resolved.exists() and not self.journal.stat().st_size:
                self.write_resolved(plan, {}, [])

    def require_record(self, phases: int) -> None:
        """Raises RunDirectoryError, with what can still be done, where the record of a run that began is lost.

        `phases` is how many the journal tells of.
        """
        if not phases and not self.journal.stat().st_size and any(self.checkpoints.iterdir()):
            raise RunDirectoryError(
                f"{self.journal}: empty, though {self.checkpoints} is not; it is the only record of what the run did, "
                f"so it cannot go on. Put it back from a copy, or begin anew with --out DIR; {self._still_there()}"
            )
        if len(self.resolved_phases()) < phases:
            wrong = "without the phases that began" if self.resolved.exists() else "missing"
            raise self._unresolved(wrong)

    def _unresolved(self, wrong: str) -> RunDirectoryError:
        return RunDirectoryError(
            f"{self.resolved}: {wrong}; it says with which data, settings and working folder the run began, without "
            f"which it cannot go on. Put it back from a copy, or begin anew with --out DIR; {self._still_there()}"
        )

    def _still_there(self) -> str:
        """What is left of a run whose record is damaged."""
        left = [f"`multistep show {self.folder}` tells what was done"] if self.journal.stat().st_size else []
        if self.model.is_dir():
            left.append(f"{self.model} holds the model that came out")
        elif any(self.checkpoints.glob("*/*.safetensors")):
            left.append(f"the weights so far are in {self.checkpoints}")
        return "; ".join(left) or "nothing else is left of it"

    def _is_of(self, plan: Plan) -> bool:
        try:
            return plan_hash(read_plan(self.plan_file)) == plan_hash(plan)
        except PlanError:
            return False

    def discard(self) -> None:
        """Remove what a run left that failed before it began: what this object made of the folder, and no more."""
        if self._found is None:
            return
        made = (self.journal, self.plan_file, self.resolved, self.heartbeat, self.start, self.folder / ".lock")
        for path in made:
            if path.name not in self._found:
                path.unlink(missing_ok=True)
        for folder in (self.evaluations, self.checkpoints, self.data):
            shutil.rmtree(folder, ignore_errors=True)
        if self._made:
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def require(self) -> RunDirectory:
        """This directory, if it holds a run. Raises RunDirectoryError otherwise."""
        if not self.exists:
            raise RunDirectoryError(
                f"{self.folder}: no run there (journal.jsonl is missing); name a folder that `multistep train` made"
            )
        return self

    def require_plan(self) -> RunDirectory:
        """This directory, if a run can go on or begin by the plan in it. Raises RunDirectoryError otherwise."""
        if not self.plan_file.exists():
            self.require()
            raise RunDirectoryError(
                f"{self.plan_file}: no such file; go on with the `multistep train` command that began the run"
            )
        return self

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run directory. Raises RunDirectoryError if another process holds it, or writing is not allowed."""
        lock = FileLock(self.folder / ".lock")
        with writing(self.folder):
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise RunDirectoryError(
                    f"{self.folder}: in use by another process; wait for it, stop it, or name another folder with "
                    "--out DIR"
                ) from error
        try:
            yield
        finally:
            lock.release()

    @property
    def places(self) -> Mapping[str, str]:
        """Where data and models lie now that lie elsewhere than the plan says, by its names for them."""
        if self._places is None:
            ours = self.exists and self.resolved.exists()
            try:
                self._places = dict(self.read_resolved().get("places", {})) if ours else {}
            except RunDirectoryError:
                if not self.result.exists():  # a finished run goes nowhere
                    raise
                self._places = {}
        return self._places

    @places.setter
    def places(self, places: Mapping[str, str]) -> None:
        self._places = places

    @property
    def began_on(self) -> Mapping[str, str]:
        """The versions and the hardware with which the first phase began; empty before that."""
        record = self.read_resolved() if self.resolved.exists() else {}
        return dict(record.get("began_on") or record.get("versions", {}))

    @property
    def speeds(self) -> Mapping[str, float]:
        """Operations a second that the device was measured to do where a phase began, by the kind of work."""
        phases = self.resolved_phases() if self.resolved.exists() else []
        return {work: rate for phase in phases for work, rate in phase["facts"].get("speeds", {}).items()}

    def siblings(self) -> list[RunDirectory]:
        """The other run directories in the same folder, the one that was written to last first."""
        own = self.folder.resolve()
        found: list[tuple[float, RunDirectory]] = []
        with contextlib.suppress(OSError):
            for folder in own.parent.iterdir():
                # Most are no run directories, and some may not be looked into.
                with contextlib.suppress(OSError):
                    other = RunDirectory(folder)
                    if folder != own:
                        found.append((other.journal.stat().st_mtime, other))
        return [other for _, other in sorted(found, key=lambda pair: pair[0], reverse=True)]

    def write_table(self, evaluation: Evaluation) -> str:
        """Store an evaluation's columns under their hash, which is returned."""
        buffer = io.BytesIO()
        columns = _columns(evaluation)
        np.savez_compressed(buffer, allow_pickle=False, **columns)
        name = _hash_of(columns)
        path = self.evaluations / f"{name}.npz"
        if not path.exists():
            beside = path.with_suffix(".new")
            with beside.open("wb") as file:
                file.write(buffer.getvalue())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        return name

    def take_table(self, name: str, other: RunDirectory) -> None:
        """Have a table that another run stored. Raises RunDirectoryError if it is missing or damaged."""
        path, theirs = self.evaluations / f"{name}.npz", other.evaluations / f"{name}.npz"
        if path.exists():
            return
        if _hash_of(_columns(other.read_table(name))) != name:
            raise RunDirectoryError(f"{theirs}: the evaluation's table is damaged")
        beside = path.with_suffix(".taken")
        beside.unlink(missing_ok=True)
        link_or_copy(theirs, beside)
        beside.replace(path)

    def read_table(self, name: str) -> Evaluation:
        """The evaluation stored under that hash. Raises RunDirectoryError if it is missing."""
        path = self.evaluations / f"{name}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                return Evaluation({key: stored[key] for key in stored.files})
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise RunDirectoryError(f"{path}: the evaluation's table is missing or damaged") from error

    def read_resolved(self) -> dict[str, Any]:
        """What resolved.json holds. Raises RunDirectoryError where it is damaged, FileNotFoundError where it is not."""
        try:
            content = json.loads(self.resolved.read_text(encoding="utf-8"))
        except ValueError as error:
            raise self._unresolved(f"damaged, not JSON ({error})") from error
        if not isinstance(content, dict) or not isinstance(content.get("phases"), list):
            raise self._unresolved("damaged, not what a run writes")
        return content

    def resolved_phases(self) -> list[dict[str, Any]]:
        """What resolved.json says of each phase that began: recipe, facts, data, key; empty before the first."""
        return list(self.read_resolved()["phases"]) if self.resolved.exists() else []

    def write_resolved(self, plan: Plan, versions: Mapping[str, str], phases: Sequence[Mapping[str, Any]]) -> None:
        began = self.began_on if len(phases) > 1 else {}
        content = {"plan": plan, **self._place(), "versions": versions, "began_on": began or versions, "phases": phases}
        write_atomically(self.resolved, to_json(content, indent=1))

    def _place(self) -> dict[str, Any]:
        """The working folder, as it is called here and as the run stands to it, and what lies elsewhere."""
        here = Path.cwd()
        with contextlib.suppress(ValueError):  # on another drive
            beside = os.path.relpath(here, self.folder.resolve())
            return {"folder": str(here), "from_run": Path(beside).as_posix(), "places": dict(self.places)}
        return {"folder": str(here), "places": dict(self.places)}

    def note_place(self) -> None:
        """Have resolved.json say where the run and its data are now."""
        content, place = self.read_resolved(), self._place()
        if {key: content.get(key) for key in place} != place:
            write_atomically(self.resolved, to_json({**content, **place}, indent=1))

    def amend_phase(self, index: int, **said: Any) -> None:
        """Have resolved.json say something else of a phase."""
        content = self.read_resolved()
        content["phases"][index].update(said)
        write_atomically(self.resolved, to_json(content, indent=1))


def _columns(evaluation: Evaluation) -> dict[str, Floats]:
    return {name: np.ascontiguousarray(evaluation.columns[name]) for name in sorted(evaluation.columns)}


def _hash_of(columns: Mapping[str, Floats]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for name, column in columns.items():
        digest.update(name.encode())
        digest.update(column.tobytes())
    return digest.hexdigest()
