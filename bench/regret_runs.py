"""Real runs of which every judged checkpoint is scored on the test split too, for bench/regret.py.

A run is one process: the product's own loop with the task's own workshop. Whoever listens to the journal scores the
test split each time that a trial was evaluated in full. The budget clock stands still meanwhile, so the run decides
and ends as if nobody had looked. What is kept of each, in DIR/<set>-<way>-<seed>/:

    made.json     set, way, seed, budget, rate, and the trial that the run shipped; written last: the run is complete
    judged.jsonl  a line for each trial that was evaluated in full: its kind and move, and its two tables by their hash
    run/          plan, journal, result and the tables of the validation split, without checkpoints and model
    test/         the tables of the test split
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data_sets
from filelock import FileLock

from multistep.core.evidence.metric import metric_named
from multistep.core.values.events import Entry, Evaluated
from multistep.core.values.history import History
from multistep.core.values.plan import Plan
from multistep.engine.clock import BudgetClock
from multistep.engine.learner import Learner, Readiness, Workshop
from multistep.engine.rundir import RunDirectory

Record = dict[str, Any]
WAYS = ("multistep", "plain", "adamw")
MOST_FURTHER = 3  # rates that are tried beyond the grid of AdamW while the best lies at its edge
LEFT_OUT = ("checkpoints", "model", "events", "report.html", "exhibits.json")  # of a run directory, to save disk

# AdamW's rates, linear to zero over the whole budget, by what is trained.
OF_TEXT, OF_ENCODERS, OF_PRETRAINED = (2.5e-3, 5e-3, 1e-2), (5e-4, 1e-3, 2e-3), (2.5e-5, 5e-5, 1e-4)
OF_IMAGES, OF_SPEECH = (2e-3, 4e-3, 8e-3), (1e-3, 2e-3, 4e-3)


@dataclass(frozen=True)
class DataSet:
    task: str
    data: Callable[[Path, Path], Path | dict[str, str]]  # of the folder of real data, and one to write to
    rates: tuple[float, ...]
    pretrained: bool = False


SETS = {
    "sst2": DataSet("text-classification", lambda source, _: data_sets.sst2(source), OF_ENCODERS),
    "chnsenticorp": DataSet("text-classification", lambda source, _: data_sets.chnsenticorp(source), OF_ENCODERS),
    "sst2-minilm": DataSet("text-classification", lambda source, _: data_sets.sst2(source), OF_PRETRAINED, True),
    "tinyshakespeare": DataSet("text-generation", lambda s, out: data_sets.shakespeare(s, out, 300_000), OF_TEXT),
    "little": DataSet("text-generation", data_sets.small, OF_TEXT),
    "songci": DataSet("text-generation", data_sets.songci, OF_TEXT),
    "fashion-mnist": DataSet("image-classification", data_sets.few_fashion, OF_IMAGES),
    "sign-digits": DataSet("image-classification", data_sets.sign_digits, OF_IMAGES),
    "fsdd": DataSet("speech-recognition", lambda s, o: data_sets.spoken_digits(s, o) / "manifest.csv", OF_SPEECH),
    "fsdd-small": DataSet("speech-recognition", data_sets.sentences, OF_SPEECH),
}


# Many runs ----------------------------------------------------------------------------------------


class Bench:
    """Makes runs under one folder, each in a process of its own, and leaves alone those that are complete."""

    def __init__(self, out: Path, source: Path, budget: str, script: Path) -> None:
        self.out, self._source, self._budget, self._script = out, source, budget, script

    def make(self, name: str, way: str, seed: int) -> Record | None:
        """The record of a run; None if it failed, which does not keep the others from being made."""
        if way != "adamw":
            return self._run(name, way, seed, None)
        rate = self._best_rate(name)
        return self._run(name, way, seed, rate) if rate else None

    def _best_rate(self, name: str) -> float | None:
        """By the validation score of seed 0; the grid grows by factors of two while its best lies at the edge."""
        tried: dict[float, float] = {}
        goal = 1.0

        def score(rate: float) -> None:
            nonlocal goal
            if record := self._run(name, "adamw", 0, rate):
                goal = 1.0 if record["goal"] == "maximize" else -1.0
                tried[rate] = goal * record["validation"]

        for rate in SETS[name].rates:
            score(rate)
        for _ in range(MOST_FURTHER):
            if not tried or (best := max(tried, key=lambda r: tried[r])) not in (min(tried), max(tried)):
                break
            score(best / 2 if best == min(tried) else best * 2)
        return max(tried, key=lambda r: tried[r]) if tried else None

    def _run(self, name: str, way: str, seed: int, rate: float | None) -> Record | None:
        label = way if rate is None else f"{way}-{rate:g}"
        folder = self.out / f"{name}-{label}-{seed}"
        if (folder / "made.json").exists():
            made: Record = json.loads((folder / "made.json").read_text(encoding="utf-8"))
            if made["budget"] != self._budget:
                sys.exit(f"{folder}: made with a budget of {made['budget']}; name another folder with --out")
            return made
        # One that was cut short begins anew: resumed, it would pay for the machine's time in between.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        asked = {"set": name, "way": way, "seed": seed, "rate": rate, "budget": self._budget}
        wanted = {"asked": asked, "plan": self._plan(name, way, seed, rate)}
        (folder / "wanted.json").write_text(json.dumps(wanted, indent=1), encoding="utf-8")
        # One thread each; and what such runs cost is nothing that `multistep check` should remember of this machine.
        own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(self.out / "cache")}
        command = [sys.executable, str(self._script), "one", str(folder)]
        with FileLock(_lock_of_cores()):
            began = time.monotonic()
            done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **own})
        (folder / "output.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
        took = f"{time.monotonic() - began:.0f} s"
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:]
            print(f"{folder.name}: FAILED after {took}: {' '.join(last)}", flush=True)
            return None
        made = json.loads((folder / "made.json").read_text(encoding="utf-8"))
        print(
            f"{folder.name}: {took}, {made['trials']} trials evaluated, shipped {made['shipped']}, "
            f"{made['metric']} {made['test']:.4f}; {made['stopped']}",
            flush=True,
        )
        return made

    def _plan(self, name: str, way: str, seed: int, rate: float | None) -> Record:
        about = SETS[name]
        with FileLock(self.out / "data.lock"):  # two that run side by side would make the same files
            found = about.data(self._source, self.out / "data")
        plan: Record = {"task": about.task, "data": str(found) if isinstance(found, Path) else found}
        plan |= {"budget": self._budget, "seed": seed}
        if about.pretrained:
            plan["model"] = data_sets.minilm()
        if way != "multistep":
            phase: Record = {"name": way, "until": self._budget, "moves": []}
            if rate is not None:
                phase["recipe"] = {"optimizer": "adamw", "learning_rate": rate, "cooldown_fraction": 1.0}
            plan["phases"] = [phase]
        return plan


def _lock_of_cores() -> Path:
    """What two benchmarks that are pinned to the same cores share, so that their runs take turns.

    Side by side each would have half of the time that it is measured by.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return Path(tempfile.gettempdir()) / f"multistep-bench-{'-'.join(map(str, cores))}.lock"


