"""Optimizers behind one small face: a step at a given rate, and a state that safetensors can hold."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from multistep.backends.torch.adam import FusedAdam
from multistep.backends.torch.groups import kinds, layers_below_head
from multistep.backends.torch.muon import Muon
from multistep.backends.torch.parts import local
from multistep.backends.torch.state import StateKeeper
from multistep.core.values.recipe import OptimizerName, Recipe
from multistep.errors import PlanError

NAMES: tuple[OptimizerName, ...] = get_args(OptimizerName)
PACKAGES: Mapping[OptimizerName, str] = {
    "schedule-free": "schedulefree",
    "soap": "pytorch_optimizer",
    "lion": "pytorch_optimizer",
    "prodigy": "pytorch_optimizer",
}
HEAD_RATE = "head_rate"  # an attribute of models whose head asks for another rate than the rest

# Optimizers that cannot leave a step out by themselves, but must be told by the host. All others do it on the device.
ASKED = ("Adafactor", "AdamWScheduleFree", "SOAP", "Lion", "Prodigy")


def usable_optimizers() -> tuple[OptimizerName, ...]:
    """Those whose packages are there, found without importing any."""
    return tuple(name for name in NAMES if name not in PACKAGES or importlib.util.find_spec(PACKAGES[name]))


def _package(name: OptimizerName) -> Any:
    """The package that has this optimizer, imported only now: one of them takes 2 s."""
    try:
        return importlib.import_module(PACKAGES[name])
    except Exception as error:  # whatever a package may raise that does not fit this torch
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise PlanError(
            f"recipe.optimizer: '{name}' needs the package {PACKAGES[name]} ({why}); install it with "
            "pip install 'multistep[optimizers]', or choose one of " + ", ".join(n for n in NAMES if n not in PACKAGES)
        ) from error


def _without_compiler() -> None:
    """Keep `torch.optim` from importing torch's compiler, which takes 1.4 s, the first time it is used.

    It does so only to exclude its own bookkeeping methods from compilation, and looks first whether they have
    been excluded already: we say so. A torch that looks elsewhere merely imports it after all.
    """
    for method in vars(torch.optim.Optimizer).values():
        original = getattr(method, "__wrapped__", None)
        if original is not None and not hasattr(original, "__dynamo_disable"):
            setattr(original, "__dynamo_disable", original)


def _told(optimizer: Any, skip: Tensor | None) -> None:
    """Have an optimizer leave its next step out where `skip` is 1.0, as torch's GradScaler tells fused ones."""
    if skip is None or type(optimizer).__name__ in ASKED:
        return
    optimizer.found_inf = skip
    if isinstance(optimizer, torch.optim.SGD):
        # Else torch makes the buffers in a first step, whether it is taken or not, and takes them for filled in.
        for group in optimizer.param_groups:
            for p in group["params"] if group["momentum"] else ():
                if p.grad is not None and optimizer.state[p].get("momentum_buffer") is None:
                    optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)


