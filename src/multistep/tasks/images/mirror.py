"""Whether the mirror image of a picture still shows what its label says."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from multistep.tasks.images.holding import by_lot
from multistep.tasks.images.splits import ImageSet
from multistep.tasks.labelled.labels import Kind

MOST_IMAGES = 4_000
SIDE = 16  # pixels that are compared
AT_ONCE = 64  # images that are made so small together
ERRORS = 2.0  # standard errors by which the data must contradict what is usual
LOOKED_AT = 500  # pictures, to tell photographs from drawings; fewer of large ones, down to
LEAST_LOOKED_AT, LOOKED_PIXELS = 50, 2**24
COLOURFUL = 4.0  # levels of 255 between a pixel's highest and lowest channel, on average; JPEG makes 1 or 2 of grey
BITS = 4  # of each channel that tell colours apart: what noise and compression add to a flat area is one colour or two
COLOURS = 24  # of a photograph at the least; drawings have a handful, and few more along their edges
FLAT = 0.4  # of neighbouring pixels that are equal, at most; in photographs noise and texture leave 0.25 or fewer so


def mirroring_helps(train: ImageSet, kind: Kind = "class") -> tuple[bool, str]:
    """Whether training may mirror images from left to right, and why.

    Colour photographs may unless the data clearly speaks against it, all else only if it clearly speaks for it.
    Half of the training images are labelled by their nearest neighbour among the other half, with and without mirror
    images of those. Garments gain by it; digits and letters, whose mirror images are something else, do not.
    """
    chosen = by_lot(train.images, MOST_IMAGES)
    height, width = train.images.shape[1:3]
    looked_at = min(LOOKED_AT, max(LEAST_LOOKED_AT, LOOKED_PIXELS // (height * width)))
    usual = are_photographs(train.images[np.sort(chosen[:looked_at])])
    parts = [chosen[start : start + AT_ONCE] for start in range(0, len(chosen), AT_ONCE)]
    pixels = torch.cat([_small(train.images[part]) for part in parts or [chosen]])
    labels = torch.from_numpy(train.labels[chosen]).double()
    half = len(chosen) // 2
    if half == 0:
        return usual, f"images are {_said(usual, usual)}; there are too few to ask them"
    known, asked = pixels[:half], _directions(pixels[half:])
    both = torch.cat((known, known.flip(3)))
    plain = _off(labels[torch.cdist(asked, _directions(known)).argmin(1)], labels[half:], kind)
    mirrored = _off(labels[torch.cdist(asked, _directions(both)).argmin(1) % half], labels[half:], kind)
    gained, lost = int((mirrored < plain).sum()), int((mirrored > plain).sum())
    margin = ERRORS * math.sqrt(gained + lost)
    helps = lost - gained <= margin if usual else gained - lost > margin
    asked_of = len(labels) - half
    told = f"{gained} of {asked_of:,} labels were gained and {lost} lost"
    if kind != "class":
        told = f"of {asked_of:,} images {gained} were told better and {lost} worse"
    return helps, f"images are {_said(helps, usual)}: with mirror images among {half:,} neighbours, {told}"


def _off(said: Tensor, labels: Tensor, kind: Kind) -> Tensor:
    """How far a label is from what a neighbour says: another class, so many other labels, or the numbers' distance."""
    if kind == "class":
        return (said != labels).double()
    away = (said - labels).abs()
    return away.sum(1) if kind == "classes" else away


def _small(images_NHWC: NDArray[np.uint8]) -> Tensor:
    """Pictures (N, C, H, W) of `SIDE` x `SIDE` pixels, unless they are smaller."""
    pixels = torch.from_numpy(images_NHWC).permute(0, 3, 1, 2).float()
    if max(pixels.shape[2:]) > SIDE:
        pixels = F.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True)
    return pixels


def _said(helps: bool, usual: bool) -> str:
    link = "as" if helps is usual else "though"
    kind = "colour photographs usually are" if usual else "drawings, grey images and the like usually are not"
    return f"{'' if helps else 'not '}mirrored in training, {link} {kind}"


def are_photographs(images_NHWC: NDArray[np.uint8]) -> bool:
    """Whether most pictures look like colour photographs.

    Their three channels differ, they have many colours, and little of them is flat: drawings, icons and letters on
    coloured paper have few colours in flat areas.
    """
    if images_NHWC.shape[-1] != 3 or not len(images_NHWC):
        return False
    chroma = images_NHWC.max(-1).astype(np.float32) - images_NHWC.min(-1)
    if np.median(chroma.mean((1, 2))) < COLOURFUL:
        return False
    equal = (images_NHWC[:, :, 1:] == images_NHWC[:, :, :-1]).all(-1)
    if equal.shape[2] and np.median(equal.mean((1, 2))) > FLAT:
        return False
    return float(np.median([colours(picture) for picture in images_NHWC])) >= COLOURS


def colours(picture_HWC: NDArray[np.uint8]) -> int:
    """How many colours cover a picture: as many as are needed, the commonest first, for 95% of its pixels."""
    coarse = (picture_HWC >> (8 - BITS)).reshape(-1, 3).astype(np.int64)
    counts = np.sort(np.bincount(coarse @ np.array([1 << 2 * BITS, 1 << BITS, 1])))[::-1]
    return int(np.searchsorted(np.cumsum(counts), 0.95 * counts.sum())) + 1


def _directions(pixels: Tensor) -> Tensor:
    """Pictures as vectors of length one around zero, so that brightness does not count."""
    flat = pixels.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    lengths: Tensor = flat.norm(dim=1, keepdim=True)
    return flat / lengths.clamp_min(1e-6)
