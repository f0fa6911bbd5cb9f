"""How many operations a second this device does in training a small net for images."""

from __future__ import annotations

import torch

from multistep.backends.torch.devices import pick_device
from multistep.backends.torch.timing import seconds_per_step
from multistep.tasks.images.decode import Form
from multistep.tasks.images.nets import NetConfig, SmallNet, initialise
from multistep.tasks.images.preset import BATCH_SIZE, PER_PRODUCT, products


def net_speed(config: NetConfig, form: Form, at_most: float) -> float:
    """Operations a second, six a product, in training such a net on images of that form for about `at_most` seconds."""
    device = pick_device()
    net = initialise(SmallNet(config), 0).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = torch.zeros(BATCH_SIZE, form.channels, form.height, form.width, device=device)
    labels = torch.zeros(BATCH_SIZE, dtype=torch.long, device=device)
    loss = torch.nn.CrossEntropyLoss()
    seconds = seconds_per_step(net, lambda: loss(net(pixels), labels), "muon", device, at_most)
    return PER_PRODUCT * products(config, form) * BATCH_SIZE / seconds
