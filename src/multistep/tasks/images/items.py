"""A labelled image, wherever it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from multistep.tasks.images.decode import Content

Label: TypeAlias = str | tuple[str, ...] | float  # one class, several, or a number


@dataclass(frozen=True)
class Item:
    """One labelled image; `where` is how messages name it. `group`: who is on it, or whatever else items share."""

    where: str
    label: Label
    content: Content
    group: str | None = None
