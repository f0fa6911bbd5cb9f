"""How many operations a second this device does in training a language model from nothing."""

from __future__ import annotations

import torch

from multistep.backends.torch.devices import pick_device
from multistep.backends.torch.timing import seconds_per_step
from multistep.tasks.text.lean import LeanConfig, LeanGPT
from multistep.tasks.text.preset import Preset
from multistep.tasks.text.sizes import operations_per_token


def preset_speed(preset: Preset, vocabulary: int, rows: int, at_most: float) -> float:
    """Operations a second, counted as `operations_per_token` does, in training such a model on
    `rows` a step for about `at_most` seconds; of an architecture that transformers has, one of ours of the same sizes.
    """
    device, shape = pick_device(), preset.shape
    architecture = "gpt2" if preset.architecture == "gpt2" else "nanochat"
    config = LeanConfig(architecture, vocabulary, shape.layers, shape.width, shape.heads, shape.context)  # type: ignore[arg-type]
    model = LeanGPT(config).initialise(0).to(device)
    tokens_BT = torch.zeros(rows, shape.context + 1, dtype=torch.long, device=device)

    def loss() -> torch.Tensor:
        total, count = model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:])
        return total / count

    seconds = seconds_per_step(model, loss, "muon", device, at_most)
    return operations_per_token(shape, vocabulary) * rows * shape.context / seconds
