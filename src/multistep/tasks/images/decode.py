"""Image files -> bytes of one mode and one size, decoded once. Pillow reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from multistep.errors import DataError
from multistep.tasks.images.threads import in_threads

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels: TypeAlias = NDArray[np.uint8]
Content: TypeAlias = Path | bytes | Pixels  # a file, a file's bytes, or pixels (H, W) or (H, W, C)
_READ = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif")
_UNREAD = {  # by Pillow, and how they are converted
    ".heic": "a HEIC photo, which Pillow cannot read: convert it, for instance with ImageMagick: `magick x.heic x.jpg`",
    ".heif": "a HEIF photo, which Pillow cannot read: convert it, for instance with ImageMagick: `magick x.heif x.jpg`",
    ".dcm": "a DICOM file, which Pillow cannot read: write its pixels as a .png, for instance with pydicom",
}
SUFFIXES = (*_READ, *_UNREAD)  # what is looked for: an image that cannot be read is to be named, not overlooked
MOST_BYTES = 2**31  # of all decoded images together, and
MOST_PIXELS = 2**33  # of their files, a minute or two of decoding, for all to be decoded beforehand
DRAFT = 2  # times the size that is wanted: a JPEG of more than twice that is decoded at a half, quarter or eighth
LARGEST_SIDE = 224  # of images that differ in size
_DEEP = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}  # more than 8 bits a pixel
_GREY = {"1", "L", "LA", *_DEEP}
TOO_BRIGHT = 2.0  # times white: such an image is of another kind; a single bright pixel is cut off
NO_FILE = "no such file"
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width


@dataclass(frozen=True)
class Look:
    """What an image's header says; of one with more than 8 bits a pixel also its brightest value."""

    grey: bool
    mode: str
    height: int
    width: int
    peak: float | None = None


@dataclass(frozen=True)
class Form:
    """What every image is turned into: 1 channel (grey) or 3 (RGB), and a size in pixels.

    `white` is the value that becomes 255 in images with more than 8 bits a pixel; None where training showed none:
    then it is what their type can hold.
    """

    channels: int
    height: int
    width: int
    white: float | None = None

    def __str__(self) -> str:
        return f"{self.height} x {self.width}, {'grey' if self.channels == 1 else 'RGB'}"

    def sized(self, side: int) -> Form:
        """The same proportions with a longer side of so many pixels."""
        longer = max(self.height, self.width)
        height, width = (max(1, round(each * side / longer)) for each in (self.height, self.width))
        return replace(self, height=height, width=width)


def require_pillow() -> None:
    """Raises DataError that names the extra, whatever is wrong with the installed one."""
    try:
        import PIL.Image  # noqa: F401
    except Exception as error:
        raise DataError(f"reading image files needs Pillow ({error}); pip install 'multistep[images]'") from error


def look_at(content: Content) -> Look | str:
    """The header of an image, or why it cannot be read."""
    if isinstance(content, np.ndarray):
        grey = content.ndim == 2 or content.shape[2] == 1
        return Look(grey, "grey" if grey else "RGB", *content.shape[:2])
    try:
        with _open(content) as image:
            turned = image.getexif().get(0x0112) in _TURNED
            width, height = reversed(image.size) if turned else image.size
            look = Look(image.mode in _GREY, image.mode, height, width)
            if image.mode not in _DEEP:
                return look
            values = np.asarray(image, np.float64)
            return _wrong_values(values, image.mode) or replace(look, peak=float(values.max()))
    except Exception as error:  # Pillow's readers raise OSError, ValueError, SyntaxError, struct.error and their own
        return _reason(content, error)


def decode(content: Content, form: Form) -> Pixels | str:
    """The image in that form, (H, W, C), or why it cannot be read.

    Turned as its EXIF orientation says; laid on white where it is transparent; of an animation the first frame;
    more than 8 bits become 8. Another size is averaged down (or interpolated up), the whole image, whatever its
    proportions.
    """
    if isinstance(content, np.ndarray):
        pixels = content if content.ndim == 3 else content[:, :, None]
        if pixels.shape == (form.height, form.width, form.channels):
            return pixels
    try:
        from PIL import Image

        if isinstance(content, np.ndarray):
            return in_form(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), form)
        with _open(content) as opened:
            # Of a JPEG the finest waves are left out, which takes a third of the time; what is left is averaged down.
            opened.draft(None, (DRAFT * max(form.height, form.width),) * 2)
            return in_form(opened, form)
    except Exception as error:
        return _reason(content, error)