class StepRule:
    """One or two torch optimizers that step together.

    Every group has a `multiplier`: its rate is the rate given to `step`, times it. It is 1 but for layer-wise
    rates, and for Muon, where the parameters that AdamW takes have `rest_ratio`. `one_rate`: the optimizer takes
    one rate for all groups (Prodigy), so that groups with another take a part of the step instead.
    `keeps_average`: it averages the weights itself (schedule-free). `norm` tells the norm of the gradient of parameters
    of which this process has a part.
    """

    norm: Callable[[Sequence[Tensor]], Tensor] | None = None

    def __init__(
        self,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        clip_norm: float | None,
        *,
        one_rate: bool = False,
        keeps_average: bool = False,
    ) -> None:
        self.optimizers, self.clip_norm, self.keeps_average = optimizers, clip_norm, keeps_average
        self._one_rate = one_rate
        self._state = StateKeeper(optimizers, {p: name for name, p in model.named_parameters()})

    def _groups(self) -> Iterable[dict[str, Any]]:
        return (group for optimizer in self.optimizers for group in optimizer.param_groups)

    def step(self, learning_rate: float, skip: Tensor | None = None) -> None:
        """One step at this rate; none where `skip` is 1.0 (0.0: taken; on the device; None: taken).

        Nothing is copied from the device, but by Prodigy and, where there is a `skip`, for those of `ASKED`.
        """
        if skip is not None and any(type(o).__name__ in ASKED for o in self.optimizers) and bool(skip):
            return
        if self.clip_norm is not None:
            parameters = [p for group in self._groups() for p in group["params"]]
            self._clip(parameters, self.clip_norm)
        slowed: list[tuple[list[Tensor], list[Tensor], float]] = []
        for group in self._groups():
            multiplier = group["multiplier"]
            if self._one_rate and multiplier != 1.0:
                before = [p.detach().clone() for p in group["params"]]
                slowed.append((group["params"], before, 1.0 - multiplier))
                multiplier = 1.0
            group["lr"] = learning_rate * multiplier
        for optimizer in self.optimizers:
            _told(optimizer, skip)
            optimizer.step()
        with torch.no_grad():
            for after, before, back in slowed:
                torch._foreach_lerp_(after, before, back)

    @torch.no_grad()
    def _clip(self, parameters: Sequence[Tensor], most: float) -> None:
        if self.norm is None:
            torch.nn.utils.clip_grad_norm_(parameters, most)
            return
        part = (most / (self.norm(parameters) + 1e-6)).clamp_max(1.0)  # as torch's
        torch._foreach_mul_([local(p.grad) for p in parameters if p.grad is not None], part)

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def write_average(self, parameters: list[Tensor], averages: list[Tensor]) -> None:
        """Copy the averaged weights of an optimizer that keeps them, parameter by parameter.

        The weights in training, y, lie between the average, x, and the fast sequence, z: y = beta x + (1 - beta) z.
        The package's own switch moves y to x and back in place, which loses bits; x is computed aside instead.
        """
        torch._foreach_copy_(averages, parameters)
        of = {id(p): average for p, average in zip(parameters, averages, strict=True)}
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                pairs = [(of[id(p)], optimizer.state[p]["z"]) for p in group["params"] if "z" in optimizer.state[p]]
                if pairs:
                    x, z = zip(*pairs, strict=True)
                    torch._foreach_lerp_(x, z, 1.0 - 1.0 / group["betas"][0])

    def state_tensors(self) -> dict[str, Tensor]:
        """The state itself, not copies, by names like `momentum_buffer.blocks.0.out.weight`."""
        return self._state.tensors()

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue exactly from what `state_tensors` returned under the same optimizer and model.

        Raises ValueError if a tensor belongs to no parameter, or has another shape.
        """
        self._state.load(tensors)


def build_optimizer(
    name: OptimizerName,
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    momentum: float | None = None,
    nesterov: bool = True,
    betas: tuple[float, float] = (0.9, 0.99),
    rest_ratio: float = 0.5,
    clip_norm: float | None = None,
    layer_decay: float = 1.0,
) -> StepRule:
    """An optimizer for the parameters that require gradients; build it after the model is on its device.

    `weight_decay` acts on matrices only, decoupled but for SGD and Adam (there torch's own, in the gradient).
    `momentum` is 0.9 for SGD and 0.95 for Muon unless given. Under Muon, everything but matrices takes AdamW
    at `rest_ratio` times the rate. `clip_norm` bounds the global norm of the gradient. Each layer below the head
    has `layer_decay` times the rate of the one above. Where the model has an attribute `head_rate`, the head has so
    much of its rate.

    Raises ValueError for an unknown name, PlanError where a package is missing.
    """
    if name not in NAMES:
        raise ValueError(f"optimizer: got {name!r}; allowed: {', '.join(NAMES)}")
    _without_compiler()
    parameters, of = dict(model.named_parameters()), kinds(model)
    matrices = [n for n, (kind, _) in of.items() if kind == "matrix"]
    rest = [n for n in of if n not in set(matrices)]
    below = layers_below_head(model) if layer_decay != 1.0 else dict.fromkeys(of, 0)

    of_head = getattr(model, HEAD_RATE, 1.0)

    def groups(names: list[str], decay: float, multiplier: float = 1.0, **more: Any) -> list[dict[str, Any]]:
        by_rate: dict[tuple[int, float], list[str]] = {}
        for n in names:
            by_rate.setdefault((below[n], of_head if of[n][0] == "head" else 1.0), []).append(n)
        return [
            {
                "params": [parameters[n] for n in some],
                "matrices": [of[n][1] for n in some],
                "weight_decay": decay,
                "multiplier": multiplier * part * layer_decay**depth,
                **more,
            }
            for (depth, part), some in by_rate.items()
        ]

    def rule(*optimizers: torch.optim.Optimizer, **more: bool) -> StepRule:
        return StepRule(model, list(optimizers), clip_norm, **more)

    rate = learning_rate
    plain = groups(matrices, weight_decay) + groups(rest, 0.0)
    match name:
        case "muon":
            made: list[torch.optim.Optimizer] = []
            if matrices:
                beta = 0.95 if momentum is None else momentum
                made.append(Muon(groups(matrices, weight_decay), lr=rate, momentum=beta, nesterov=nesterov))
            if rest:
                made.append(FusedAdam(groups(rest, 0.0, rest_ratio), lr=rate, betas=betas))
            return rule(*made)
        case "sgd":
            beta = 0.9 if momentum is None else momentum
            return rule(torch.optim.SGD(plain, lr=rate, momentum=beta, nesterov=nesterov and beta > 0, fused=True))
        case "adamw" | "adam":
            return rule(FusedAdam(plain, lr=rate, betas=betas, decoupled=name == "adamw"))
        case "adafactor":
            # Steps are relative to the weights' size, and no smaller than to that of the second epsilon: by torch's
            # 1e-3, weights that start at zero, as ours do, stay there for hundreds of steps.
            return rule(torch.optim.Adafactor(plain, lr=rate, eps=(None, 3e-2), weight_decay=0.0))
        case "schedule-free":
            if not betas[0]:
                raise PlanError("recipe.betas: schedule-free averages by the first of them; it must be more than 0")
            optimizer = _package(name).AdamWScheduleFree(plain, lr=rate, betas=betas)
            optimizer.train()  # for good: see `write_average`
            return rule(optimizer, keeps_average=True)
        case "soap":
            # Embeddings and heads take one side alone (arXiv 2409.11321): the other is as long as the vocabulary.
            width = max((min(parameters[n].shape) for n in rest if parameters[n].ndim > 1), default=1)
            one_sided = groups(matrices, weight_decay) + groups(rest, 0.0, max_precondition_dim=width)
            return rule(_package(name).SOAP(one_sided, lr=rate, betas=betas))
        case "lion":
            return rule(_package(name).Lion(plain, lr=rate, betas=betas))
        case "prodigy":
            # What its authors advise where the rate is warmed up and cooled down: arXiv 2306.06101.
            found = _package(name).Prodigy(plain, lr=rate, betas=betas, bias_correction=True, safeguard_warmup=True)
            return rule(found, one_rate=True)


def step_rule(model: nn.Module, recipe: Recipe) -> StepRule:
    """The optimizer that a recipe asks for; build it after the model is on its device."""
    assert recipe.learning_rate is not None, "a resolved recipe has a learning rate"
    return build_optimizer(
        recipe.optimizer,
        model,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay or 0.0,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        betas=recipe.betas,
        clip_norm=recipe.gradient_clip or None,
        layer_decay=recipe.layer_decay,
    )
