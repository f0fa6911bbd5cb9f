"""The linear probe: a last layer that is fitted on what it reads of a frozen pretrained model.

The honest cheap rival of fine-tuning, and where fine-tuning begins from (linear probing, then fine-tuning: arXiv
2202.10054). What it costs is bounded by rule, and it is the same for the same data and weights, so that a run that is
resumed finds it in the cache, or makes it again. Of labels it is logistic regression; `speech.probe` fits one of its
own, and has all else from here.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from multistep.backends.torch.devices import pick_device
from multistep.core.values.recipe import Setting
from multistep.data.cache import kept
from multistep.errors import DataError, PlanError
from multistep.tasks.labelled.labels import Labels
from multistep.tasks.labelled.scale import last_linear

SHARE = 0.05  # of the budget's seconds may go to a probe's features
MOST, LEAST = 2000, 200  # examples of train; with fewer, a probe says nothing of the model
# scikit-learn's C, divided by the number of examples; of 1 to 1000, the best on SST-2: docs/appendix/measured-tasks.md
PENALTY = 10.0
ITERATIONS = 300
ABSENT = -10.0  # logit of a class that the probe has not seen, below the least of the others'
KIND, FILE = "linear-probes", "head.safetensors"
Layer: TypeAlias = tuple[Tensor, Tensor]  # weight (classes, width) and bias (classes)


@dataclass(frozen=True)
class LinearProbe:
    """A last layer (weight: classes, width; bias: classes), fitted on `examples` of the training split.

    `method` and `unit` say in words how, and what the examples are.
    """

    weight: Tensor
    bias: Tensor
    examples: int
    method: str = "logistic regression"
    unit: str = "examples"

    @classmethod
    def fit(cls, features: NDArray[np.float64], labels: NDArray[np.int64], classes: int) -> LinearProbe:
        """Deterministic; `features` are (examples, width). That they were standardised is folded into the layer."""
        from sklearn.linear_model import LogisticRegression

        mean, deviation = features.mean(0), features.std(0) + 1e-6
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # converged or not
            model = LogisticRegression(C=PENALTY / len(features), max_iter=ITERATIONS)
            model.fit((features - mean) / deviation, labels)
        found, intercept = model.coef_ / deviation, model.intercept_ - (model.coef_ / deviation) @ mean
        if len(found) == 1:  # of two classes one logit is told, which is half the way to each
            found, intercept = np.concatenate([-found, found]) / 2, np.concatenate([-intercept, intercept]) / 2
        weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, intercept.min() + ABSENT)
        weight[model.classes_], bias[model.classes_] = found, intercept
        return cls(torch.from_numpy(weight).float(), torch.from_numpy(bias).float(), len(features))

    def put_into(self, model: nn.Module) -> None:
        """Make this the model's last layer."""
        layer = model.get_submodule(last_linear(model))
        assert isinstance(layer, nn.Linear)
        with torch.no_grad():
            layer.weight.copy_(self.weight)
            layer.bias.copy_(self.bias)

    @property
    def note(self) -> str:
        return (
            f"the new last layer begins as a linear probe: {self.method} on frozen features of "
            f"{self.examples:,} training {self.unit} (recipe.head)"
        )


def affordable(
    examples: int, scored: int, per_example: float, seconds: float | None, *, most: int = MOST, least: int = LEAST
) -> int:
    """Of how many training examples the features fit the probe's share of the time, with `scored` of the validation
    split, by which it is judged. `per_example` are a forward pass's seconds, by rule or measured; 0 for none to fit.
    """
    most = min(most, examples)
    if seconds is None:
        return most if most >= least else 0
    fit = max(0, min(most, int(SHARE * seconds / per_example) - scored))
    return fit if fit >= least else 0


