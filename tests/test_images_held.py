"""How images are held: decoded beforehand in one piece of memory, or by threads when they are asked for, and kept."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import Future
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from cases_images import png, write_folders
from numpy.typing import NDArray
from PIL import Image

from multistep.core.values.plan import DataSpec
from multistep.errors import DataError
from multistep.tasks.fitting import Numbers, cut, that_fit
from multistep.tasks.images import decode, stored
from multistep.tasks.images.decode import Form, Pixels
from multistep.tasks.images.holding import Images, ReadAhead
from multistep.tasks.images.mirror import mirroring_helps
from multistep.tasks.images.models import Maker
from multistep.tasks.images.splits import ImageSplits, load_splits, look_through
from multistep.tasks.images.stored import Stored
from multistep.tasks.images.task import ImageDomain

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MULTISTEP_CACHE", str(tmp_path / "cache"))
    write_folders(tmp_path / "pictures", {"train": 24, "val": 8, "test": 8})
    return tmp_path / "pictures"


def load(folder: Path) -> ImageSplits:
    return load_splits(look_through(DataSpec(source=str(folder))))


def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every set for one that is too large to be decoded beforehand."""
    monkeypatch.setattr(decode, "MOST_BYTES", 0)


def batches(found: ImageSplits, size: int = 7, count: int = 25) -> list[torch.Tensor]:
    domain = ImageDomain(found, cast(Maker, None))
    return [domain.batch(i * size, size, 3, CPU)[0] for i in range(count)]


def test_a_large_set_gives_the_same_batches_is_decoded_once_and_then_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = load(folder)
    expected = batches(small)
    large(monkeypatch)
    first = load(folder)
    assert isinstance(first.train.images, Stored)
    assert not list((tmp_path / "cache/images").glob("[!.]*")), "nothing has been decoded yet"
    assert all(torch.equal(*pair) for pair in zip(batches(first), expected, strict=True)), "two epochs and a half"
    assert np.array_equal(first.test.images[:], small.test.images[:])
    assert mirroring_helps(first.train) == mirroring_helps(small.train)

    def never(*_: object) -> str:
        return "decoded again"

    monkeypatch.setattr(stored, "decode", never)
    assert all(torch.equal(*pair) for pair in zip(batches(load(folder)), expected, strict=True))
    assert load(folder).fingerprint == first.fingerprint
    with pytest.raises(DataError, match=r"val.*\.png: decoded again"):
        load(folder).validation.images[:]  # which nobody has asked for: no part of it was published


def test_a_full_disk_or_no_cache_costs_time_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = batches(load(folder))
    large(monkeypatch)
    monkeypatch.setenv("MULTISTEP_CACHE_LIMIT", "1KB")
    found = load(folder)
    assert all(torch.equal(*pair) for pair in zip(batches(found), expected, strict=True))
    assert "MULTISTEP_CACHE_LIMIT give it more" in " ".join(found.notes)
    monkeypatch.delenv("MULTISTEP_CACHE_LIMIT")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    assert all(torch.equal(*pair) for pair in zip(batches(load(folder)), expected, strict=True))


def test_what_was_kept_longest_makes_room(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large(monkeypatch)
    kept = tmp_path / "cache/images"
    load(folder).train.images[:]
    (old,) = (path.name for path in kept.iterdir() if not path.name.startswith("."))
    (folder / "train/bars/000.png").unlink()
    size = sum(path.stat().st_size for path in (kept / old).iterdir())

    monkeypatch.setenv("MULTISTEP_CACHE_LIMIT", str(2 * size))
    load(folder).train.images[:]
    (new,) = (path.name for path in kept.iterdir() if not path.name.startswith("."))
    assert new != old


def test_cut_files_are_skipped_and_what_breaks_later_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8))
    whole = png(noise, format="JPEG")
    (folder / "train/bars/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "train/bars/whole.jpg").write_bytes(whole)
    large(monkeypatch)
    found = load(folder)
    assert "train: images skipped that cannot be read: 1" in " ".join(found.notes)
    assert "cut.jpg (" in " ".join(found.notes)
    (folder / "train/bars/whole.jpg").write_bytes(b"gone")
    domain = ImageDomain(found, cast(Maker, None))
    with pytest.raises(DataError, match=r"whole\.jpg: not an image that Pillow can read; its header looked right"):
        domain.batch(0, len(found.train), 0, CPU)


def test_threads_work_a_bounded_number_of_batches_ahead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large(monkeypatch)
    images = load(folder).train.images
    assert isinstance(images, Stored)
    asked: list[int] = []
    reading = images.reading

    def counted(numbers: NDArray[np.int64], out: Pixels) -> list[Future[None]]:
        asked.append(int(numbers[0]))
        return reading(numbers, out)

    monkeypatch.setattr(images, "reading", counted)
    monkeypatch.setattr("multistep.tasks.images.holding.AHEAD_BYTES", 3 * 4 * 12 * 12 * 3)
    ahead = ReadAhead(images)
    for first in range(5):
        ahead.take(np.arange(first, first + 4), (np.arange(i, i + 4) for i in range(first + 1, 60)), pinned=False)
        assert len(asked) == first + 4, "three batches of four images are as many as may be ahead, each read once"


def test_large_photos_are_decoded_at_a_fraction_and_look_the_same(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:1200, :1600]
    smooth = np.stack([np.sin(rows / 90), np.cos(columns / 70), np.sin((rows + columns) / 110)], -1)
    photo = Image.fromarray((127 + 100 * smooth + np.random.default_rng(0).normal(0, 8, smooth.shape)).astype(np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    photo.save(tmp_path / "a.jpg", quality=90, exif=turned)
    form = Form(3, 160, 120)
    quick = decode.decode(tmp_path / "a.jpg", form)
    with Image.open(tmp_path / "a.jpg") as opened:
        slow = decode.in_form(opened, form)
    assert not isinstance(quick, str)
    assert not isinstance(slow, str)
    assert quick.shape == (160, 120, 3)
    assert np.abs(quick.astype(int) - slow.astype(int)).max() <= 6
    assert not np.array_equal(quick, slow), "it was decoded at a fraction"
    assert np.array_equal(quick, decode.decode(tmp_path / "a.jpg", form))


def test_decoding_and_cutting_hold_every_image_once(tmp_path: Path) -> None:
    shown = np.random.default_rng(0).integers(0, 256, (600, 64, 64, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=shown, labels=np.arange(600) % 3)
    seen = look_through(DataSpec(source=str(tmp_path / "a.npz")))
    tracemalloc.start()
    found = load_splits(seen)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.2 * shown.nbytes
    parts: list[Images] = [found.train.images, found.validation.images, found.test.images]
    assert sorted(image.tobytes() for part in parts for image in part[:]) == sorted(map(bytes, shown))
    numbers = [int(name.rpartition("#")[2]) for name in found.test.names]
    assert np.array_equal(found.test.images[:], shown[numbers]), "each keeps its own name"


def test_batches_are_halved_where_memory_runs_out_and_all_are_scored() -> None:
    def run(part: Numbers) -> list[int]:
        if len(part) > 3:
            raise torch.OutOfMemoryError
        return list(part)

    found = list(that_fit(cut(np.arange(21), 8), run))
    assert [i for part, _ in found for i in part] == list(range(21))
    assert all(list(part) == made for part, made in found)
    assert max(len(part) for part, _ in found) == 2, "eight, four and two were tried"
    with pytest.raises(torch.OutOfMemoryError):
        list(that_fit(cut(np.arange(2), 2), lambda part: run(np.arange(9))))
