"""Images of `bench/gpu.py`: pictures of CIFAR's size, a second, against a bare loop on the same net."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from gpu_kit import Form, Rows, device_of
from gpu_language import fit_of, steps_of
from gpu_timing import LENGTHS, Advance, operations_of, rates, timed
from torch import Tensor, nn

from multistep.backends.torch.learner import TorchLearner
from multistep.core.values.plan import DataSpec, ModelSpec, Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.units import Amount, Unit
from multistep.tasks import workshop_for

IMAGES, WIDTH = {"gpu": 50_000, "cpu": 240}, {"gpu": 64, "cpu": 8}
BATCHES = {"gpu": (1024,), "cpu": (16,)}  # beside what the preset takes
SIDE, CLASSES, PAD = 32, 10, 4
AUGMENTATION = 0.25  # crops whole, a quarter of the policy, some covers; no mixing
RATE = 0.05


def pictures(count: int) -> tuple[Any, Any]:
    """Pictures in colours (count, 32, 32, 3), smooth as photographs are, and labels, both by lot."""
    choose = np.random.default_rng(0)
    coarse = choose.integers(0, 256, (count, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    noise = choose.integers(-20, 21, (count, SIDE, SIDE, 3))
    return (coarse + noise).clip(0, 255).astype(np.uint8), choose.integers(0, CLASSES, count)


def bare_steps(
    net: nn.Module, pixels: Any, labels: Any, size: int, device: torch.device, operations: list[float | None]
) -> Advance:
    """The loop of airbench (arXiv 2404.00498) on this net: all bytes on the device, channels last,
    shuffled, cropped and mirrored there; autocast, fused SGD.
    """
    net = net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    whole = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)
    targets = torch.from_numpy(labels).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9, nesterov=True, fused=True)
    reduced, place, order = device.type == "cuda", 0, torch.randperm(len(targets), device=device)
    rows = torch.arange(SIDE, device=device)

    def augmented(some: Tensor) -> Tensor:
        padded = F.pad(some.float(), (PAD,) * 4, mode="reflect")
        down, across = torch.randint(0, 2 * PAD + 1, (2, len(some)), device=device)
        mirrored = torch.rand(len(some), device=device) < 0.5
        columns = torch.where(mirrored[:, None], rows.flip(0), rows) + across[:, None]
        lines = rows + down[:, None]
        number = torch.arange(len(some), device=device)
        cut = padded.permute(0, 2, 3, 1)[number[:, None, None], lines[:, :, None], columns[:, None, :]]
        return cut.permute(0, 3, 1, 2)

    def once(chosen: Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
            loss = F.cross_entropy(net(augmented(whole[chosen])).float(), targets[chosen])
        loss.backward()  # type: ignore[no-untyped-call]

    def advance(steps: int) -> None:
        nonlocal place, order
        for _ in range(steps):
            if place + size > len(order):
                place, order = 0, torch.randperm(len(targets), device=device)
            once(order[place : place + size])
            place += size
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    operations.append(operations_of(lambda: once(order[:size])))
    return advance


def measure(rows: Rows, form: Form) -> None:
    """Ours as the preset has it, and at one batch size beside the bare loop: SGD in both, with and without
    augmentation of ours.
    """
    pixels, labels = pictures(IMAGES[form])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.npz"
        np.savez(path, images=pixels, labels=labels)
        plan = Plan(
            "image-classification",
            DataSpec(source=str(path)),
            ModelSpec(name="resnet-small", width=WIDTH[form]),
            budget=Amount(300.0, Unit.SECONDS),
        )
        learner, ready = workshop_for(plan).open(plan, 0, lambda: False)
        assert isinstance(learner, TorchLearner)
        rows.facts = {
            "model": ready.facts.description,
            "parameters": ready.facts.parameters,
            "images": IMAGES[form],
            "batch_of_the_preset": ready.recipe.batch_size,
        }
        preset = replace(ready.recipe, resolution=())
        for size in (*BATCHES[form], *((preset.batch_size or 128,) if form == "gpu" else ())):
            _beside(rows, form, learner, replace(preset, batch_size=size), pixels, labels)


def _beside(rows: Rows, form: Form, learner: TorchLearner, preset: Recipe, pixels: Any, labels: Any) -> None:
    """The bare loop and ours at one batch size."""
    device, length, size = device_of(form), LENGTHS[form], preset.batch_size or 1
    domain: Any = learner._domain
    bare: dict[str, Any] = {}
    counted: list[float | None] = []
    with rows.attempting(f"bare loop, batch {size}"):
        found = timed(lambda: bare_steps(domain.build(0), pixels, labels, size, device, counted), device, length)
        numbers = rates(found, rows, count=size, unit="images", operations=counted[0])
        bare = rows.add(f"bare loop, batch {size}", **numbers)
    sgd = replace(preset, optimizer="sgd", learning_rate=RATE, momentum=0.9, gradient_clip=0.0)
    tried = {
        f"multistep, SGD, batch {size}, augmentation {AUGMENTATION}": replace(sgd, augmentation=AUGMENTATION),
        f"multistep, SGD, batch {size}, no augmentation": replace(sgd, augmentation=0.0),
        f"multistep, {preset.optimizer} and augmentation {preset.augmentation} of the preset, batch {size}": preset,
    }
    for what, recipe in tried.items():
        with rows.attempting(what):
            found = timed(functools.partial(steps_of, learner, recipe), device, length)
            numbers = rates(found, rows, count=size, unit="images", operations=counted[0] if counted else None)
            share = {"share_of_bare": numbers["per_second"] / bare["per_second"]} if bare else {}
            rows.add(what, **numbers, **share, **fit_of(learner))
