"""Images and sounds in memory -> files in bytes, as tables hold them: {bytes, path}."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from multistep.errors import DataError

Kind = Literal["text", "image", "sound"]  # what a task's inputs are


def is_array(value: Any) -> bool:
    """Whether it is an array of numpy, torch or such, rather than a column of objects."""
    return hasattr(value, "__array__") and hasattr(value, "shape") and len(value.shape) > 0


def is_of(module: str, name: str, given: Any) -> bool:
    """Whether it is of a class of a library, told without importing that."""
    library = sys.modules.get(module)
    return library is not None and isinstance(given, getattr(library, name))


def is_missing(value: object) -> bool:
    """None, or not a number."""
    return value is None or (isinstance(value, float) and value != value)


def media_of(value: Any, kind: Kind) -> Kind | None:
    """What a value of a column is: an image, a sound, or neither."""
    if is_of("PIL.Image", "Image", value):
        return "image"
    if isinstance(value, Mapping) and {"array", "sampling_rate"} <= value.keys():
        return "sound"
    as_bytes = isinstance(value, bytes) or (isinstance(value, Mapping) and "bytes" in value)
    if kind == "text":
        return None
    return kind if as_bytes or (kind == "image" and is_array(value) and len(value.shape) in (2, 3)) else None


def encoded(where: str, values: Iterable[Any], kind: Kind) -> Any:
    """Images as PNG, sounds as WAV of 32-bit floats, in a column of {bytes, path}. Raises DataError."""
    import pyarrow

    found = []
    for number, value in enumerate(values, start=1):
        try:
            found.append(None if is_missing(value) else in_bytes(value, kind))
        except (TypeError, ValueError, KeyError, OSError, RuntimeError) as error:
            raise DataError(f"{where}, row {number}: not {_a(kind)} that can be kept ({error})") from None
    return pyarrow.array(found, pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}))


def _a(kind: Kind) -> str:
    return "an image" if kind == "image" else "a sound"


def in_bytes(value: Any, kind: Kind) -> dict[str, Any]:
    """One image or sound. Raises ValueError and such for what is none."""
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    if isinstance(value, Mapping) and "bytes" in value:
        path = str(value.get("path") or "")
        held = value["bytes"] if value["bytes"] is not None else Path(path).read_bytes()
        return {"bytes": bytes(held), "path": Path(path).name or None}
    held = io.BytesIO()
    if kind == "sound":
        import soundfile

        samples = np.asarray(value["array"], np.float32)
        soundfile.write(
            held,
            samples.T if samples.ndim == 2 and len(samples) < 9 else samples,
            int(value["sampling_rate"]),
            "FLOAT",
            format="WAV",
        )
    else:
        from PIL import Image

        image = value if isinstance(value, Image.Image) else Image.fromarray(_bytes_of(np.asarray(value)))
        image.save(held, "PNG")
    return {"bytes": held.getvalue(), "path": None}


def _bytes_of(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """One image as bytes (height, width) or (height, width, 3)."""
    if pixels.dtype != np.uint8:
        raise ValueError(f"{pixels.dtype} numbers; allowed: uint8, 0 to 255")
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    return pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else np.ascontiguousarray(pixels)
