"""Annotations of images in COCO's form -> rows of a file and its class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multistep.data.flat import Row
from multistep.errors import DataError


def is_of_coco(value: Row) -> bool:
    """Whether one object holds lists of images, annotations and categories."""
    return all(isinstance(value.get(name), list) for name in ("images", "annotations", "categories"))


def rows_of_coco(path: Path, value: Row) -> list[dict[str, Any]]:
    """The file and the category of each annotated image, as iNaturalist and Herbarium have them.

    Raises DataError for boxes and outlines: a category of a part is none of the image.
    """
    if any("bbox" in each or "segmentation" in each for each in value["annotations"]):
        raise DataError(
            f"{path}: boxes or outlines in images (COCO), as for a detector: none is trained here, where images have "
            "classes as a whole; give a table with an image and its class a row"
        )
    names = {each.get("id"): each.get("name") for each in value["categories"]}
    files = {each.get("id"): each.get("file_name") for each in value["images"]}
    annotated = [each for each in value["annotations"] if each.get("image_id") in files]
    return [{"file_name": files[each["image_id"]], "label": names.get(each.get("category_id"))} for each in annotated]
