"""Whether the mirror image of a picture still shows what its label says."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from multistep.tasks.images.splits import ImageSet

MOST_IMAGES = 4_000
SIDE = 16  # pixels that are compared
ERRORS = 2.0  # standard errors that the gain must exceed


def mirroring_helps(train: ImageSet) -> tuple[bool, str]:
    """Whether training may mirror images from left to right, and why.

    Half of the training images are labelled by their nearest neighbour among the other half, with and without mirror
    images of those. Garments gain by it; digits and letters, whose mirror images are something else, do not.
    """
    chosen = np.random.default_rng(0).permutation(len(train))[:MOST_IMAGES]
    pixels = torch.from_numpy(train.images[chosen]).permute(0, 3, 1, 2).float()
    if max(pixels.shape[2:]) > SIDE:
        pixels = F.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True)
    labels = torch.from_numpy(train.labels[chosen])
    half = len(chosen) // 2
    if half == 0:
        return False, "images are not mirrored: there are too few to tell whether they may be"
    known, asked = pixels[:half], _directions(pixels[half:])
    both = torch.cat((known, known.flip(3)))
    plain = labels[torch.cdist(asked, _directions(known)).argmin(1)] == labels[half:]
    mirrored = labels[:half].repeat(2)[torch.cdist(asked, _directions(both)).argmin(1)] == labels[half:]
    gained, lost = int((mirrored & ~plain).sum()), int((plain & ~mirrored).sum())
    helps = gained - lost > ERRORS * math.sqrt(gained + lost)
    return helps, (
        f"images are {'' if helps else 'not '}mirrored in training: with mirror images among {half:,} neighbours, "
        f"{gained} of {len(labels) - half:,} labels were gained and {lost} lost"
    )


def _directions(pixels: Tensor) -> Tensor:
    """Pictures as vectors of length one around zero, so that brightness does not count."""
    flat = pixels.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    lengths: Tensor = flat.norm(dim=1, keepdim=True)
    return flat / lengths.clamp_min(1e-6)
