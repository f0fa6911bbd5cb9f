"""A hash of the user's own code: functions by their compiled code, so that a comment changes nothing."""

from __future__ import annotations

import functools
import hashlib
import sys
import sysconfig
import types
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

PLAIN = (type(None), bool, int, float, complex, str, bytes)
SETTINGS = (*PLAIN, tuple, type, types.FunctionType, functools.partial)  # what of an object's attributes counts


def code_digest(things: Iterable[object]) -> str:
    """Of functions, classes, modules and callables: their code, constants, defaults and what they close over.

    Libraries' code is told by name alone. Values that only running the code would show are not seen.
    """
    digest = hashlib.blake2b(digest_size=8)
    seen: set[int] = set()
    for thing in things:
        _feed(digest, thing, seen)
    return digest.hexdigest()


def _feed(digest: Any, value: Any, seen: set[int]) -> None:
    if isinstance(value, PLAIN):
        digest.update(repr(value).encode())
        return
    if isinstance(value, types.FunctionType | type | nn.Module):  # these alone may refer to themselves
        if id(value) in seen:
            return
        seen.add(id(value))
    digest.update(type(value).__qualname__.encode())
    if isinstance(value, tuple | list):
        for part in value:
            _feed(digest, part, seen)
    elif isinstance(value, set | frozenset):
        digest.update(repr(sorted(map(repr, value))).encode())  # sets have an order of their own in each process
    elif isinstance(value, dict):
        for key, part in value.items():
            _feed(digest, (key, part), seen)
    elif isinstance(value, np.ndarray | torch.Tensor):
        array = value.detach().cpu().float().numpy() if isinstance(value, torch.Tensor) else value
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    elif isinstance(value, types.CodeType):
        digest.update(value.co_code)
        _feed(digest, (value.co_names, value.co_consts, value.co_varnames), seen)
    elif isinstance(value, types.FunctionType):
        _feed_function(digest, value, seen)
    elif isinstance(value, functools.partial):
        _feed(digest, (value.func, value.args, value.keywords), seen)
    elif isinstance(value, types.MethodType):
        _feed(digest, (value.__func__, type(value.__self__)), seen)
    elif isinstance(value, type):
        _feed_class(digest, value, seen)
    elif isinstance(value, nn.Module):
        _feed_module(digest, value, seen)
    elif not isinstance(value, types.ModuleType | types.BuiltinFunctionType):
        _feed(digest, type(value), seen)
        _feed(digest, _settings(value), seen)
    else:
        digest.update(str(getattr(value, "__name__", "")).encode())


def _feed_function(digest: Any, function: types.FunctionType, seen: set[int]) -> None:
    digest.update(function.__qualname__.encode())
    if not is_own(function.__module__):
        digest.update(function.__module__.encode())
        return
    closed = tuple(cell.cell_contents for cell in function.__closure__ or () if _filled(cell))
    _feed(digest, (function.__code__, function.__defaults__, function.__kwdefaults__, closed), seen)
    for name in function.__code__.co_names:
        used = function.__globals__.get(name)
        if isinstance(used, (*PLAIN, types.FunctionType, type)):
            _feed(digest, (name, used), seen)


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a function that refers to itself before it has a name
        return False


def _feed_class(digest: Any, kind: type, seen: set[int]) -> None:
    digest.update(f"{kind.__module__}.{kind.__qualname__}".encode())
    for base in kind.__mro__:
        if is_own(base.__module__):
            for name, part in vars(base).items():
                unwrapped = getattr(part, "__func__", getattr(part, "fget", part))
                setting = isinstance(unwrapped, PLAIN) and not name.startswith("__")
                if setting or isinstance(unwrapped, types.FunctionType):
                    _feed(digest, (name, unwrapped), seen)


def _settings(value: object) -> dict[str, object]:
    """An object's public attributes that are plain values or code."""
    found = getattr(value, "__dict__", {}).items()
    return {k: v for k, v in found if isinstance(v, SETTINGS) and not k.startswith("_") and k != "training"}


def _feed_module(digest: Any, module: nn.Module, seen: set[int]) -> None:
    """Its parts by name with their settings; its weights by shape alone."""
    for name, part in module.named_modules():
        digest.update(f"{name}:".encode())
        _feed(digest, (type(part), _settings(part)), seen)
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, torch.Tensor) and not is_lazy(tensor):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())


@functools.cache
def is_own(module: str | None) -> bool:
    """Whether code is the user's: neither of the standard library nor of an installed package."""
    if module == "__main__":
        return True
    root = (module or "").partition(".")[0]
    if not root or root in sys.stdlib_module_names or root in sys.builtin_module_names or root == "multistep":
        return False
    file = str(getattr(sys.modules.get(module or ""), "__file__", None) or "")
    installed = (sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"])
    return bool(file) and not any(file.startswith(folder) for folder in installed) and "-packages" not in file
