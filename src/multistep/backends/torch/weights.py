"""Weights of a model: which are trained, and how they are written, read and averaged."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import weakref
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from multistep.backends.torch.parts import put
from multistep.errors import PlanError

DOWN, UP = ".lora_A.", ".lora_B."  # of an adapter, in names of parameters
STATE, COUNTERS = "state.safetensors", "state.json"  # of a checkpoint


def mark_of(model: nn.Module) -> tuple[float, ...]:
    """What tells these weights from others, well enough to know whether they have just been scored."""
    exact = torch.float32 if next(model.parameters()).device.type == "mps" else torch.float64
    return tuple(torch.stack([p.detach().to(exact).sum() for p in model.parameters()]).tolist())


@dataclass(frozen=True)
class Weights:
    """The weights of a model at one time, told by what torch counts of their changes, without asking the device."""

    model: weakref.ref[nn.Module]
    versions: tuple[int, ...]

    @classmethod
    def of(cls, model: nn.Module) -> Weights:
        return cls(weakref.ref(model), _versions(model))

    def are_those_of(self, model: nn.Module) -> bool:
        return self.model() is model and self.versions == _versions(model)


def _versions(model: nn.Module) -> tuple[int, ...]:
    """Of each parameter; those that were made in inference mode have none, and nothing trains them."""
    return tuple(0 if p.is_inference() else p._version for p in model.parameters())


def freeze(model: nn.Module, patterns: Sequence[str], fixed: Set[str] = frozenset()) -> None:
    """Exclude parameters by glob pattern, and those that adapters leave as they are.

    Raises PlanError for a pattern that matches none, or if none is left.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            shown = ", ".join([*names[:3], "...", *names[-2:]])
            raise PlanError(f"recipe.frozen: no parameter matches '{pattern}'; the model has {shown}")
    for name, parameter in model.named_parameters():
        if not (parameter.is_floating_point() or parameter.is_complex()):
            continue  # whole numbers, which have no gradient
        parameter.requires_grad_(name not in fixed and not any(fnmatch.fnmatch(name, pattern) for pattern in patterns))
    if not any(p.requires_grad for p in model.parameters()):
        raise PlanError("recipe.frozen: every parameter is frozen; leave some to train")


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Raise a full disk as the OSError that it is: safetensors hides it in an exception without a number."""
    try:
        yield
    except SafetensorError as error:
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
        raise


def read_counters(folder: Path) -> dict[str, Any]:
    """Steps, position and what they are counted in."""
    counters: dict[str, Any] = json.loads((folder / COUNTERS).read_text(encoding="utf-8"))
    return counters


def named(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and saved buffers, each tensor once even if two modules share it."""
    yield from model.named_parameters()
    saved = model.state_dict()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in saved)


def fill(model: nn.Module, tensors: Mapping[str, Tensor], prefix: str, fixed: Set[str] = frozenset()) -> Set[str]:
    """Set every parameter and saved buffer from the tensors named with this prefix, and return their names.

    What is `fixed` may be missing, and an adapter's matrices may be of a lower rank.
    """
    found = set()
    with torch.no_grad():
        for name, tensor in named(model):
            if name in fixed and f"{prefix}{name}" not in tensors:
                continue
            saved = tensors[f"{prefix}{name}"]
            if saved.shape != tensor.shape and is_adapter(name):
                saved = widened(saved, tensor.cpu())
            put(tensor, saved)
            found.add(name)
    return found


def is_adapter(name: str) -> bool:
    return ".lora_" in name


def widened(saved: Tensor, drawn: Tensor) -> Tensor:
    """An adapter's matrix in the shape of a higher rank: of the same product, since the other one has zeros there."""
    grown = drawn.clone() if saved.shape[1] == drawn.shape[1] else torch.zeros_like(drawn)
    grown[: saved.shape[0], : saved.shape[1]] = saved
    return grown


def fill_shared(model: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> Set[str]:
    """Set what has the same name and shape in both, and return its names: of a phase of another task, the backbone.

    Raises PlanError if there is nothing.
    """
    shared = set()
    with torch.no_grad():
        for name, tensor in named(model):
            other = tensors.get(f"{prefix}{name}")
            if other is not None and other.shape == tensor.shape:
                tensor.copy_(other)
                shared.add(name)
    if not shared:
        raise PlanError("the phase before trained another model, of which this phase's has no part; give both one")
    return shared


def mean_product(downs: Sequence[Tensor], ups: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Two matrices (rank, in), (out, rank) with the mean of the products `up @ down`, as near as their rank allows.

    The mean of n products has up to n times the rank; of it the largest singular values stay, which no other matrices
    of that rank come nearer to. Checkpoints of one training differ by little, and so much of it is all but nothing.
    """
    rank, many = len(downs[0]), len(downs)
    left, left_small = torch.linalg.qr(torch.cat(list(ups), 1) / many)
    right, right_small = torch.linalg.qr(torch.cat(list(downs), 0).T)
    u, values, v = torch.linalg.svd(left_small @ right_small.T)
    # As long as the matrices were on average: how fast one of them learns depends on the length of the other.
    length = (sum(float(down.square().sum()) for down in downs) / (many * rank)) ** 0.5 or 1.0
    down, up = torch.zeros_like(downs[0]), torch.zeros_like(ups[0])
    few = min(rank, len(values))
    down[:few] = length * (right @ v[:few].T).T
    up[:, :few] = left @ u[:, :few] * values[:few] / length
    return down, up
