"""Augmentation of batches of pixels on the device, by one strength; its chance is a function of (seed, epoch, index).

All pictures of a batch pass through the same few torch operations, each with numbers of its own: the policy's
operations are linear in place or in colour, so that several of them cost no more than one. Sources: crops and
mirrors, arXiv 1512.03385; cutout, 1708.04552; mixup, 1710.09412; CutMix, 1905.04899; a policy of random operations of
one magnitude, RandAugment, 1909.13719, with a magnitude drawn for each picture as in TrivialAugment, 2103.10158.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

LOTS = 16  # numbers between 0 and 1 that are drawn for each picture
GEOMETRIC = ("rotate", "shear x", "shear y", "shift x", "shift y", "zoom")
PHOTOMETRIC = ("saturation", "contrast", "brightness")
ROTATION, SHEAR, SHIFT, ZOOM, PHOTO = math.radians(30), 0.3, 0.2, 0.3, 0.6  # of the policy at full strength
CROP = 0.125  # how far crops are shifted, as a share of the side
HOLE = 0.5  # side of what cutout covers, as a share of the picture's


@dataclass(frozen=True)
class Strength:
    """What a strength between 0 and 1 means. Crops come first, mixing last."""

    crop: float
    policy: float
    hole: float
    mix: float

    @classmethod
    def of(cls, strength: float) -> Strength:
        return cls(
            crop=CROP * min(1.0, 4 * strength),
            policy=strength,
            hole=min(1.0, strength),
            mix=max(0.0, 2 * strength - 1.0),
        )


def draw(seed: int, epochs_B: NDArray[np.int64], indices_B: NDArray[np.int64], count: int = LOTS) -> Tensor:
    """Numbers in [0, 1) for each example, (B, count): a hash of (seed, epoch, index, place), SplitMix64's."""
    key = _mix(_mix(np.array([seed], np.uint64) + _GOLDEN) ^ epochs_B.astype(np.uint64))
    key = _mix(key ^ _mix(indices_B.astype(np.uint64) + _GOLDEN))
    places = (_GOLDEN * np.arange(1, count + 1, dtype=np.uint64)).astype(np.uint64)
    bits = _mix(key[:, None] + places)
    return torch.from_numpy((bits >> np.uint64(40)).astype(np.float32) / np.float32(2**24))


_GOLDEN = np.array(0x9E3779B97F4A7C15, np.uint64)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def augment(pixels: Tensor, lots: Tensor, strength: float, *, mirror: bool, fill: Tensor) -> Tensor:
    """Move, distort, recolour and cover pictures (B, C, H, W) of values 0 to 255; `fill`, (1, C, 1, 1), covers them."""
    how = Strength.of(strength)
    pixels = _recolour(pixels.contiguous(), lots, how)
    pixels = _move(pixels, lots, how, mirror)
    return _cover(pixels, lots, how, fill)


def _chosen(lots: Tensor, operation: str) -> Tensor:
    """The magnitude, -1 to 1, of an operation for each picture: 0 unless it is one of the two that were drawn."""
    names = GEOMETRIC + PHOTOMETRIC
    number = names.index(operation)
    total = torch.zeros_like(lots[:, 0])
    for which, magnitude in ((0, 1), (2, 3)):
        drawn = (lots[:, which] * len(names)).long() == number
        total = total + torch.where(drawn, 2 * lots[:, magnitude] - 1, 0.0)
    return total


def _move(pixels: Tensor, lots: Tensor, how: Strength, mirror: bool) -> Tensor:
    """One affine map for each picture: crop, mirror and the policy's geometry. Outside, pictures are reflected."""
    height, width = pixels.shape[2:]
    angle = ROTATION * how.policy * _chosen(lots, "rotate")
    cos, sin = angle.cos(), angle.sin()
    shear_x = SHEAR * how.policy * _chosen(lots, "shear x")
    shear_y = SHEAR * how.policy * _chosen(lots, "shear y")
    scale = 1.0 - ZOOM * how.policy * _chosen(lots, "zoom")
    side = torch.where(lots[:, 4] < 0.5, -scale, scale) if mirror else scale
    # Crops are shifted by whole pixels, so that they stay sharp; a unit of the grid is half a side.
    x = _whole((2 * lots[:, 5] - 1) * how.crop + SHIFT * how.policy * _chosen(lots, "shift x"), width)
    y = _whole((2 * lots[:, 6] - 1) * how.crop + SHIFT * how.policy * _chosen(lots, "shift y"), height)
    ratio = height / width
    theta = torch.stack(
        (
            torch.stack((side * cos, (shear_x - sin) * scale * ratio, 2 * x), -1),
            torch.stack(((sin + shear_y) * side / ratio, scale * cos, 2 * y), -1),
        ),
        1,
    )
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _whole(share: Tensor, pixels: int) -> Tensor:
    return (share * pixels).round() / pixels


def _recolour(pixels: Tensor, lots: Tensor, how: Strength) -> Tensor:
    """Saturation, contrast around the picture's mean and brightness: together one linear map of the channels."""
    channels = pixels.shape[1]
    saturation, contrast, brightness = (PHOTO * how.policy * _chosen(lots, name) for name in PHOTOMETRIC)
    own = torch.eye(channels, device=pixels.device)
    grey = torch.full_like(own, 1 / channels)
    colours = (1 + saturation)[:, None, None] * own - saturation[:, None, None] * grey
    offset = 128 * brightness - contrast * pixels.mean((1, 2, 3))
    flat = pixels.flatten(2)
    mapped = torch.baddbmm(offset[:, None, None], (1 + contrast)[:, None, None] * colours, flat)
    return mapped.view_as(pixels).clamp_(0, 255)


def _cover(pixels: Tensor, lots: Tensor, how: Strength, fill: Tensor) -> Tensor:
    """Cutout: a square with its centre anywhere."""
    size = torch.where(lots[:, 7] < how.hole, HOLE, 0.0)
    inside = _box(pixels, lots[:, 8], lots[:, 9], size, size)
    return torch.where(inside, fill, pixels)


def _box(pixels: Tensor, x: Tensor, y: Tensor, width: Tensor, height: Tensor) -> Tensor:
    """Which pixels lie in each picture's box (B, 1, H, W); centre and sides are shares of the picture's."""
    rows = (torch.arange(pixels.shape[2], device=pixels.device) + 0.5) / pixels.shape[2]
    columns = (torch.arange(pixels.shape[3], device=pixels.device) + 0.5) / pixels.shape[3]
    down = (rows - y[:, None]).abs() < height[:, None] / 2
    across = (columns - x[:, None]).abs() < width[:, None] / 2
    return (down[:, :, None] & across[:, None, :])[:, None]


def mix(pixels: Tensor, lots: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Some pictures mixed with the one before them in the batch: blended, or with a box of it.

    Returns the pictures and the share that each keeps of itself, (B,).
    """
    how = Strength.of(strength)
    other = pixels.roll(1, 0)
    mixed, boxed = lots[:, 10] < how.mix, lots[:, 11] < 0.5
    share = lots[:, 12]
    side = torch.where(mixed & boxed, (1 - share).sqrt(), 0.0)
    inside = _box(pixels, lots[:, 13], lots[:, 14], side, side)
    blend = torch.where(mixed & ~boxed, share, 1.0)
    pixels = torch.where(inside, other, torch.lerp(other, pixels, blend[:, None, None, None]))
    kept = torch.where(mixed & boxed, 1 - inside.float().mean((1, 2, 3)), blend)
    return pixels, kept
