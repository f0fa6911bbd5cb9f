"""The tensors of a checkpoint, read from its folder one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from multistep.backends.torch.weights import STATE


class Saved(Mapping[str, Tensor]):
    """A checkpoint's tensors by their names, each read when it is asked for, on the CPU."""

    def __init__(self, folder: Path) -> None:
        self._file: Any = safe_open(folder / STATE, "pt")
        self._names = frozenset[str](name for name in self._file.keys())  # noqa: SIM118 - a file, not a mapping

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        found: Tensor = self._file.get_tensor(name)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)


class Named(Mapping[str, Tensor]):
    """Of a checkpoint's tensors those whose names begin with a prefix, without it."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        self._tensors, self._prefix = tensors, prefix

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(self._prefix) for name in self._tensors if name.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)
