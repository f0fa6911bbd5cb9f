"""Where the process would wait for the device: in no step of training, and once for the scores of a split.

The meta device stands in for one: whatever asks a tensor there for its numbers is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cases_images
import cases_speech
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from multistep.backends.torch.learner import TorchLearner
from multistep.core.values.plan import DataSpec
from multistep.core.values.recipe import Recipe
from multistep.engine.planfile import plan_from
from multistep.tasks import workshop_for

WRITE: dict[str, Callable[[Path], DataSpec]] = {
    "image-classification": cases_images.write,
    "speech-recognition": cases_speech.write,
}


def opened(task: str, folder: Path) -> tuple[Any, Recipe]:
    plan = plan_from({"task": task, "data": WRITE[task](folder), "model": "scratch", "budget": "20 steps"})
    learner, ready = workshop_for(plan).open(plan, 0, lambda: False)
    assert isinstance(learner, TorchLearner)
    return learner._domain, replace(ready.recipe, augmentation=0.7)


@pytest.mark.parametrize("task", WRITE)
def test_no_step_asks_the_device_for_numbers(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("meta")
    domain, recipe = opened(task, tmp_path)
    monkeypatch.setattr(F, "ctc_loss", lambda log_probs, *_, **__: log_probs.sum((0, 2)))  # torch has none for meta
    model = domain.build(0)
    domain.configure(model, recipe)
    model.to(device).train()
    for position in (0, 40, 2000):  # the gentle start of speech, an epoch's end, the strength of the recipe
        batch = domain.batch(position, 16, 0, device)
        assert batch[0].device == device
        loss, count = domain.loss(model, batch, 0.0)
        (loss / count).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_the_scores_of_a_split_come_in_one_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    domain, recipe = opened("image-classification", tmp_path)
    model = domain.build(0)
    domain.configure(model, recipe)
    monkeypatch.setattr("multistep.tasks.images.task.SCORED", 5)
    asked: list[str] = []
    for name in ("cpu", "item", "tolist", "numpy"):
        own = getattr(torch.Tensor, name)

        def counted(self: torch.Tensor, *given: Any, name: str = name, own: Any = own) -> Any:
            asked.append(name)
            return own(self, *given)

        monkeypatch.setattr(torch.Tensor, name, counted)
    with torch.inference_mode():
        table = domain.evaluate(model.eval(), "test", sample=False, device=torch.device("cpu"))
    assert len(table) == 36, "in eight batches"
    assert asked == ["cpu", "numpy"]