# One run ------------------------------------------------------------------------------------------


class Stopwatch:
    """Monotonic seconds that stand still while the bench does what the product would not."""

    def __init__(self) -> None:
        self._left_out = 0.0
        self._stopped: float | None = None

    def __call__(self) -> float:
        return (time.monotonic() if self._stopped is None else self._stopped) - self._left_out

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        self._stopped = time.monotonic()
        try:
            yield
        finally:
            self._left_out += time.monotonic() - self._stopped
            self._stopped = None


class Watched:
    """The task's workshop, and the learner that it opened last."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self.learner: Learner | None = None
        self.versions = workshop.versions

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        self.learner, ready = self._workshop.open(plan, phase, should_stop)
        return self.learner, ready


def make_one(folder: Path) -> None:
    """Make the run that a folder asks for, in this process."""
    watch = Stopwatch()
    clock = BudgetClock(watch, began=watch())
    # Everything else is as with the product's own clock: the heartbeat, the stamps, phases taken over.
    clock.injected = False
    # Their imports are paid for by the budget, as they are for users.
    import torch

    from multistep import api
    from multistep.engine.planfile import plan_from
    from multistep.tasks import workshop_for

    wanted = json.loads((folder / "wanted.json").read_text(encoding="utf-8"))
    plan = plan_from(wanted["plan"])
    workshop = Watched(workshop_for(plan))
    run, tests = RunDirectory(folder / "run"), RunDirectory(folder / "test")
    tests.evaluations.mkdir(parents=True)
    histories: list[History] = []

    def on_entry(entry: Entry, history: History) -> None:
        """The learner still stands where it was evaluated: nothing goes on before this returns."""
        histories[:] = [history]
        match entry.event:
            case Evaluated(split="validation", sample=False) as seen:
                with watch.standing_still():
                    _score(workshop.learner, seen, history, tests, folder / "judged.jsonl")

    result = api.run(plan, run, clock=clock, on_entry=on_entry, workshop=workshop)
    shipped = histories[0].test
    assert shipped is not None, "the sets have test splits"
    made = {
        **wanted["asked"],
        "metric": result.metric,
        "goal": result.record["goal"],
        "unit": result.record["unit"],
        "shipped": shipped.trial,
        "test_table": shipped.table,
        "validation": result.validation.score,
        "test": shipped.interval.score,
        "baseline": result.baseline["test"]["score"],
        "trials": len((folder / "judged.jsonl").read_text(encoding="utf-8").splitlines()),
        "seconds": result.record["seconds"],
        # Where it is far less than the clock's seconds, others used the core: the run had less time than it seems.
        "cpu_seconds": round(time.process_time(), 1),
        "stopped": result.stopped,
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
    for name in LEFT_OUT:
        path = run.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    (folder / "made.json").write_text(json.dumps(made, indent=1), encoding="utf-8")


def _score(learner: Learner | None, seen: Evaluated, history: History, tests: RunDirectory, path: Path) -> None:
    """Add a line about a trial that was evaluated in full, with the table of its test split."""
    assert learner is not None, "a trial runs in a phase that was opened"
    began = time.monotonic()
    table = learner.evaluate("test", sample=False)
    trial = history.trial(seen.trial).trial
    line = {
        "trial": trial.id,
        "kind": trial.kind,
        "move": trial.move,
        "seed": trial.seed,
        "step": seen.step,
        "validation": seen.table,
        "validation_score": seen.interval.score,
        "test": tests.write_table(table),
        "test_score": metric_named(history.phase.started.metric).score(table),
        "test_seconds": round(time.monotonic() - began, 3),
        "budget_seconds": round(history.seconds, 3),
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
