"""The state of optimizers as flat tensors that safetensors can hold, whatever it is made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from multistep.backends.torch.parts import is_parted, put

REST = "rest"  # the one name without a dot: JSON, of all that is no tensor
FREE_SHAPES = (
    "row_var",
    "col_var",
    "GG",
    "Q",
)  # Adafactor's factors, SOAP's bases; all else is shaped as its parameter
SETTINGS = ("params", "matrices", "lr")  # of a group; set by whoever builds or steps it
Group = dict[str, Any]


class StateKeeper:
    """Writes and reads the state of some optimizers; to be made before they first step.

    Tensors are named `exp_avg.blocks.0.out.weight`, those in a list `GG/1.blocks.0.out.weight`. Whatever an
    optimizer has added to its groups, or changed there, is state too: schedule-free's counters, Prodigy's d.
    """

    def __init__(self, optimizers: Sequence[Optimizer], names: Mapping[Tensor, str]) -> None:
        self._optimizers, self._names = optimizers, names
        self._fresh = [_entries(group) for group in self._groups()]

    def _groups(self) -> Iterable[Group]:
        return (group for optimizer in self._optimizers for group in optimizer.param_groups)

    def tensors(self) -> dict[str, Tensor]:
        """The state itself, not copies."""
        found: dict[str, Tensor] = {}
        rest: dict[str, Any] = {}

        def keep(full: str, value: Tensor, p: Tensor) -> None:
            found[full] = value
            if not value.is_contiguous() and value.stride() != p.stride():
                rest.setdefault("strides", {})[full] = value.stride()  # a product's bits may depend on them
            if value.device != p.device:
                rest.setdefault("on_cpu", []).append(full)

        for p, key, value in ((p, *item) for o in self._optimizers for p, s in o.state.items() for item in s.items()):
            name = self._names[p]
            if isinstance(value, Tensor):
                keep(f"{key}.{name}", value, p)
            elif isinstance(value, list):
                rest.setdefault("lists", {})[f"{key}.{name}"] = len(value)
                for i, item in enumerate(value):
                    if isinstance(item, Tensor):
                        keep(f"{key}/{i}.{name}", item, p)
            else:
                rest.setdefault("values", {})[f"{key}.{name}"] = value
        for group, fresh in zip(self._groups(), self._fresh, strict=True):
            if changed := _changes(group, fresh):
                of = [self._names[p] for p in group["params"]]
                rest.setdefault("groups", []).append({"of": of, "values": changed})
        if rest:
            found[REST] = torch.frombuffer(bytearray(json.dumps(rest, sort_keys=True).encode()), dtype=torch.uint8)
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `tensors` returned, in copies. Raises ValueError for what does not fit the model.

        A parameter that is no longer trained drops its state; one that was not trained before has none yet.
        """
        rest = json.loads(tensors[REST].cpu().numpy().tobytes()) if REST in tensors else {}
        owners = {self._names[p]: (o, p) for o in self._optimizers for g in o.param_groups for p in g["params"]}
        known = set(self._names.values())
        for optimizer in self._optimizers:
            optimizer.state.clear()

        def place(full: str) -> tuple[str, str, Group, Tensor] | None:
            """The key, the place in a list if any, and the parameter's state, if it is still trained."""
            key, _, name = full.partition(".")
            if name not in known:
                raise ValueError(f"optimizer state {full!r}: the model has no parameter {name!r}")
            if name not in owners:
                return None
            optimizer, p = owners[name]
            key, _, index = key.partition("/")
            return key, index, optimizer.state[p], p

        for part, make in (("values", lambda value: value), ("lists", lambda length: [[] for _ in range(length)])):
            for full, value in rest.get(part, {}).items():
                if found := place(full):
                    key, _, state, _ = found
                    state[key] = make(value)
        on_cpu, strides = set(rest.get("on_cpu", ())), rest.get("strides", {})
        for full, tensor in tensors.items():
            if full == REST or not (found := place(full)):
                continue
            key, index, state, p = found
            if tensor.shape not in (p.shape, ()) and key not in FREE_SHAPES:
                shapes = f"shape {tuple(tensor.shape)}, not {tuple(p.shape)}"
                raise ValueError(f"optimizer state {full!r}: {shapes}")
            copy = _copy(tensor, p, strides.get(full), torch.device("cpu") if full in on_cpu else p.device)
            if index:
                state[key][int(index)] = copy
            else:
                state[key] = copy
        self._load_groups(rest.get("groups", []))

    def _load_groups(self, saved: Sequence[Mapping[str, Any]]) -> None:
        """Groups may be cut otherwise than when they were saved: each takes the state that its parameters had."""
        by_name = {name: entry["values"] for entry in saved for name in entry["of"]}
        for group, fresh in zip(self._groups(), self._fresh, strict=True):
            for key in _changes(group, fresh):
                del group[key]
            group.update(fresh)
            mine = (by_name[self._names[p]] for p in group["params"] if self._names[p] in by_name)
            device = group["params"][0].device
            group.update({key: _decoded(value, device) for key, value in next(mine, {}).items()})


def _entries(group: Group) -> Group:
    return {key: value for key, value in group.items() if key not in SETTINGS}


def _changes(group: Group, fresh: Group) -> Group:
    """What the optimizer itself has put into a group, in JSON's terms."""
    return {
        key: {"dtype": str(value.dtype).removeprefix("torch."), "tensor": value.tolist()}
        if isinstance(value, Tensor)
        else value
        for key, value in _entries(group).items()
        if isinstance(value, Tensor) or key not in fresh or value != fresh[key]
    }


def _decoded(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return torch.tensor(value["tensor"], dtype=getattr(torch, value["dtype"]), device=device)
    return value


def _copy(tensor: Tensor, p: Tensor, strides: Sequence[int] | None, device: torch.device) -> Tensor:
    if strides is not None:
        return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=device).copy_(tensor)
    if tensor.shape == p.shape and is_parted(p):
        own = torch.zeros_like(p, dtype=tensor.dtype, requires_grad=False)
        put(own, tensor)
        return own
    if tensor.shape == p.shape and device == p.device:  # in the parameter's own memory layout
        return torch.empty_like(p, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
    return tensor.to(device, copy=True)