def in_form(image: Image, form: Form) -> Pixels | str:
    """`decode` of an image that Pillow has opened; raises what Pillow does for one that it cannot read."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    image.load()
    if image.mode in _DEEP:
        values = np.asarray(image, np.float64)
        white = form.white or _usual_white(image.mode, float(values.max()))
        if why := _wrong_values(values, image.mode, white):
            return why
        image = Image.fromarray((values * (255 / white)).clip(0, 255).round().astype(np.uint8))
    image = _in_mode(image, "L" if form.channels == 1 else "RGB")
    if image.size != (form.width, form.height):
        image = image.resize((form.width, form.height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8).reshape(form.height, form.width, form.channels)


def look_at_all(contents: Sequence[Content]) -> list[Look | str]:
    """`look_at`, several at a time."""
    if all(isinstance(content, np.ndarray) for content in contents):
        return [look_at(content) for content in contents]
    require_pillow()
    return in_threads(look_at, contents)


def pixels_of(looks: Iterable[Sequence[Look | str]]) -> int:
    """The pixels of all images whose headers could be read."""
    return sum(look.height * look.width for each in looks for look in each if isinstance(look, Look))


def fits_decoded(images: int, form: Form, pixels: int) -> bool:
    """Whether images are few and small enough to be decoded beforehand; `pixels` are those of their files.

    By rule, not by this machine's memory: how images are told apart, and so which of them are held out, follows.
    """
    return images * form.channels * form.height * form.width <= MOST_BYTES and pixels <= MOST_PIXELS


def decode_all(contents: Sequence[Content], form: Form) -> tuple[Pixels, dict[int, str]]:
    """All images, (N, H, W, C), and why some could not be read, by number; their pixels are zero."""
    shape = (form.height, form.width, form.channels)
    if all(isinstance(content, np.ndarray) and content.shape in (shape, shape[:2]) for content in contents):
        return np.array(contents, np.uint8).reshape(-1, *shape), {}
    images = np.zeros((len(contents), *shape), np.uint8)
    failures: dict[int, str] = {}

    def one(number: int) -> None:
        found = decode(contents[number], form)
        if isinstance(found, str):
            failures[number] = found
        else:
            images[number] = found

    in_threads(one, range(len(contents)))
    return images, dict(sorted(failures.items()))


def form_of(looks: Sequence[Look]) -> tuple[Form, list[str]]:
    """The form that suits the images, and notes where some must be changed.

    RGB if any is; the size that all share, else a square of the median side, 224 pixels at most.
    """
    notes: list[str] = []
    modes = Counter(look.mode for look in looks)
    channels = 1 if all(look.grey for look in looks) else 3
    if len(modes) > 1 or not modes.keys() <= {"L", "RGB", "grey"}:
        counts = ", ".join(f"{mode} {count:,}" for mode, count in modes.most_common(6))
        notes.append(f"modes of the images: {counts}; all are read as {'grey' if channels == 1 else 'RGB'}")
    sizes = Counter((look.height, look.width) for look in looks)
    height, width = next(iter(sizes))
    if len(sizes) > 1:
        height = width = min(LARGEST_SIDE, int(np.median([np.sqrt(look.height * look.width) for look in looks])))
    if sizes.keys() != {(height, width)}:
        low, high = min(sizes), max(sizes)
        many = f"of {len(sizes):,} sizes, {low[0]} x {low[1]} to {high[0]} x {high[1]}" if len(sizes) > 1 else ""
        notes.append(f"images are {many or f'{low[0]} x {low[1]}'}; all are resized to {height} x {width}")
    white, said = _white_of(looks)
    return Form(channels, height, width, white), [*notes, *said]


def _white_of(looks: Sequence[Look]) -> tuple[float | None, list[str]]:
    """What is white in all images with more than 8 bits together: cameras fill 16 bits by 10, 12 or 14."""
    peaks: dict[bool, float] = {}
    for look in looks:
        if look.peak is not None:
            peaks[look.mode == "F"] = max(look.peak, peaks.get(look.mode == "F", 0.0))
    if not peaks:
        return None, []
    if len(peaks) > 1:
        raise DataError("images are whole numbers of 16 bits and fractions in one set; save them all in one way")
    ((fractions, peak),) = peaks.items()
    white = _usual_white("F", peak) if fractions else float(2 ** max(8, int(peak).bit_length()) - 1)
    many = sum(look.peak is not None for look in looks)
    return white, [f"images with more than 8 bits: {many:,}, up to {peak:,.6g}; {white:,.6g} is read as white"]


def _usual_white(mode: str, peak: float) -> float:
    """The white of fractions, and of whole numbers of which nothing is known but how many bits hold them."""
    return 65535.0 if mode != "F" else 1.0 if peak <= 1 else 255.0


def _wrong_values(values: NDArray[np.float64], mode: str, white: float = np.inf) -> str | None:
    """Why pixels cannot be read as brightness, if so."""
    if not np.isfinite(values).all() or values.min() < 0:
        return "holds values below 0, or none that are numbers; save it as 0 to 255, or as fractions of 0 to 1"
    if mode == "F" and values.max() > 255:
        return f"holds fractions up to {values.max():,.6g}, of which white is unknown; save it as 0 to 1 or 0 to 255"
    if values.max() > TOO_BRIGHT * white:
        return f"holds values up to {values.max():,.6g}, where {white:,.6g} is white"
    return None


def _open(content: Path | bytes) -> Image:
    from PIL import Image

    return Image.open(content if isinstance(content, Path) else BytesIO(content))


def _in_mode(image: Image, mode: str) -> Image:
    from PIL import Image

    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def _reason(content: Content, error: Exception) -> str:
    if isinstance(content, Path) and not content.exists():
        return NO_FILE
    if (content.stat().st_size if isinstance(content, Path) else len(content)) == 0:
        return "empty"
    if isinstance(content, Path) and content.suffix.lower() in _UNREAD:
        return _UNREAD[content.suffix.lower()]
    begun = _beginning(content)
    if begun.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS: `git lfs pull` fetches the image"
    if begun.lstrip().lower().startswith((b"<html", b"<!doctype html")):
        return "a web page, as a failed download leaves"
    name = type(error).__name__
    return "not an image that Pillow can read" if name == "UnidentifiedImageError" else str(error) or name


def _beginning(content: Content) -> bytes:
    if isinstance(content, Path):
        try:
            with content.open("rb") as file:
                return file.read(64)
        except OSError:
            return b""
    return content[:64] if isinstance(content, bytes) else b""
