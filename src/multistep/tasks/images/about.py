"""What multistep.json beside a model of images says of its labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multistep.tasks.labelled.labels import Labels


def about_labels(labels: Labels) -> dict[str, Any]:
    """Their names, of numbers that of the one output, and what they are."""
    separator = {} if labels.separator is None else {"separator": labels.separator}
    return {"labels": list(labels.output_names), "kind": labels.kind, **separator}


def labels_said(about: Mapping[str, Any]) -> Labels:
    """The same back; of folders of earlier versions, which had classes alone, too."""
    kind = about.get("kind", "class")
    return Labels(kind, () if kind == "number" else tuple(map(str, about["labels"])), about.get("separator"))
