"""How many operations a second this device does in training a net for speech."""

from __future__ import annotations

import torch

from multistep.backends.torch.devices import pick_device
from multistep.backends.torch.timing import seconds_per_step
from multistep.tasks.speech.nets import NetConfig, make_net
from multistep.tasks.speech.preset import PER_PARAMETER_AND_STEP, STEPS_PER_SECOND

FRAMES_PER_SECOND = 100


def net_speed(config: NetConfig, utterances: int, length: float, at_most: float) -> float:
    """Operations a second, six a parameter and step of the output, in training such a net on batches of that many
    utterances of `length` seconds, for about `at_most` seconds.
    """
    device = pick_device()
    net = make_net(config).initialise(0).to(device)
    frames = max(1, round(FRAMES_PER_SECOND * length))
    features = torch.zeros(utterances, frames, config.mels, device=device)
    lengths = torch.full((utterances,), frames)
    parameters = sum(p.numel() for p in net.parameters())
    seconds = seconds_per_step(net, lambda: net(features, lengths)[0].square().mean(), "muon", device, at_most)
    return PER_PARAMETER_AND_STEP * parameters * STEPS_PER_SECOND * length * utterances / seconds
