"""The learner of the first process, whose verbs the others follow; and those that follow."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from multistep.backends.torch.many.group import Group
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Carry, Fit, Progress
from multistep.engine.checkpoints import MANIFEST
from multistep.engine.learner import Exhibit, Interrupted, Learner, Split
from multistep.errors import MultistepError, ProcessLost, RunDirectoryError, RunFailed

# Of the engine's verbs those that all processes do. The others are the first one's alone: it writes and shows.
SHARED = ("initial", "load", "adopt", "average", "prepare", "advance", "evaluate")
OF_SHARDS = ("save", "export", "fold", "exhibits")  # that they do together where each has a part of the model
SEE = "see"  # beside them: which checkpoints do you see?


class Leader:
    """What the engine holds in the first process. Implements engine.learner.Learner."""

    def __init__(self, own: Learner, group: Group, *, sharded: bool = False) -> None:
        self._own, self._group, self._sharded = own, group, sharded

    def initial(self, recipe: Recipe, seed: int, *, skip_examples: int = 0) -> None:
        self._all("initial", recipe, seed, skip_examples=skip_examples)

    def load(self, folder: Path, recipe: Recipe, seed: int, *, carry: Carry = "all", skip_examples: int = 0) -> None:
        self._read([folder], "load", folder, recipe, seed, carry=carry, skip_examples=skip_examples)

    def adopt(self, folder: Path, recipe: Recipe, seed: int, *, skip_examples: int = 0) -> None:
        self._read([folder], "adopt", folder, recipe, seed, skip_examples=skip_examples)

    def average(self, folders: Sequence[Path], recipe: Recipe, seed: int) -> None:
        self._read(folders, "average", list(folders), recipe, seed)

    def prepare(self, known: Mapping[str, Fit], seconds_left: float | None) -> Callable[[], None] | None:
        if self._sharded:  # what is to be done takes all of them at once
            own = self._own.prepare(known, seconds_left)
            return own and functools.partial(self._do, own, "prepare", dict(known), seconds_left)
        # Each finds for itself what fits its device; what one comes to changes no number beyond rounding.
        todo: Callable[[], None] | None = self._all("prepare", dict(known), seconds_left)
        return todo

    @property
    def fit(self) -> Fit | None:
        return self._own.fit

    def advance(self, rates: Sequence[float], *, resolution: int | None = None) -> Progress:
        progress: Progress = self._all("advance", list(rates), resolution=resolution)
        return progress

    def evaluate(self, split: Split, *, sample: bool) -> Evaluation:
        evaluation: Evaluation = self._all("evaluate", split, sample=sample)
        return evaluation

    def save(self, folder: Path) -> None:
        self._write("save", folder)

    def export(self, folder: Path, card: str) -> str:
        return str(self._write("export", folder, card))

    def fold(self, temperature: float) -> bool:
        return bool(self._write("fold", temperature))

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        return self._own.baseline(split)

    def write_baseline(self, folder: Path) -> str:
        return self._own.write_baseline(folder)

    def exhibits(self) -> Sequence[Exhibit]:
        shown: Sequence[Exhibit] = self._write("exhibits")
        return shown

    def _write(self, verb: str, *args: Any) -> Any:
        """What the first process does by itself, unless the others have parts of the model or a state of their own."""
        apart = verb == "save" and getattr(self._own, "saves_apart", False)
        return self._all(verb, *args) if self._sharded or apart else getattr(self._own, verb)(*args)

    def _read(self, folders: Sequence[Path], verb: str, *args: Any, **keywords: Any) -> None:
        """What begins with checkpoints. Raises RunDirectoryError where another process does not see the same ones."""
        own = marks_of(folders)
        self._group.tell(SEE, list(folders))
        for rank, host, found in self._group.answers():
            if found != own:
                raise RunDirectoryError(
                    f"{folders[0]}: process {rank} on {host} does not see the checkpoint that process 0 does; the run "
                    "directory must lie where all processes read and write the same files: name a shared folder with "
                    "--out DIR"
                )
        self._all(verb, *args, **keywords)

    def _all(self, verb: str, *args: Any, **keywords: Any) -> Any:
        """Have all processes do it. Raises what goes wrong here, else what goes wrong with another one."""
        return self._do(functools.partial(getattr(self._own, verb), *args, **keywords), verb, *args, **keywords)

    def _do(self, own: Callable[[], Any], verb: str, *args: Any, **keywords: Any) -> Any:
        self._group.tell(verb, *args, **keywords)
        try:
            found = own()
        except ProcessLost:
            raise
        except (MultistepError, Interrupted, OSError):
            self._group.answers()  # they come to the same, or wait for what is next
            raise
        require(self._group.answers())
        return found


def require(answers: Sequence[tuple[int, str, Any]]) -> None:
    """Raises what another process answered with."""
    for rank, host, answer in answers:
        if isinstance(answer, MultistepError):
            raise type(answer)(f"process {rank} on {host}: {answer}") from answer
        if isinstance(answer, OSError):
            raise RunFailed(f"process {rank} on {host}: {answer}") from answer


def marks_of(folders: Sequence[Path]) -> list[str]:
    """What tells published folders from others: their manifests hold the checksums of their files."""
    found = []
    for folder in folders:
        manifest = folder / MANIFEST
        found.append(hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else "")
    return found


def follow(group: Group, learner: Learner, verb: str, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
    """Do one of the shared verbs as the first process does, and answer."""
    answer: object = None
    try:
        if verb == SEE:
            answer = marks_of(*args)
        else:
            assert verb in (*SHARED, *OF_SHARDS), verb
            todo = getattr(learner, verb)(*args, **keywords)
            if verb == "prepare" and todo is not None:
                todo()
    except ProcessLost:
        raise
    except Interrupted:
        pass  # of which the first knows
    except (MultistepError, OSError) as error:
        answer = error
    group.answer(answer)
