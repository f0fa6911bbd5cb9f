"""The module that a recipe asks for, with its adapters, and weights of a checkpoint in it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from multistep.backends.torch.adapters import Adapter, Origin, fixed_names, inject, merge
from multistep.backends.torch.weights import fill_shared
from multistep.core.values.recipe import Recipe
from multistep.errors import PlanError


class Builder(Protocol):
    """What a task gives of its networks."""

    def build(self, seed: int, model: str | None = None) -> nn.Module:
        """The network that a recipe names, with its first weights, on the CPU; the same seed gives the same bits.

        None is the task's own choice. Raises PlanError for one that the task does not have.
        """

    def origin(self, model: str | None = None) -> Origin | None:
        """Where the weights of that network are from; None where they begin from nothing."""


def built(builder: Builder, recipe: Recipe, seed: int, *, own_base: bool = False) -> tuple[nn.Module, frozenset[str]]:
    """The network with its adapters, and the names of the weights that these leave as they are.

    These are shared with the task, unless they are to be written to (`own_base`).
    """
    adapter, origin = Adapter.of(recipe), builder.origin(recipe.model)
    share = origin.share if adapter and origin and not own_base else None
    model = share() if share else builder.build(seed, recipe.model)
    return _adapted(model, builder, adapter, recipe, seed)


def adopted(
    builder: Builder, recipe: Recipe, seed: int, tensors: Mapping[str, Tensor], saved: Mapping[str, Any]
) -> tuple[nn.Module, frozenset[str], bool]:
    """The network with the averaged weights of another phase's checkpoint, so far as both have them; the names of what
    adapters leave as it is, and whether that is this run's own, so that checkpoints must hold it.

    An adapter of the same form goes on; another one is merged first, and what it leaves is then no longer what was
    pretrained. Raises PlanError if the two share no weights, or for four bits of such: what they stand for is not in a
    checkpoint.
    """
    wanted, before = Adapter.of(recipe), Adapter.read(saved.get("adapter"))
    if wanted == before:
        own_base = bool(saved.get("own_base"))
        model, fixed = built(builder, recipe, seed, own_base=own_base)
        fill_shared(model, tensors, "average.")
        return model, fixed, own_base
    if wanted and wanted.kind == "qlora":
        raise PlanError(
            f"recipe.adapter is qlora, which holds weights as they were published, but the phase before trained "
            f"{_said(before)}; set it to lora"
        )
    model, _ = _adapted(builder.build(seed, recipe.model), builder, before, recipe, seed)
    fill_shared(model, tensors, "average.")
    return *_adapted(merge(model) if before else model, builder, wanted, recipe, seed), True


def _adapted(
    model: nn.Module, builder: Builder, adapter: Adapter | None, recipe: Recipe, seed: int
) -> tuple[nn.Module, frozenset[str]]:
    if adapter is None:
        return model, frozenset()
    origin = builder.origin(recipe.model)
    if origin is None:
        raise PlanError(
            f"recipe.adapter is {adapter.kind}, but this model begins from nothing, and weights that nothing has "
            "trained are not worth keeping as they are; set it to none, or name a pretrained model"
        )
    inject(model, adapter, origin, seed)
    return model, fixed_names(model)


def copied(model: nn.Module, fixed: frozenset[str]) -> nn.Module:
    """A copy whose weights can change; what is `fixed` is the same memory in both."""
    return copy.deepcopy(model, {id(p): p for name, p in model.named_parameters() if name in fixed})


def require_same_network(saved: Mapping[str, Any], recipe: Recipe, folder: Path, *, exact: bool) -> None:
    """Weights of one network mean nothing to another, nor has their mean a meaning. Raises PlanError.

    An adapter of a lower rank is the same function in a higher one; with `exact`, an optimizer's state is not.
    """
    of = saved.get("model", recipe.model)
    if of != recipe.model:
        raise PlanError(
            f"{folder.name} holds weights of {of or 'another network'}, which say nothing to "
            f"{recipe.model or 'this one'}; begin that one anew"
        )
    before, wanted = Adapter.read(saved.get("adapter")), Adapter.of(recipe)
    if before == wanted or (not exact and before is not None and before.grows_into(wanted)):
        return
    raise PlanError(
        f"{folder.name} was trained with {_said(before)}, this recipe asks for {_said(wanted)}; begin that one anew"
    )


def _said(adapter: Adapter | None) -> str:
    return f"{adapter.kind} of rank {adapter.rank}" if adapter else "all weights"
