"""Models and data of users' own, made by rule: what test_own_model.py trains."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

import multistep
from multistep.api import Result
from multistep.core.values.events import Entry
from multistep.core.values.history import History
from multistep.engine.clock import BudgetClock
from multistep.engine.simulate import FakeClock


def clouds(examples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points in 8 dimensions around one of 3 centres, and which."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (examples,), generator=generator)
    return torch.randn(examples, 8, generator=generator) + 1.2 * F.one_hot(labels, 8), labels


def perceptron() -> nn.Module:
    """Its first weights differ from call to call, as most people's do."""
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


class Stripes(Dataset[dict[str, Any]]):
    """Pictures of 8 by 8 with a stripe in one of two directions, with noise and flips drawn anew each time."""

    classes = ("across", "down")

    def __init__(self, examples: int, seed: int, *, noisy: bool = False) -> None:
        self._examples, self._seed, self._noisy = examples, seed, noisy

    def __len__(self) -> int:
        return self._examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = np.random.default_rng((self._seed, index))
        label = int(generator.integers(2))
        image = 0.3 * generator.standard_normal((1, 8, 8))
        image[:, generator.integers(8), :] += 1.0
        if label:
            image = image.swapaxes(1, 2)
        if self._noisy:
            image = image + 0.1 * np.random.standard_normal(image.shape)
            image = image[..., ::-1] if random.random() < 0.5 else image
        return {"image": np.ascontiguousarray(image), "label": label, "name": f"{index}.png"}


class Net(nn.Module):
    """A small convolutional net with batch normalisation and noise of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveMaxPool2d(2))
        self.head = nn.Linear(32, 2)

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.body(image).flatten(1)
        if self.training:
            features = features + 0.01 * torch.randn_like(features)
        logits: Tensor = self.head(features)
        return logits


def slopes(examples: int, seed: int) -> list[tuple[Any, float]]:
    """Pairs of four numbers and a weighted sum of them with noise."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((examples, 4))
    y = x @ np.array([1.0, -2.0, 0.5, 0.0]) + 0.1 * generator.standard_normal(examples)
    return [(row, float(number)) for row, number in zip(x, y, strict=True)]


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.weights(x).squeeze(1)
        return found


class Bag(nn.Module):
    """Tokens of several texts in a row, with the places where each begins."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.EmbeddingBag(20, 8), nn.Linear(8, 2)

    def forward(self, tokens: Tensor, begins: Tensor) -> Tensor:
        logits: Tensor = self.head(self.words(tokens, begins))
        return logits


def texts(examples: int, seed: int) -> list[tuple[Tensor, int]]:
    """Texts of 3 to 9 tokens, and whether they begin with the last word of all; a fifth of them do."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for i in range(examples):
        tokens = torch.randint(0, 19, (3 + i % 7,), generator=generator)
        if i % 5 == 0:
            tokens[:2] = 19
        found.append((tokens, int(i % 5 == 0)))
    return found


