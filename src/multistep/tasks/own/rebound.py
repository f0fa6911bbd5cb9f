"""A loss that reads the model itself, for a penalty, say: it is to read the weights that are trained, not those given.

What a user's function refers to (by a closure, a global, an attribute) is the module that was given, of which training
has a copy. While the function is called, the given module stands for that copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from multistep.errors import PlanError
from multistep.tasks.own.meeting import tensors_in


class StandIn:
    """Lets the given module stand for a copy of it."""

    def __init__(self, given: nn.Module) -> None:
        self.given = given
        self.needed = False  # whether the loss was seen to read the given module's parameters
        self._pairs: tuple[nn.Module, list[tuple[nn.Module, nn.Module]]] | None = None

    @contextmanager
    def standing_for(self, model: nn.Module) -> Iterator[None]:
        """While it is open, the given module and all its parts are those of `model`; afterwards they are as they were.

        Raises PlanError where a loss needs that and the two are made otherwise.
        """
        pairs = self._paired(model)
        kept = [(mine, mine.__dict__) for mine, _ in pairs]
        try:
            for mine, theirs in pairs:
                object.__setattr__(mine, "__dict__", theirs.__dict__)
            yield
        finally:
            for mine, state in kept:
                object.__setattr__(mine, "__dict__", state)

    def _paired(self, model: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
        if self._pairs is not None and self._pairs[0] is model:
            return self._pairs[1]
        mine, theirs = list(self.given.modules()), list(model.modules())
        alike = [type(part) for part in mine] == [type(part) for part in theirs] or _was_lazy(mine, theirs)
        if not alike or any(isinstance(part, torch.jit.ScriptModule) for part in mine):
            if self.needed:
                raise PlanError(
                    "the loss reads the parameters of the model, which cannot stand for its trained copy here (with an "
                    "adapter it is made otherwise, and a scripted one is sealed); leave the adapter out, or have the "
                    "model return what the loss is to read"
                )
            mine, theirs = [], []
        self._pairs = (model, list(zip(mine, theirs, strict=True)))
        return self._pairs[1]


def _was_lazy(mine: list[nn.Module], theirs: list[nn.Module]) -> bool:
    """Whether they differ by lazy modules alone, which have become others in their first call."""
    return len(mine) == len(theirs) and all(
        type(a) is type(b) or getattr(a, "cls_to_become", None) is type(b) for a, b in zip(mine, theirs, strict=True)
    )


def foreign_parameters(value: Any, model: nn.Module) -> list[nn.Parameter]:
    """The parameters that what was computed has gradients for, and that are none of the model's."""
    own = {parameter.data_ptr() for parameter in model.parameters()}  # a scripted module makes new ones each time
    todo = [tensor.grad_fn for tensor in tensors_in(value)]
    found: dict[int, nn.Parameter] = {id(t): t for t in tensors_in(value) if isinstance(t, nn.Parameter)}
    seen: set[Any] = set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable: Tensor | None = getattr(node, "variable", None)
        if isinstance(variable, nn.Parameter):
            found[id(variable)] = variable
        todo += [other for other, _ in node.next_functions]
    return [parameter for parameter in found.values() if parameter.requires_grad and parameter.data_ptr() not in own]
