"""The tensors of a checkpoint, written and read: in one file, or in one for each process where they are many.

Where a model is sharded and its state is large, each process writes the rows that it has to a file of its own, all at
once; which rows these are stands in the file's head. Any number of processes can read them again. No pickle is read or
written, and the engine's manifest has the checksums of all files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from multistep.backends.torch.parts import is_parted, local, own_rows
from multistep.backends.torch.weights import DOWN, STATE, UP, as_os_errors, mean_product
from multistep.engine.checkpoints import sync

WHOLE_BYTES = 2**31  # of a state, that the first process gathers and writes by itself
ROWS = "rows"  # in the head of a file of one process: from which row on it holds which tensor
PARTS = "state-*-of-*.safetensors"


class Place(Protocol):
    """Which of how many processes this is, of a model that they have in parts."""

    rank: int
    size: int

    def gathered(self, tensor: Tensor) -> Tensor | None: ...


def part_file(rank: int, size: int) -> str:
    return f"state-{rank + 1:05d}-of-{size:05d}.safetensors"


def write(folder: Path, tensors: Mapping[str, Tensor], place: Place | None) -> None:
    """Write tensors of which each process may have some rows; at a `place`, all of them do so together."""
    if place is None:
        write_file(folder / STATE, tensors)
    elif sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > WHOLE_BYTES:
        _write_part(folder, tensors, place)
    else:
        whole = {name: place.gathered(tensor) for name, tensor in tensors.items()}
        if place.rank == 0:
            write_file(folder / STATE, {name: tensor for name, tensor in whole.items() if tensor is not None})


def _write_part(folder: Path, tensors: Mapping[str, Tensor], place: Place) -> None:
    """What all have, the first one writes; of a tensor of few rows, some processes have none."""
    rows = {name: own_rows(tensor) for name, tensor in tensors.items() if is_parted(tensor)}
    mine = {
        name: local(tensor).detach().to("cpu", copy=True)  # some are views into memory that is padded
        for name, tensor in tensors.items()
        if (rows[name].stop > rows[name].start if name in rows else place.rank == 0)
    }
    file = folder / part_file(place.rank, place.size)
    write_file(file, mine, {ROWS: json.dumps({name: rows[name].start for name in mine if name in rows})})
    sync(file)  # by who has written it: the engine may be on another machine


def write_file(file: Path, tensors: Mapping[str, Tensor], head: dict[str, str] | None = None) -> None:
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with as_os_errors():
        save_file(on_cpu, file, metadata=head)  # for the owner's eyes; the engine publishes it for those of others


class Saved(Mapping[str, Tensor]):
    """A checkpoint's tensors by their names, each read when it is asked for, whole, on the CPU."""

    def __init__(self, folder: Path) -> None:
        files = [folder / STATE] if (folder / STATE).exists() else sorted(folder.glob(PARTS))
        self._pieces: dict[str, list[tuple[int, Any]]] = {}  # by name: from which row on, in which file
        opened: list[Any] = [safe_open(path, "pt") for path in files]
        for file in opened:
            rows = json.loads((file.metadata() or {}).get(ROWS, "{}"))
            for name in file.keys():  # noqa: SIM118 - a file, not a mapping
                self._pieces.setdefault(name, []).append((rows.get(name, 0), file))

    def __getitem__(self, name: str) -> Tensor:
        in_order = sorted(self._pieces[name], key=lambda piece: piece[0])
        pieces: list[Tensor] = [file.get_tensor(name) for _, file in in_order]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def __contains__(self, name: object) -> bool:
        return name in self._pieces

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._pieces))

    def __len__(self) -> int:
        return len(self._pieces)


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


def mean_weights(folders: Sequence[Path]) -> dict[str, Tensor]:
    """The uniform mean of what is named `average.*` in each folder's state, under the same names.

    Summed in float64, so that the order of the folders makes no difference that float32 could show. What is not
    a floating-point number, a counter, is the last folder's. An adapter's two matrices count as their product, of which
    the mean is taken: the mean of each by itself has another one. Sources: stochastic weight averaging, arXiv
    1803.05407; model soups, 2203.05482.
    """
    total: dict[str, Tensor] = {}
    pairs: dict[str, list[Tensor]] = {}
    for folder in folders:
        saved = Saved(folder)
        for name in saved:
            if name.startswith("average."):
                tensor = saved[name]
                if DOWN in name or UP in name:
                    pairs.setdefault(name, []).append(tensor.double())
                if tensor.is_floating_point():
                    tensor = tensor.double() + total[name] if name in total else tensor.double()
                total[name] = tensor
    means = {name: tensor / len(folders) if tensor.is_floating_point() else tensor for name, tensor in total.items()}
    for name in (name for name in pairs if DOWN in name):
        other = name.replace(DOWN, UP)
        means[name], means[other] = mean_product(pairs[name], pairs[other])
    return means
