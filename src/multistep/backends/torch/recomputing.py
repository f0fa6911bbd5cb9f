"""Activation checkpointing: activations of a model's blocks are computed again for the gradient instead of being kept.

It takes about a third more of a step's operations, and of memory what one block's activations take instead of all.
Source: Chen et al., arXiv 1604.06174.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from multistep.errors import PlanError


def recompute(model: nn.Module, wanted: bool = True) -> bool:
    """Have blocks computed again in training, or kept; whether this model can.

    Those can that transformers has, and ours that say so by an attribute `recomputes`. Blocks of other modules may
    change their input in place, which would then be computed again from something else: they are left as they are.
    """
    found = list(_able(model))
    for module in found:
        if isinstance(getattr(module, "recomputes", None), bool):
            module.recomputes = wanted
            continue
        # transformers renames it as torch does; the old name is going.
        if wanted:
            enable = getattr(module, "activation_checkpointing_enable", None) or module.gradient_checkpointing_enable
            enable({"use_reentrant": False})  # which asks of no input that it requires a gradient: adapters' base
        else:
            (getattr(module, "activation_checkpointing_disable", None) or module.gradient_checkpointing_disable)()
    return bool(found)


def require_recompute(model: nn.Module) -> None:
    """As `recipe.checkpointing: on` says. Raises PlanError where the model cannot."""
    if not recompute(model):
        raise PlanError(
            f"recipe.checkpointing is on, but {type(model).__name__} has no blocks whose activations can be computed "
            "again; leave it out. A smaller recipe.micro_batch saves memory, too"
        )


def _able(module: nn.Module) -> Iterator[Any]:
    """The outermost modules that can."""
    ours, theirs = getattr(module, "recomputes", None), getattr(module, "supports_gradient_checkpointing", False)
    if isinstance(ours, bool) or theirs is True:
        yield module
        return
    for child in module.children():
        yield from _able(child)