def in_a_row(items: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
    tokens, labels = zip(*items, strict=True)
    lengths = torch.tensor([0, *map(len, tokens[:-1])])
    return torch.cat(tokens), lengths.cumsum(0), torch.tensor(labels)


def absolute(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).abs().mean()


def median_miss(targets: np.ndarray[Any, Any], predictions: np.ndarray[Any, Any]) -> float:
    return float(np.median(np.abs(targets - predictions)))


@dataclass(frozen=True)
class Own:
    """One model with its data. `right` scores a finished module on the test split by hand."""

    name: str
    build: Callable[[], nn.Module]
    keywords: Callable[[], dict[str, Any]]
    test_examples: int
    right: Callable[[nn.Module], float]

    def train(self, out: Path, on_entry: Callable[[Entry, History], None] | None = None, **changes: object) -> Result:
        given: dict[str, Any] = {"model": self.build(), **self.keywords(), "out": out, **changes}
        return multistep.train(clock=BudgetClock(FakeClock().now), on_entry=on_entry, **given)


ONLY = [{"name": "only", "until": "40 steps"}]


def _clouds() -> dict[str, Any]:
    splits = {"train": clouds(300, 0), "validation": clouds(80, 1), "test": clouds(90, 2)}
    return {"loss": nn.CrossEntropyLoss(), **{name: TensorDataset(*pair) for name, pair in splits.items()}}


def _stripes() -> dict[str, Any]:
    return {
        "loss": nn.CrossEntropyLoss(),
        "train": Stripes(200, 0, noisy=True),
        "validation": Stripes(60, 1),
        "test": Stripes(50, 2),
        "metric": "accuracy",
        "recipe": {"batch_size": 16, "learning_rate": 0.02},
    }


def _slopes() -> dict[str, Any]:
    return {
        "loss": absolute,
        "train": slopes(240, 0),
        "test": slopes(60, 2),
        "metric": median_miss,
        "goal": "minimize",
        "recipe": {"learning_rate": 0.03},
    }


def _bags() -> dict[str, Any]:
    train: Any = texts(200, 0)
    sampler = WeightedRandomSampler([4.0 if label else 1.0 for _, label in train], 200)
    held_out: dict[str, Any] = {"validation": texts(60, 1), "test": texts(60, 2)}
    loaders = {name: DataLoader(items, 16, collate_fn=in_a_row) for name, items in held_out.items()}
    return {
        "loss": "cross_entropy",
        "train": DataLoader(train, 16, sampler=sampler, collate_fn=in_a_row),
        "metric": "recall",
        "recipe": {"learning_rate": 0.05},
        **loaders,
    }


def _far() -> dict[str, Any]:
    """The same slopes in another unit, of which a network's first outputs are far."""
    x, y = zip(*slopes(240, 0), strict=True)
    wide, far = zip(*slopes(60, 2), strict=True)
    return {
        "train": (np.stack(x), 70 * np.array(y)[:, None] + 500),
        "test": (np.stack(wide), 70 * np.array(far)[:, None] + 500),
        "metric": "rmse",
        "recipe": {"learning_rate": 0.03},
    }


def _accuracy(output: Tensor, labels: Tensor) -> float:
    return float((output.argmax(1) == labels).float().mean())


@torch.no_grad()
def _right_clouds(model: nn.Module) -> float:
    points, labels = clouds(90, 2)
    return _accuracy(model(points), labels)


@torch.no_grad()
def _right_stripes(model: nn.Module) -> float:
    items = [Stripes(50, 2)[i] for i in range(50)]
    images = torch.tensor(np.stack([item["image"] for item in items])).float()
    return _accuracy(model(images), torch.tensor([item["label"] for item in items]))


@torch.no_grad()
def _right_slopes(model: nn.Module) -> float:
    x, y = zip(*slopes(60, 2), strict=True)
    return median_miss(np.array(y), model(torch.tensor(np.stack(x)).float()).numpy())


@torch.no_grad()
def _right_bags(model: nn.Module) -> float:
    tokens, begins, labels = in_a_row(texts(60, 2))
    right = model(tokens, begins).argmax(1) == labels
    return float(np.mean([right[labels == label].float().mean() for label in (0, 1)]))


@torch.no_grad()
def _right_far(model: nn.Module) -> float:
    x, y = _far()["test"]
    return float(np.sqrt(np.mean((model(torch.tensor(x).float()).double().numpy() - y) ** 2)))


OWN = (
    Own("tensors", perceptron, lambda: {**_clouds(), "phases": ONLY}, 90, _right_clouds),
    Own("dicts-and-batchnorm", Net, lambda: {**_stripes(), "phases": ONLY}, 50, _right_stripes),
    Own("pairs-and-functions", Line, lambda: {**_slopes(), "phases": ONLY}, 60, _right_slopes),
    Own("bags-by-weight", Bag, lambda: {**_bags(), "phases": ONLY}, 60, _right_bags),
    Own("far-numbers", lambda: nn.Linear(4, 1), lambda: {**_far(), "phases": ONLY}, 60, _right_far),
)