def wanted(given: Mapping[str, Setting], labels: Labels, fresh: Iterable[str], model: nn.Module) -> bool | None:
    """Whether a phase's recipe asks for a probe; None leaves it open.

    Raises PlanError where it asks for one that cannot be had.
    """
    why_not = ""
    if labels.kind != "class":
        why_not = "a linear probe tells one class an example, and these labels are others"
    elif f"{last_linear(model)}.weight" not in fresh:
        why_not = "this model brings a last layer for these labels"
    elif not _installed():
        why_not = "it needs scikit-learn; install it with pip install scikit-learn"
    return asked(given, why_not)


def asked(given: Mapping[str, Setting], why_not: str) -> bool | None:
    """Whether a recipe asks for a probe; None leaves it open. `why_not` says why none can be had, if that is so.

    Raises PlanError where it asks for one all the same.
    """
    head = given.get("head")
    if head == "linear-probe" and why_not:
        raise PlanError(f"recipe.head is linear-probe, but {why_not}; leave it out")
    return False if why_not or head == "random" else (True if head == "linear-probe" else None)


def _installed() -> bool:
    try:
        import sklearn  # noqa: F401
    except Exception:  # not installed, or made for another numpy
        return False
    return True


def fitted(
    model: nn.Module,
    labels: NDArray[np.int64],
    classes: int,
    many: int,
    read: Callable[[NDArray[np.int64]], Iterable[tuple[NDArray[np.int64], Callable[[nn.Module], object]]]],
    *,
    mark: str,
) -> LinearProbe | None:
    """The probe of `many` training examples, drawn by lot, always the same; None where they have but one class.

    `read` gives the rows of each batch with a forward pass over them; `mark` tells the data from others.
    """
    rows = by_lot(len(labels), many)
    if len(np.unique(labels[rows])) < 2:
        return None

    def fit() -> Layer:
        probe = LinearProbe.fit(features(model, rows, read), labels[rows], classes)
        return probe.weight, probe.bias

    return LinearProbe(*remembered(model, f"{mark} {many} {classes} {PENALTY}", fit), many)


def by_lot(examples: int, many: int) -> NDArray[np.int64]:
    """So many of the examples in ascending order, always the same."""
    return np.sort(np.random.default_rng(0).permutation(examples)[:many])


def remembered(model: nn.Module, mark: str, fit: Callable[[], Layer]) -> Layer:
    """What `fit` gives for this model and what `mark` tells of data and settings; the second time out of the cache."""
    hashed = hashlib.blake2b(mark.encode(), digest_size=12)
    for parameter in model.parameters():
        hashed.update(str(float(parameter.detach().double().sum())).encode())

    def write(folder: Path) -> None:
        weight, bias = fit()
        save_file({"weight": weight, "bias": bias}, folder / FILE)

    try:
        found = load_file(kept(KIND, hashed.hexdigest(), write) / FILE)
    except DataError:  # the cache's folder is full or closed; nothing is lost but that it is made again
        return fit()
    return found["weight"], found["bias"]


def features(model: nn.Module, rows: NDArray[np.int64], read: Any) -> NDArray[np.float64]:
    """What the last layer reads of some examples (shape: rows, width)."""
    batches, found = zip(*read_by_last(model, read(rows)), strict=True)
    order = np.argsort(np.concatenate(batches), kind="stable")  # rows are in ascending order
    return torch.cat(found).float().flatten(1).numpy().astype(np.float64)[order]


def read_by_last(
    model: nn.Module, batches: Iterable[tuple[Any, Callable[[nn.Module], object]]]
) -> Iterator[tuple[Any, Tensor]]:
    """Each batch's rows with what the last layer reads of them, on the CPU; a batch comes with its forward pass."""
    was_training = model.training
    model.to(pick_device()).eval()
    found: list[Tensor] = []
    layer = model.get_submodule(last_linear(model))
    hook = layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    try:
        for chosen, forward in batches:
            with torch.no_grad():
                forward(model)
            yield chosen, found.pop().cpu()
    finally:
        hook.remove()
        model.to("cpu").train(was_training)
