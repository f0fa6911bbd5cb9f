"""The code of a finished run: the module that its weights belong to, and what it was scored by.

A model folder holds weights; the code is the user's. It is what is given, else what `train` was given in this process,
else a class or a function that can be imported by its name.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from multistep.errors import PlanError
from multistep.tasks.folders import read_task
from multistep.tasks.notes import say
from multistep.tasks.own.described import named_in, rebuilt
from multistep.tasks.own.functions import OwnMetric, own_metric, same_as_ours
from multistep.tasks.own.model import unwrapped
from multistep.tasks.own.use import CONFIG

MOST_REMEMBERED = 8  # runs of this process


@dataclass(frozen=True)
class Code:
    """What `train` was given in Python, without the data."""

    module: nn.Module
    loss: object
    target: str | None
    metric: OwnMetric | None


_trained: dict[Path, Code] = {}


def remember(run: Path, code: Code) -> None:
    """Have the code at hand for whoever uses that run in this process."""
    _trained.pop(run.resolve(), None)
    _trained[run.resolve()] = code
    for old in list(_trained)[:-MOST_REMEMBERED]:
        del _trained[old]


def remembered(folder: Path) -> Code | None:
    """What `train` was given for the run that this model folder is in; None in another process."""
    return _trained.get(folder.resolve().parent)


def module_for(folder: Path, given: object, verb: str) -> nn.Module:
    """The module whose weights lie in that model folder. Raises PlanError where nobody here has it."""
    if given is not None:
        if not isinstance(given, nn.Module):
            what = f"the class {given.__name__}; make one of it" if isinstance(given, type) else f"{given!r}"
            raise PlanError(f"{verb}: model is {what}; allowed: a module of the class that was trained, MyModule(...)")
        return unwrapped(given)[0]
    if (code := remembered(folder)) is not None:
        return unwrapped(code.module)[0]
    about = read_task(str(folder))
    name, module = str(about.get("class")), str(about.get("module"))
    try:
        return _made(folder, named_in(module, name), about)
    except Exception as error:  # whatever a user's class does when it is made
        why = "" if isinstance(error, LookupError) else f" ({type(error).__name__}: {error})"
        where = "a script or a notebook" if module == "__main__" else f"the module {module}"
        raise PlanError(
            f"{verb}: {folder} holds weights, and the code of {name} is yours: it stood in {where}, and cannot be made "
            f"from here{why}; give a module of that class, multistep.resume({str(folder.parent)!r}).{verb}(..., "
            f"model={name}(...))"
        ) from error


def _made(folder: Path, kind: Any, about: Mapping[str, Any]) -> nn.Module:
    """A module of that class, where that needs no arguments, or the configuration that lies beside the weights."""
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise LookupError
    if hasattr(kind, "config_class") and (folder / CONFIG).is_file():
        config = kind.config_class.from_dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
        found: nn.Module = kind(config)
    else:
        asked = inspect.signature(kind).parameters.values()
        several = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        if any(p.default is p.empty and p.kind not in several for p in asked) or kind.__module__.startswith("torch."):
            raise LookupError
        found = kind()
    say([f"{folder}: its weights are put into a new {kind.__qualname__} of {kind.__module__}"])
    return found


def loss_for(folder: Path, given: object) -> object:
    """The loss to score by, None for the model's own. Raises PlanError where nobody here has it."""
    if given is not None:
        return given
    if (code := remembered(folder)) is not None:
        return code.loss
    about = read_task(str(folder))
    try:
        return rebuilt(about.get("loss_as"))
    except LookupError as error:
        raise PlanError(
            f"evaluate: this run was trained by the loss {about.get('loss', '')}, whose code is yours and cannot be "
            f"had from here; give it: loss=..."
        ) from error


def target_for(folder: Path, given: str | None) -> str | None:
    """The key of the target where items are dicts; None where none was named."""
    if given is not None:
        return given
    code = remembered(folder)
    return code.target if code else (read_task(str(folder)).get("layout") or {}).get("target")


def metric_for(folder: Path, given: object, goal: Any) -> tuple[OwnMetric | None, str | None]:
    """The user's function to score by, or the name of a metric; the run's where none is given."""
    if given is None:
        if (code := remembered(folder)) is not None:
            return code.metric, None
        if name := read_task(str(folder)).get("metric"):
            say([f"this run was judged by '{name}', a function of your code; give it to have its score: metric={name}"])
        return None, None
    if callable(given) and (ours := same_as_ours(given, goal)) is not None:
        given = ours
    return (None, given) if isinstance(given, str) else (own_metric(given, goal), None)
