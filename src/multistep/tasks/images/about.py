"""What multistep.json beside a model of images says of its labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multistep.tasks.labelled.labels import Labels


def about_labels(labels: Labels) -> dict[str, Any]:
    """Their names, of numbers that of the one output, and what they are."""
    more = {"separator": labels.separator, "notation": labels.notation}
    told = {key: value for key, value in more.items() if value is not None}
    return {"labels": list(labels.output_names), "kind": labels.kind, **told}


def labels_said(about: Mapping[str, Any]) -> Labels:
    """The same back; of folders of earlier versions, which had classes alone, too."""
    kind = about.get("kind", "class")
    names = () if kind == "number" else tuple(map(str, about["labels"]))
    return Labels(kind, names, about.get("separator"), notation=about.get("notation"))
