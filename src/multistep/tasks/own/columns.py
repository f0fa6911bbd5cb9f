"""Inputs whose columns have wildly different scales: trained on in units of their own spread, exported in the user's.

Of an income in euros beside an age in years the income is all that a first layer sees. Where it is a linear layer that
takes the rows as they are, mean and deviation of each column go into its weights when the model is exported, so what
comes out is the user's own module, for rows as the user has them. Nothing is put in front of it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from multistep.tasks.own.reading import main_tensor

FAR, TINY = 5.0, 0.05  # of a column's root mean square: what is larger is scaled, and what is smaller but never 0
MOST_COLUMNS = 10_000
MOST_OFF = 1e4  # a column's mean in deviations: beyond, single precision loses what is left of it

Call = Callable[[nn.Module, Tensor], Any]  # a module, and rows in place of the first ones (shape: B, columns)


@dataclass(frozen=True)
class Columns:
    """Mean and deviation of each column (shape: F), 0 and 1 of those that stay, and the linear `layer` that has them.

    `trained` tells that the model that was given was trained on rows as they are, so its layer is brought to these
    units first.
    """

    layer: str
    mean: Tensor
    deviation: Tensor
    trained: bool
    _placed: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __call__(self, rows_BF: Tensor) -> Tensor:
        """The rows in these units."""
        key = (rows_BF.device, rows_BF.dtype)
        if key not in self._placed:  # once, not at each step
            with torch.inference_mode(False):  # or training could not use what a look has placed
                self._placed[key] = self.mean.to(*key), self.deviation.to(*key)
        mean_F, deviation_F = self._placed[key]
        return (rows_BF - mean_F) / deviation_F

    def folded(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of the module that says of rows as they are what the trained one says of them in these units."""
        return {**weights, **_fold(weights, self.layer, self.mean, self.deviation)}

    def unfold(self, module: nn.Module) -> None:
        """Bring the layer of a module that takes rows as they are to these units, in place."""
        state = dict(module.named_parameters())
        brought = _fold(state, self.layer, -self.mean / self.deviation, 1 / self.deviation)
        with torch.no_grad():
            for name, tensor in brought.items():
                state[name].copy_(tensor)

    @property
    def said(self) -> str:
        """What stands in the run's notes."""
        changed = (self.mean != 0) | (self.deviation != 1)
        low, high = (f"{float(value):.3g}" for value in (self.deviation[changed].min(), self.deviation[changed].max()))
        between = low if low == high else f"{low} to {high}"
        return (
            f"inputs: {int(changed.sum())} of {len(self.mean)} columns lie far from 0 or 1 (deviations of {between}); "
            f"'{self.layer}' is trained on them in units of the training split's deviation, and exported for rows as "
            "they are (standardize=False leaves it)"
        )


def _fold(weights: Mapping[str, Tensor], layer: str, mean_F: Tensor, deviation_F: Tensor) -> dict[str, Tensor]:
    """A layer for z, the rows in units -> the layer that says the same of the rows: W z + b with z = (x - m) / d."""
    prefix = f"{layer}." if layer else ""
    weight, bias = weights[f"{prefix}weight"].detach(), weights[f"{prefix}bias"].detach()
    scaled = weight.double() / deviation_F.double().to(weight.device)
    return {
        f"{prefix}weight": scaled.to(weight.dtype),
        f"{prefix}bias": (bias.double() - scaled @ mean_F.double().to(weight.device)).to(bias.dtype),
    }


def columns_of(module: nn.Module, call: Call, rows: Tensor, tried: Tensor, *, trained: bool) -> Columns | None:
    """How columns are scaled; None where none is far, or where the rows do not go into one linear layer alone.

    `rows` are those of training examples (shape: N, F), `tried` the few that `call` is used with.
    """
    if rows.ndim != 2 or not rows.is_floating_point() or rows.shape[1] > MOST_COLUMNS or len(rows) < 2:
        return None
    values = rows.double()
    mean_F, deviation_F = values.mean(0), values.std(0, correction=0)
    size_F = values.square().mean(0).sqrt()
    far_F = (size_F > FAR) | ((size_F > 0) & (size_F < TINY) & (values != 0).all(0))
    usable_F = (deviation_F > 0) & (mean_F.abs() <= MOST_OFF * deviation_F)
    if not bool((far_F & usable_F).any()) or bool((far_F & (deviation_F > 0) & ~usable_F).any()):
        return None
    changed_F = far_F & usable_F
    mean_F = torch.where(changed_F, mean_F, torch.zeros_like(mean_F))
    deviation_F = torch.where(changed_F, deviation_F, torch.ones_like(deviation_F))
    layer = _first_layer(module, call, tried)
    if layer is None:
        return None
    found = Columns(layer, mean_F, deviation_F, trained)
    return found if _says_the_same(module, call, tried, found) else None


@torch.no_grad()
def _first_layer(module: nn.Module, call: Call, tried: Tensor) -> str | None:
    """The linear layer that is given the rows as they are; None if there is none, or if it is not trained as such."""
    given: list[Any] = []
    names: dict[nn.Module, str] = {part: name for name, part in module.named_modules() if type(part) is nn.Linear}

    def see(part: nn.Module, arguments: tuple[Any, ...]) -> None:
        first = arguments[0] if arguments else None
        if isinstance(first, Tensor) and first.shape == tried.shape and torch.equal(first, tried):
            given.append(part)

    hooks = [part.register_forward_pre_hook(see) for part in names]
    try:
        call(module, tried)
    finally:
        for hook in hooks:
            hook.remove()
    if len(given) != 1 or given[0].bias is None or not {"weight", "bias"} <= given[0]._parameters.keys():
        return None
    shares = [id(p) for _, p in module.named_parameters(remove_duplicate=False)]
    if any(shares.count(id(p)) != 1 or not p.requires_grad for p in given[0].parameters()):
        return None
    return names[given[0]]


@torch.no_grad()
def _says_the_same(module: nn.Module, call: Call, tried: Tensor, columns: Columns) -> bool:
    """Whether the folded module says of rows what the module says of them in units, so that nothing else reads them.

    In double precision, and on rows that are spread over what the columns hold: those that are tried may be alike.
    """
    units = torch.randn(tried.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = units * columns.deviation + columns.mean
    try:
        plain, folded = copy.deepcopy(module).double(), copy.deepcopy(module).double()
        folded.load_state_dict(columns.folded(folded.state_dict()))
        said, wanted = main_tensor(call(folded, rows)), main_tensor(call(plain, columns(rows)))
    except Exception:  # a model that checks its rows, or that has numbers of single precision inside
        return False
    return said is not None and wanted is not None and torch.allclose(said, wanted, rtol=1e-5, atol=1e-7)
