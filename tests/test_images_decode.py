"""Image files as they are read: modes, sizes, and more bits than a byte has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases_images import SHAPES, picture, png
from numpy.typing import NDArray
from PIL import Image

from multistep import api
from multistep.core.values.plan import DataSpec
from multistep.errors import DataError
from multistep.tasks.images.decode import Form, decode
from multistep.tasks.images.splits import ImageSplits, load_splits, look_through

SIDE = 8


def load(source: Path) -> ImageSplits:
    return load_splits(look_through(DataSpec(source=str(source))))


def pixels(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)


def test_modes_and_sizes_become_one_and_it_is_said(tmp_path: Path) -> None:
    for i, mode in enumerate(("L", "RGB", "RGBA", "P", "1", "CMYK", "LA", "I;16")):
        (tmp_path / str(i % 2)).mkdir(exist_ok=True)
        for j in range(3):
            image = Image.fromarray(pixels(10 * i + j)).resize((SIDE + i, SIDE + j))
            image = image.convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
            image.save(tmp_path / str(i % 2) / f"{i}{j}.{'jpg' if mode == 'CMYK' else 'png'}")
    found = load(tmp_path)
    assert found.form.channels == 3
    assert sum(map(len, (found.train, found.validation, found.test))) == 24
    assert any("all are read as RGB" in note for note in found.notes)
    assert any("of 24 sizes, 8 x 8 to 10 x 15; all are resized to 10 x 10" in note for note in found.notes)


CORNERS = np.zeros((4, 6), np.uint8)
CORNERS[0, 0] = 255


@pytest.mark.parametrize("case", ["turned", "transparent", "16 bits", "animated"])
def test_an_image_is_read_as_people_see_it(case: str) -> None:
    grey = Image.fromarray(CORNERS)
    if case == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6  # shown turned to the right
        data, expected = png(grey, exif=exif), np.rot90(CORNERS, -1)
    elif case == "transparent":
        data, expected = png(Image.merge("LA", (Image.fromarray(CORNERS * 0), grey))), 255 - CORNERS
    elif case == "16 bits":
        data, expected = png(Image.fromarray(CORNERS.astype(np.uint16) * 257)), CORNERS
    else:
        more = [Image.fromarray(255 - CORNERS)]
        data, expected = png(grey, format="GIF", save_all=True, append_images=more), CORNERS
    found = decode(data, Form(1, *expected.shape))
    assert not isinstance(found, str)
    assert np.array_equal(found[:, :, 0], expected)


# More than 8 bits -----------------------------------------------------------------------------------


def write_deep(folder: Path, images: list[NDArray[Any]], suffix: str) -> Path:
    """SHAPE/NUMBER.SUFFIX, of two shapes in turn."""
    for i, image in enumerate(images):
        (folder / SHAPES[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / SHAPES[i % 2] / f"{i:02}.{suffix}")
    return folder


def deep(peak: float, kind: type[Any], count: int = 40, dark: int = 0) -> list[NDArray[Any]]:
    """Images up to `peak`, the first few up to a 64th of it."""
    choose = np.random.default_rng(0)
    made = [choose.uniform(0, peak, (SIDE, SIDE)) for _ in range(count)]
    made[-1][0, 0] = peak
    return [(image / (64 if i < dark else 1)).astype(kind) for i, image in enumerate(made)]


def read(folder: Path, images: list[NDArray[Any]], suffix: str) -> tuple[ImageSplits, dict[int, NDArray[Any]]]:
    """What a folder of them is read as, whichever split each is in."""
    found = load(write_deep(folder, images, suffix))
    parts = (found.train, found.validation, found.test)
    return found, {
        int(Path(name).stem): image
        for part in parts
        for name, image in zip(part.names, part.images[:][..., 0], strict=True)
    }


@pytest.mark.parametrize(
    ("kind", "peak", "suffix", "white"),
    [
        (np.uint16, 4000, "png", 4095),
        (np.uint16, 65535, "png", 65535),
        (np.uint16, 200, "png", 255),
        (np.int32, 900, "tif", 1023),
        (np.float32, 1.0, "tif", 1.0),
        (np.float32, 0.7, "tif", 1.0),
        (np.float32, 240.0, "tif", 255.0),
    ],
)
def test_white_is_that_of_all_training_images_together(
    kind: type[Any], peak: float, suffix: str, white: float, tmp_path: Path
) -> None:
    images = deep(peak, kind, dark=4)
    found, shown = read(tmp_path, images, suffix)
    assert found.form == Form(1, SIDE, SIDE, white)
    assert any(f"{white:,g} is read as white" in note for note in found.notes)
    for i, image in enumerate(images):
        assert np.abs(shown[i] - image.astype(np.float64) * 255 / white).max() <= 0.5, "dark images stay dark"
    assert len(np.unique(shown[39])) > 40, "shades are kept"


def test_what_cannot_be_known_of_brightness_is_refused(tmp_path: Path) -> None:
    below = deep(4000, np.int32)
    below[0][0, 0] = -3
    folder = write_deep(tmp_path / "below", below, "tif")
    (said,) = (note for note in load(folder).notes if "skipped that cannot be read: 1" in note)
    assert "bars/00.tif (holds values below 0, or none that are numbers; save it as 0 to 255" in said
    write_deep(tmp_path / "fractions", deep(3000, np.float32), "tif")
    with pytest.raises(DataError, match=r"40 of 40 images .*\(holds fractions up to 2,9[\d.]+, of which white"):
        load(tmp_path / "fractions")
    write_deep(tmp_path / "both", deep(1, np.float32), "tif")
    write_deep(tmp_path / "both", deep(4000, np.uint16), "png")
    with pytest.raises(DataError, match=r"whole numbers of 16 bits and fractions in one set; save them all in one way"):
        load(tmp_path / "both")


def test_a_model_remembers_what_was_white(tmp_path: Path) -> None:
    """A 12-bit image is predicted as it was trained on; one of 16 bits is refused, since its white is another."""
    choose = np.random.default_rng(0)
    images = [picture(SHAPES[i % 2], choose, SIDE)[..., 0].astype(np.uint16) * 16 for i in range(60)]
    images[0][0, 0] = 4095
    folder = write_deep(tmp_path / "data", images, "png")
    plan: dict[str, Any] = {"model": {"name": "cnn", "width": 8}, "recipe": {"batch_size": 8}, "ship": "network"}
    result = api.train(
        task="image-classification", data=str(folder), phases=[{"until": "30 steps"}], out=tmp_path / "run", **plan
    )
    files = [folder / SHAPES[i % 2] / f"{i:02}.png" for i in range(60)]
    right = sum(p.output == SHAPES[i % 2] for i, p in enumerate(api.predict(result.model, files)))
    assert right > 50
    scores = api.evaluate(result.model, str(folder))["scores"]
    assert scores["accuracy"]["score"] == right / 60
    bright = tmp_path / "bright.png"
    Image.fromarray(images[1] * 16).save(bright)
    with pytest.raises(DataError, match=r"bright\.png: holds values up to [\d,]+, where 4,095 is white; name an image"):
        api.predict(result.model, [bright])
