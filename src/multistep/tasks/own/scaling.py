"""Targets of another scale than networks begin at: trained on in units of their own spread, told in the user's.

A network that says about 0 at first and is to say 500 spends its training on getting there. So what the model says is
taken as a number of standard deviations from the targets' mean while it is trained; the loss sees it in the user's
unit, so that it means what it meant. Its last layer is linear, so mean and deviation go into that at the end: what is
exported is the user's own module, in the user's unit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from multistep.errors import PlanError
from multistep.tasks.own.losses import DISTANCES, OwnLoss

FAR, NARROW = 5.0, 0.2  # of mean and deviation: what networks do not begin at
CLEARLY = 0.8  # of the loss of the mean: a model that comes to less has been trained
PROBES = ((-1.7, -3.1), (0.6, 2.3))  # factors and shifts that only a linear last layer passes through

LEAVE = "leave it out, and standardise the targets in the data"

Call = Callable[[nn.Module], Any]


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of each number of a target (shape: K), and the linear `layer` that takes them in.

    `unit` is the loss of always saying the mean: gradients are divided by it. `trained` tells that the model that was
    given is better than that, so its last layer is brought to these units first.
    """

    layer: str
    mean: Tensor
    deviation: Tensor
    unit: float
    trained: bool
    _placed: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __call__(self, output: Tensor) -> Tensor:
        """What the model says, in the user's unit."""
        output = output if output.dtype == torch.float64 else output.float()
        key = (output.device, output.dtype)
        if key not in self._placed:  # once, not at each step
            with torch.inference_mode(False):  # or training could not use what a look has placed
                self._placed[key] = self.deviation.to(*key), self.mean.to(*key)
        deviation, mean = self._placed[key]
        return output * deviation + mean

    def eased(self, loss: Tensor) -> Tensor:
        """The same number, with gradients as of targets of mean 0 and deviation 1."""
        return loss.detach() + (loss - loss.detach()) / self.unit

    def folded(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of the module that says in the user's unit what the trained one says in deviations."""
        return {**weights, **_fold(weights, self.layer, self.deviation, self.mean)}

    def unfold(self, module: nn.Module) -> None:
        """Bring the last layer of a module that speaks the user's unit to deviations, in place."""
        state = dict(module.named_parameters())
        brought = _fold(state, self.layer, 1 / self.deviation, -self.mean / self.deviation)
        with torch.no_grad():
            for name, tensor in brought.items():
                state[name].copy_(tensor)

    @property
    def said(self) -> str:
        """The note in a run's facts."""
        pairs = zip(self.mean.tolist(), self.deviation.tolist(), strict=True)
        shown = ", ".join(f"{mean:.4g} ± {deviation:.3g}" for mean, deviation in list(pairs)[:4])
        more = ", ..." if len(self.mean) > 4 else ""
        return (
            f"targets: their mean and deviation are {shown}{more}; '{self.layer}' is trained in these units, the loss "
            "and all scores stay in the targets' own, and so are the exported weights (standardize=False leaves it)"
        )


def _fold(weights: Mapping[str, Tensor], layer: str, factor_K: Tensor, shift_K: Tensor) -> dict[str, Tensor]:
    prefix = f"{layer}." if layer else ""
    weight, bias = weights[f"{prefix}weight"].detach(), weights[f"{prefix}bias"].detach()
    factor, shift = factor_K.to(weight.device), shift_K.to(weight.device)
    return {
        f"{prefix}weight": (weight.double() * factor[:, None]).to(weight.dtype),
        f"{prefix}bias": (bias.double() * factor + shift).to(bias.dtype),
    }


def scaling_of(
    module: nn.Module, call: Call, loss: OwnLoss, kind: str, targets: Tensor | None, tried: Any, wanted: bool | None
) -> tuple[Scaling | None, list[str]]:
    """How targets are scaled, if they are, and what is to be said of it.

    `targets` are those of some training examples; `call` gives a module's output of the few whose targets are `tried`.
    `wanted` is the user's `standardize`. Raises PlanError where it is True and cannot be.
    """
    why = _why_not(loss, kind, targets)
    if why and wanted:
        raise PlanError(f"standardize=True: {why}; {LEAVE}")
    if why or targets is None or wanted is False:
        return None, []
    flat_NK = targets.double().reshape(len(targets), -1)
    mean_K, deviation_K = flat_NK.mean(0), flat_NK.std(0, correction=0)
    deviation_K = torch.where(deviation_K > 0, deviation_K, torch.ones_like(deviation_K))
    far = bool((mean_K.abs() > FAR).any() or (deviation_K > FAR).any() or (deviation_K < NARROW).any())
    if not far and not wanted:
        return None, []
    if (layer := _last_layer(module, call, len(mean_K))) is None:
        why = "the model's output is not that of a linear layer with a bias, used once"
        if wanted:
            raise PlanError(f"standardize=True: {why}; {LEAVE}")
        numbers = f"their mean is {float(mean_K[0]):.4g}, their deviation {float(deviation_K[0]):.3g}"
        return None, [f"targets: {numbers}, and {why}: training is quicker where the data has them standardised"]
    said = call(module)
    unit = _value(loss, mean_K.to(said.dtype).expand(len(targets), -1).reshape(targets.shape), targets)
    mean = mean_K.to(said.dtype).expand(len(said), -1).reshape(said.shape)
    trained = _value(loss, said.detach(), tried) < CLEARLY * _value(loss, mean, tried)
    scaling = Scaling(layer, mean_K, deviation_K, max(unit, 1e-12), trained)
    return scaling, [scaling.said]


NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def far_inputs(module: nn.Module, call: Call, inputs: Sequence[Tensor]) -> str | None:
    """What is to be said of inputs that networks do not begin at; None where one normalises them first."""
    first: list[nn.Module] = []
    parts = [part for part in module.modules() if not any(True for _ in part.children())]
    hooks = [part.register_forward_pre_hook(lambda part, _: first.append(part)) for part in parts]
    try:
        call(module)
    finally:
        for hook in hooks:
            hook.remove()
    if first and isinstance(first[0], NORMS):
        return None
    for tensor in inputs:
        if not tensor.is_floating_point() or tensor.numel() < 8:
            continue
        mean, deviation = float(tensor.double().mean()), float(tensor.double().std())
        if abs(mean) > FAR or deviation > FAR:
            return (
                f"inputs: their mean is about {mean:.3g}, their deviation {deviation:.3g}; most networks learn badly "
                "from such: unless the model normalises them itself, standardise them in the data"
            )
    return None


@torch.no_grad()
def _value(loss: OwnLoss, output: Tensor, target: Tensor) -> float:
    return float(loss.value(output, target, 0.0).mean())


def _why_not(loss: OwnLoss, kind: str, targets: Tensor | None) -> str | None:
    """Why output and target have no unit in common; None where they have."""
    if kind not in ("number", "numbers") or targets is None:
        return "the targets are no numbers of the output's shape"
    if loss.standard:
        return None if isinstance(loss.given, DISTANCES) else f"{loss.name} compares no numbers of one unit"
    try:  # a function that is 0 where the output is the target, and not elsewhere, compares numbers of one unit
        mean = targets.mean(0, keepdim=True).expand_as(targets)
        at, beside = _value(loss, targets, targets), _value(loss, mean, targets)
    except Exception:  # whatever a user's loss says to outputs that are no model's
        return f"{loss.name} cannot be tried on the targets themselves"
    if not (beside > 0 and abs(at) <= 1e-9 * beside):
        return f"{loss.name} is not 0 where the output is the target"
    return None


@torch.no_grad()
def _last_layer(module: nn.Module, call: Call, width: int) -> str | None:
    """The linear layer that the output is the output of, by changing its weights and seeing the output change alike."""
    names = {part: name for name, part in module.named_modules()}
    called: list[nn.Module] = []
    hooks = [part.register_forward_hook(lambda part, *_: called.append(part)) for part in names]
    try:
        said = call(module)
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(said, Tensor):
        return None
    linear = [part for part in called if type(part) is nn.Linear]
    if not linear or called.count(linear[-1]) != 1:
        return None
    layer = linear[-1]
    shares = [id(p) for _, p in module.named_parameters(remove_duplicate=False)]
    usable = layer.out_features == width and {"weight", "bias"} <= layer._parameters.keys() and layer.bias is not None
    if not usable or any(shares.count(id(p)) != 1 or not p.requires_grad for p in layer.parameters()):
        return None
    for factor, shift in PROBES:
        other = copy.deepcopy(module)
        changed = other.get_submodule(names[layer])
        assert isinstance(changed, nn.Linear)
        changed.weight.mul_(factor)
        changed.bias.mul_(factor).add_(shift)
        if not torch.allclose(call(other), said * factor + shift, rtol=1e-4, atol=1e-4 * float(said.abs().max() + 1)):
            return None
    return str(names[layer])
