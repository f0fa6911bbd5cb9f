"""The shapes that meet inside a user's loss: a target that is broadcast against the output trains to its mean.

torch says nothing where (8, 1) meets (8,): each example is compared with all others, and the loss is a number all the
same. So the loss is watched once, on a few examples, whatever it is made of.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Shape = tuple[int, ...]
# Functions that broadcast and then reduce: their result does not show what met.
REDUCING: tuple[str, ...] = (
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
    "poisson_nll_loss",
    "kl_div",
    "soft_margin_loss",
)
REDUCING += ("gaussian_nll_loss", "cosine_similarity", "pairwise_distance")
UNTOUCHED = ("float", "double", "to", "type", "type_as", "contiguous", "clone", "detach", "long", "int", "half")


@dataclass(frozen=True)
class Met:
    """Two tensors of different shape that were combined element by element.

    `crossed`: each row of one met all rows of the other. `plain`: they were output and target as they came, the
    first being the output.
    """

    one: Shape
    other: Shape
    together: Shape
    crossed: bool
    plain: bool

    def __str__(self) -> str:
        return f"{self.one} against {self.other}"


class Watch(TorchFunctionMode):
    """Notes what of output and target meets in another shape than its own, while it is open."""

    def __init__(self, output: Any, target: Any, size: int) -> None:
        """`output` and `target` may be nested; `size` is the number of examples."""
        super().__init__()
        self.met: list[Met] = []
        self._size = size
        self._known: dict[int, tuple[frozenset[str], bool, Tensor]] = {}  # kept: an id is told once
        for name, value in (("output", output), ("target", target)):
            for tensor in tensors_in(value):
                self._known[id(tensor)] = (frozenset((name,)), True, tensor)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        parts = [part for part in tensors_in((args, kwargs or {})) if id(part) in self._known]
        if parts:
            name = getattr(func, "__name__", "")
            for one, other in itertools.combinations(parts[:3], 2):
                self._look(name, one, other, result)
            origin = frozenset[str]().union(*(self._known[id(part)][0] for part in parts))
            same = len(parts) == 1 and name in UNTOUCHED and self._known[id(parts[0])][1]
            for tensor in tensors_in(result):
                if id(tensor) not in self._known:
                    self._known[id(tensor)] = (origin, same, tensor)
        return result

    def _look(self, name: str, one: Tensor, other: Tensor, result: Any) -> None:
        (of_one, plain_one, _), (of_other, plain_other, _) = self._known[id(one)], self._known[id(other)]
        if one.shape == other.shape or len(of_one | of_other) < 2:
            return
        try:
            together = torch.broadcast_shapes(one.shape, other.shape)  # type: ignore[no-untyped-call]
        except RuntimeError:
            return
        if name not in REDUCING and not (isinstance(result, Tensor) and result.shape == together):
            return
        low, high = sorted((tuple(one.shape), tuple(other.shape)), key=len)
        crossed = 0 < len(low) < len(high) and together not in (low, high) and low[0] == self._size == high[0]
        plain = plain_one and plain_other and of_one != of_other and one.ndim > 0 and other.ndim > 0
        if plain and "target" in of_one:
            one, other = other, one
        self.met.append(Met(tuple(one.shape), tuple(other.shape), tuple(together), crossed, plain))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)


def watched(call: Callable[[Any, Any], Any], output: Any, target: Any, size: int) -> tuple[list[Met], Exception | None]:
    """What meets in `call(output, target)`, and what it raised."""
    watch = Watch(output, target, size)
    try:
        with watch, torch.compiler.set_stance("force_eager"):
            call(output, target)
    except Exception as error:
        return watch.met, error
    return watch.met, None
