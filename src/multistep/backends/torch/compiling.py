"""Compiling the blocks that a model repeats: one of them is compiled, and the others have the same code.

What is compiled is the call of a module, not the module: names of weights, copies and files know nothing of it.
"""

from __future__ import annotations

from torch import nn

from multistep.errors import PlanError

KINDS_OF_CALL = 64  # of one block (batch sizes, contexts, dropouts) before torch would give up compiling it; it says 8


def regions(model: nn.Module) -> list[nn.Module]:
    """The members of the outermost lists of modules of one class that have parts themselves."""
    if isinstance(model, nn.ModuleList | nn.Sequential) and len(model) > 1:
        members = list(model)
        if len({type(m) for m in members}) == 1 and any(True for _ in members[0].children()):
            return members
    return [found for child in model.children() for found in regions(child)]


def compile_regions(model: nn.Module, *, fixed: bool) -> None:
    """Have the repeated blocks, or the whole model where it repeats none, compiled when they are next called.

    `fixed` tells that batches have one shape, so that no code for any other is made.
    """
    import torch._dynamo

    settings = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, KINDS_OF_CALL)
    for module in regions(model) or [model]:
        module.compile(dynamic=False if fixed else None)


def released(model: nn.Module) -> None:
    """Have everything called as it is written again."""
    for module in model.modules():
        module._compiled_call_impl = None


def cannot_compile(error: Exception) -> PlanError:
    why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return PlanError(
        f"recipe.compile: this model cannot be compiled here ({type(error).__name__}: {why.strip()[:200]}); on a CPU "
        "it takes a C++ compiler. Set it to off, or leave it out"
    )
