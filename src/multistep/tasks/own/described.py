"""A loss as plain values, so that a finished run can be scored by it in another process."""

from __future__ import annotations

import importlib
import inspect
import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from multistep.tasks.own.code import is_own
from multistep.tasks.own.losses import OwnLoss

MOST_NUMBERS = 10_000  # of a loss's tensors, class weights for instance
_OLD = ("size_average", "reduce")  # arguments of torch's losses that `reduction` replaced
_PLAIN = (bool, int, float, str, type(None))


def described(loss: OwnLoss) -> dict[str, Any] | None:
    """How to have that loss again; None where only the code that made it can."""
    if loss.of_model:
        return {"of_model": True}
    given = loss.given
    if loss.standard:
        settings = {name: _plain(getattr(given, name, None)) for name in _settings(type(given))}
        known = all(isinstance(value, (*_PLAIN, dict)) for value in settings.values())
        return {"class": type(given).__name__, "settings": settings} if known else None
    name = getattr(given, "__qualname__", "")
    if isinstance(given, types.FunctionType) and "<" not in name and is_own(given.__module__):
        return {"function": name, "module": given.__module__}
    return None


def rebuilt(about: object) -> object:
    """The loss that was described, None for the model's own. Raises LookupError where it cannot be had."""
    if not isinstance(about, Mapping):
        raise LookupError
    if about.get("of_model"):
        return None
    if "function" in about:
        found = named_in(str(about.get("module")), str(about["function"]))
        if not callable(found):
            raise LookupError
        return found
    kind = getattr(nn, str(about.get("class")), None)
    if not isinstance(kind, type):
        raise LookupError
    settings = {
        name: torch.tensor(value["tensor"]) if isinstance(value, Mapping) else value
        for name, value in dict(about.get("settings") or {}).items()
    }
    try:
        return kind(**settings)
    except TypeError as error:  # written by another version of torch
        raise LookupError from error


def named_in(module: str, name: str) -> Any:
    """What code of the user's is called so: in a module that is imported, or can be. Raises LookupError."""
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the user's module does when it is imported
        raise LookupError from error
    return found


def _settings(kind: type) -> list[str]:
    return [name for name in inspect.signature(kind).parameters if name not in _OLD]


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor) and value.numel() <= MOST_NUMBERS:
        return {"tensor": value.tolist()}
    return value
