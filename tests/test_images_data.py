"""Images from every form that they come in, and what is wrong with them named by file and row."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from cases_images import SHAPES, picture, png, write_folders
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import nn

from multistep.core.values.plan import DataSpec
from multistep.errors import DataError
from multistep.tasks.images.decode import Form
from multistep.tasks.images.mirror import are_photographs, mirroring_helps
from multistep.tasks.images.splits import ImageSet, ImageSplits, load_one, load_splits, look_through
from multistep.tasks.images.task import ImageDomain
from multistep.tasks.labelled.labels import Labels

SIDE = 8


def load(source: Path | str, **columns: Any) -> ImageSplits:
    return load_splits(look_through(DataSpec(source=str(source), **columns)))


def counts(splits: ImageSplits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.validation), len(splits.test)


def pixels(count: int, seed: int = 0, channels: int = 0) -> NDArray[np.uint8]:
    shape = (count, SIDE, SIDE, channels) if channels else (count, SIDE, SIDE)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def labels(count: int) -> NDArray[np.uint8]:
    return (np.arange(count) % 2).astype(np.uint8)


def idx(array: NDArray[np.uint8]) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_table(folder: Path, rows: list[str], header: str = "path,label", name: str = "manifest.csv") -> Path:
    folder.mkdir(exist_ok=True)
    for i in range(len(rows)):
        Image.fromarray(picture(SHAPES[i % 2], np.random.default_rng(i), SIDE)).save(folder / f"{i}.png")
    (folder / name).write_text("\n".join([header, *rows]) + "\n")
    return folder / name


# Forms ----------------------------------------------------------------------------------------------


def test_class_folders_are_split_by_their_folders_or_cut_by_class(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train": 20, "val": 4, "test": 5}, SIDE)
    given = load(tmp_path)
    assert counts(given) == (60, 12, 15)
    assert given.classes == SHAPES
    assert given.form == Form(3, SIDE, SIDE)
    cut = load(tmp_path / "train")
    assert counts(cut) == (42, 9, 9)
    assert all(np.bincount(part.labels).tolist() == [len(part) // 3] * 3 for part in (cut.validation, cut.test))
    assert cut.fingerprint == load(tmp_path / "train").fingerprint != given.fingerprint
    assert any("cut by class into train 42, validation 9, test 9" in note for note in cut.notes)
    named = DataSpec(train=str(tmp_path / "train"), validation=str(tmp_path / "val"))
    assert counts(load_splits(look_through(named))) == (60, 12, 0)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_of_the_mnist_family(tmp_path: Path, zipped: bool) -> None:
    for prefix, count in (("train", 60), ("t10k", 20)):
        for name, array in (("images-idx3-ubyte", pixels(count, count)), ("labels-idx1-ubyte", labels(count))):
            data = gzip.compress(idx(array)) if zipped else idx(array)
            (tmp_path / f"{prefix}-{name}{'.gz' if zipped else ''}").write_bytes(data)
    found = load(tmp_path)
    assert counts(found) == (52, 8, 20)
    assert (found.classes, found.form) == (("0", "1"), Form(1, SIDE, SIDE))
    assert np.array_equal(found.test.images[:][..., 0], pixels(20, 20))


def test_arrays_of_an_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=pixels(60, 1) / np.float32(255), labels=labels(60), ids=np.arange(60))
    found = load(tmp_path / "a.npz")
    assert counts(found) == (44, 8, 8)
    assert any("arrays left out: ids" in note for note in found.notes)
    names = np.array(["cat", "dog"])
    first = pixels(40, 2, 3).transpose(0, 3, 1, 2)
    parts = {"x_train": first, "y_train": labels(40)[:, None], "x_test": pixels(10, 3, 3), "y_test": labels(10)}
    np.savez_compressed(tmp_path / "b.npz", allow_pickle=False, label_names=names, **parts)
    found = load(tmp_path / "b.npz")
    assert counts(found) == (34, 6, 10)
    assert (found.classes, found.form.channels) == (("cat", "dog"), 3)
    assert np.array_equal(found.test.images[:], pixels(10, 3, 3))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_a_manifest_names_files_labels_splits_and_groups(tmp_path: Path, suffix: str) -> None:
    rows = [(f"{i}.png", SHAPES[i % 2], ("train", "valid", "test")[i % 3], f"p{i % 6}") for i in range(24)]
    header = ("file_name", "class", "split", "patient")
    text = {
        "csv": [",".join(row) for row in rows],
        "tsv": ["\t".join(row) for row in rows],
        "jsonl": [str(dict(zip(header, row, strict=True))).replace("'", '"') for row in rows],
    }[suffix]
    top = {"csv": ",".join(header), "tsv": "\t".join(header), "jsonl": ""}[suffix]
    path = write_table(tmp_path, text, top, f"labels.{suffix}")
    for found in (load(path), load(tmp_path)):
        assert counts(found) == (8, 8, 8)
        assert found.classes == ("bars", "disc")
        assert len(set(found.test.blocks)) == 2
        assert any("splits from column 'split': train 8, validation 8, test 8 rows" in note for note in found.notes)
        assert any("image files from 'file_name', labels from 'class', groups" in note for note in found.notes)


def test_groups_stay_in_one_split(tmp_path: Path) -> None:
    rows = [f"{i}.png,{SHAPES[i % 2]},{i // 4}" for i in range(80)]
    found = load(write_table(tmp_path, rows, "path,label,subject"))
    parts = [{name.split("(")[1] for name in part.names} for part in (found.train, found.validation, found.test)]
    people = [{int(name.split(".")[0]) // 4 for name in part} for part in parts]
    assert all(people)
    assert not people[0] & (people[1] | people[2])
    assert not people[1] & people[2]
    assert any("cut by groups" in note for note in found.notes)


def test_a_group_with_the_last_images_of_a_class_stays_in_train(tmp_path: Path) -> None:
    """Each of the twelve has a class that nobody else shows, or that few do; whoever is held out, train has all."""
    for rare in range(12):
        rows = [f"{i}.png,{'rare' if i // 4 == rare else SHAPES[i % 2]},{i // 4}" for i in range(48)]
        found = load(write_table(tmp_path / str(rare), rows, "path,label,subject"))
        assert set(found.train.labels) == {0, 1, 2}
        assert all(counts(found))
        assert not any(note.startswith("train: classes that it does not show") for note in found.notes)
    own = write_table(tmp_path / "own", [f"{i}.png,{i // 4},{i // 4}" for i in range(48)], "path,label,subject")
    with pytest.raises(DataError, match=r"12 groups are too few .* without taking a class's last ones out of train"):
        load(own)


def test_columns_can_be_named(tmp_path: Path) -> None:
    rows = [f"{i}.png,{SHAPES[i % 2]},{i % 5}" for i in range(30)]
    path = write_table(tmp_path, rows, "where,what,how")
    with pytest.raises(DataError, match=r"which column names the labels\? columns: 'where', 'what', 'how'"):
        load(path)
    assert load(path, label_column="what").classes == ("bars", "disc")
    assert load(path, path_column="where", label_column="how").classes == tuple("01234")
    with pytest.raises(DataError, match=r"no column 'waht'.*Did you mean 'what'"):
        load(path, label_column="waht")


def test_hugging_face_image_sets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "fine": datasets.ClassLabel(names=["cat", "dog"])})

    def part(count: int, seed: int) -> Any:
        held = [{"bytes": png(Image.fromarray(image)), "path": None} for image in pixels(count, seed, 3)]
        return datasets.Dataset.from_dict({"img": held, "fine": labels(count).tolist()}, features=features)

    datasets.DatasetDict({"train": part(40, 0), "validation": part(10, 1)}).save_to_disk(tmp_path / "saved")
    found = load(tmp_path / "saved")
    assert counts(found) == (40, 10, 0)
    assert found.classes == ("cat", "dog")
    assert np.array_equal(found.validation.images[:], pixels(10, 1, 3))
    assert any("images from 'img', labels from 'fine'" in note for note in found.notes)


def test_handwritten_digits_need_no_download() -> None:
    found = load("handwritten-digits")
    assert sum(counts(found)) == 1797
    assert found.classes == tuple("0123456789")
    assert not mirroring_helps(found.train)[0], "a mirrored digit is another sign, or none"


@pytest.mark.parametrize("meaning", [False, True])
def test_mirror_images_are_used_where_they_help(meaning: bool) -> None:
    """Fifty things seen from either side: what they are is the label, or from which side."""
    choose = np.random.default_rng(0)
    things, sides = choose.integers(50, size=300), choose.random(300) < 0.5
    shown = pixels(50)[things]
    shown[sides] = shown[sides][:, :, ::-1]
    classes = (sides if meaning else things % 2).astype(np.int64)
    given = ImageSet(shown[..., None], classes, np.arange(300), tuple(map(str, range(300))))
    helps, why = mirroring_helps(given)
    assert helps is not meaning
    assert f"images are {'not ' if meaning else ''}mirrored in training" in why


def photographs(side: int = 32, cut: int = 160, count: int = 200) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pieces of scikit-learn's two photographs, a temple's and a flower's, from anywhere in them, and of which."""
    from sklearn.datasets import load_sample_images

    choose = np.random.default_rng(0)
    kinds = np.arange(count) % 2
    pieces = []
    for kind in kinds:
        whole = load_sample_images().images[kind]
        y, x = (int(choose.integers(extent - cut)) for extent in whole.shape[:2])
        pieces.append(np.asarray(Image.fromarray(whole[y : y + cut, x : x + cut]).resize((side, side))))
    return np.stack(pieces), kinds


def given_as(pictures: NDArray[np.uint8], kinds: NDArray[np.int64]) -> ImageSet:
    names = tuple(map(str, range(len(kinds))))
    return ImageSet(pictures, kinds, np.arange(len(kinds)), names)


def test_colour_photographs_are_mirrored_and_the_same_in_grey_are_not() -> None:
    pieces, kinds = photographs()
    helps, why = mirroring_helps(given_as(pieces, kinds))
    assert helps
    assert "mirrored in training, as colour photographs usually are" in why
    grey = pieces.mean(-1, keepdims=True).astype(np.uint8)
    assert not mirroring_helps(given_as(grey, kinds))[0]
    assert not mirroring_helps(given_as(grey.repeat(3, -1), kinds))[0], "three channels that are one have no colour"


def test_photographs_whose_side_is_their_meaning_are_not_mirrored() -> None:
    """The same two scenes again and again, a little different each time, and from which side is the label."""
    pieces, _ = photographs(count=20)
    choose = np.random.default_rng(1)
    shown = pieces[choose.integers(20, size=200)].astype(np.int64) + choose.integers(-9, 10, (200, 32, 32, 3))
    sides = np.arange(200) % 2
    shown[sides == 1] = shown[sides == 1][:, :, ::-1]
    helps, why = mirroring_helps(given_as(shown.clip(0, 255).astype(np.uint8), sides))
    assert not helps
    assert "not mirrored in training, though colour photographs usually are" in why


def test_a_single_photograph_is_mirrored_and_a_single_digit_is_not() -> None:
    assert mirroring_helps(given_as(*photographs(count=1)))[0]
    assert not mirroring_helps(given_as(pixels(1)[..., None], np.zeros(1, np.int64)))[0]


@pytest.mark.parametrize("side", [32, 64])
def test_drawings_and_letters_are_no_photographs(side: int) -> None:
    choose = np.random.default_rng(0)

    def colour() -> tuple[int, ...]:
        return tuple(choose.integers(0, 256, 3).tolist())

    def drawing() -> Image.Image:
        large = Image.new("RGB", (4 * side, 4 * side), colour())
        for _ in range(5):
            left, top, right, bottom = np.sort(choose.integers(0, 4 * side, (2, 2)), 0).ravel().tolist()
            ImageDraw.Draw(large).ellipse((left, top, right, bottom), fill=colour())
        return large.resize((side, side))  # with smooth edges, as icons have

    def letter() -> Image.Image:
        paper = Image.new("RGB", (side, side), colour())
        ImageDraw.Draw(paper).text((side // 4, side // 8), "R", fill=colour(), font_size=0.8 * side)
        grainy = np.asarray(paper) + choose.normal(0, 3, (side, side, 3))
        return Image.fromarray(grainy.clip(0, 255).astype(np.uint8))

    for make in (drawing, letter):
        assert not are_photographs(np.stack([np.asarray(make()) for _ in range(40)]))


@pytest.mark.real_data
def test_photographs_of_hands_are_mirrored(real_data: Path) -> None:
    """The mirror image of a hand is the other hand, and signs the same digit."""
    import tarfile

    source = real_data / "sign-digits" / "sign-digits.tar.gz"
    pictures, kinds = [], []
    with tarfile.open(source) as archive:
        for member in archive.getmembers()[::3]:
            file = archive.extractfile(member) if member.name.endswith(".JPG") else None
            if file is not None and "/train/" in member.name:
                pictures.append(np.asarray(Image.open(file)))
                kinds.append(int(Path(member.name).parent.name))
    assert mirroring_helps(given_as(np.stack(pictures), np.array(kinds)))[0]


# What is wrong --------------------------------------------------------------------------------------


def test_unreadable_images_are_skipped_by_name_unless_they_are_many(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train": 20, "val": 4}, SIDE)
    (tmp_path / "train/disc/000.png").write_bytes(b"")
    (tmp_path / "train/bars/001.png").write_bytes((tmp_path / "train/bars/001.png").read_bytes()[:60])
    (tmp_path / "train/bars/notes.txt").write_text("not an image")
    (tmp_path / "train/nothing").mkdir()
    found = load(tmp_path)
    assert counts(found)[:2] == (58, 12)
    said = " ".join(found.notes)
    assert "train: images skipped that cannot be read: 2" in said
    assert "disc/000.png (empty)" in said
    assert "bars/001.png (" in said
    assert "no images by their suffix: 1" in said
    assert "folders without images left out: nothing" in said
    for path in (tmp_path / "val/bars").iterdir():
        path.write_text("text")
    with pytest.raises(DataError, match=r"validation: 4 of 12 images cannot be read: .*bars/000.png \(not an image"):
        load(tmp_path)


def test_images_in_two_splits_are_counted_and_cut_ones_stay_together(tmp_path: Path) -> None:
    train, test = pixels(60, 1), pixels(20, 2)
    test[:3] = train[:3]
    np.savez(tmp_path / "a.npz", x_train=train, y_train=labels(60), x_test=test, y_test=1 - labels(20))
    assert any(
        "test: 3 of 20 images are in train too, pixel for pixel, 3 with another label" in note
        for note in load(tmp_path / "a.npz").notes
    )
    twins = pixels(20, 3).repeat(3, 0)
    np.savez(tmp_path / "b.npz", images=twins, labels=labels(20).repeat(3))
    found = load(tmp_path / "b.npz")
    kept = [{image.tobytes() for image in part.images[:]} for part in (found.train, found.validation, found.test)]
    assert not kept[0] & (kept[1] | kept[2])
    assert not kept[1] & kept[2]
    assert all(kept)


def test_a_class_with_one_image_is_trained_on_and_said(tmp_path: Path) -> None:
    names = np.array(["often"] * 20 + ["also"] * 20 + ["once"])
    np.savez(tmp_path / "a.npz", images=pixels(41), labels=names)
    found = load(tmp_path / "a.npz")
    once = found.classes.index("once")
    assert (found.train.labels == once).sum() == 1
    assert any("classes with one image, which can hardly be learnt: 'once'" in note for note in found.notes)
    assert any("validation: classes that it does not show" in note and "'once'" in note for note in found.notes)


Write = Callable[[Path], object]
WRONG: dict[str, tuple[Write, str]] = {
    "unknown label": (
        lambda f: write_table(f, [*(f"{i}.png,{i % 2},train" for i in range(9)), "0.png,7,val"], "path,label,split"),
        r"manifest.csv:11 \(0.png\): label '7' in validation is not in train, which has '0', '1'",
    ),
    "one class": (lambda f: write_table(f, ["0.png,a"] * 9), "every training image is labelled 'a'"),
    "no label": (lambda f: write_table(f, ["0.png,a", "1.png,"]), "manifest.csv:3: 'label' is empty"),
    "no split": (
        lambda f: write_table(f, ["0.png,a,train", "1.png,b,"], "path,label,split"),
        "manifest.csv:3: no split, though other rows have one in 'split'",
    ),
    "no such files": (lambda f: write_table(f, ["x.png,a", "y.png,b"]), r"2 of 2 images .*csv:2 \(x.png\) \(no such"),
    "no class folders": (lambda f: (f / "a.jpg").write_bytes(b""), "1 images but no class folders"),
    "empty folder": (lambda f: None, "no class folders of images; allowed: class folders of images, a manifest"),
    "two train splits": (
        lambda f: write_folders(f, {"train": 2, "training": 2}),
        "more than one train split: train, training",
    ),
    "counts differ": (
        lambda f: np.savez(f / "data.npz", images=pixels(9), labels=labels(8)),
        "9 images in 'images' but 8 labels in 'labels'",
    ),
    "values": (
        lambda f: np.savez(f / "data.npz", images=pixels(9) - 5.0, labels=labels(9)),
        r"values from -5 to \d+; pixels must be 0 to 255",
    ),
    "shape": (
        lambda f: np.savez(f / "data.npz", images=pixels(9)[:, 0], labels=labels(9)),
        r"shape \(9, 8\); allowed: \(N, height, width\)",
    ),
    "arrays": (lambda f: np.savez(f / "data.npz", a=pixels(9)), "holds 'a'; name arrays images and labels"),
    "not an npz": (lambda f: (f / "data.npz").write_bytes(b"PK not"), "not a .npz that numpy can read"),
    "idx alone": (
        lambda f: (f / "train-images-idx3-ubyte").write_bytes(idx(pixels(9))),
        "the IDX file with its labels is missing",
    ),
    "idx counts": (
        lambda f: [
            (f / f"train-{name}").write_bytes(idx(array))
            for name, array in (("images-idx3-ubyte", pixels(9)), ("labels-idx1-ubyte", labels(8)))
        ],
        "9 images, but 8 labels in train-labels-idx1-ubyte",
    ),
    "idx cut off": (
        lambda f: [
            (f / f"train-{name}").write_bytes(data)
            for name, data in (("images-idx3-ubyte", idx(pixels(9))[:-1]), ("labels-idx1-ubyte", idx(labels(9))))
        ],
        "575 bytes of data, but its header says 576; it is cut off",
    ),
    "too few groups": (
        lambda f: write_table(f, [f"{i}.png,{i % 2},{i % 3}" for i in range(9)], "path,label,group"),
        "3 groups are too few to cut validation and test from",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case: str, tmp_path: Path) -> None:
    write, message = WRONG[case]
    write(tmp_path)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_other_mistakes_are_named(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"no such file or folder; check the path. Did you mean 'photos'"):
        load(tmp_path / "photo")
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match="not a source of images"):
        load(tmp_path / "a.txt")
    write_folders(tmp_path, {"test": 2}, SIDE)
    with pytest.raises(DataError, match=r"bars/000.png: label 'bars' is unknown to the model; it has 'disc', 'squ"):
        load_one(DataSpec(source=str(tmp_path / "test")), Form(1, SIDE, SIDE), Labels("class", ("disc", "square")))


def test_the_columns_of_the_training_data_are_scored(tmp_path: Path) -> None:
    for i in range(8):
        Image.fromarray(np.full((8, 8), 10 * i, np.uint8)).save(tmp_path / f"{i}.png")
    rows = [f"{i}.png,{7 - i}.png,{'x' if i % 2 else 'y'},{'a' if i < 4 else 'b'}" for i in range(8)]
    (tmp_path / "list.csv").write_text("\n".join(["image,back,label,kind", *rows]), encoding="utf-8")
    columns = {"path_column": "back", "label_column": "kind"}
    data, form, labels = DataSpec(source=str(tmp_path / "list.csv")), Form(1, 8, 8), Labels("class", ("a", "b"))
    found, notes = load_one(data, form, labels, columns)
    assert isinstance(found.images, np.ndarray)
    assert found.images[:, 0, 0, 0].tolist() == [10 * (7 - i) for i in range(8)]
    assert found.labels.tolist() == [0] * 4 + [1] * 4
    assert any("image files from 'back', labels from 'kind'" in note for note in notes)
    named, _ = load_one(replace(data, path_column="image"), form, labels, columns)
    assert isinstance(named.images, np.ndarray)
    assert named.images[:, 0, 0, 0].tolist() == [10 * i for i in range(8)], "what is named comes first"


def test_class_weights_let_all_classes_contribute_alike(tmp_path: Path) -> None:
    path = write_table(tmp_path, [f"{i}.png,{'rare' if i % 5 == 0 else 'usual'}" for i in range(40)])
    plain, found = load(path), load(path, class_weights="balanced")
    assert plain.weights is None
    assert found.weights is not None
    assert np.allclose(np.bincount(found.train.labels) * found.weights, len(found.train) / 2)
    assert plain.fingerprint != found.fingerprint
    rare, usual = found.weights
    assert f"train: in the loss classes weigh rare {rare:.3g}, usual {usual:.3g}" in found.notes
    level = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2)).eval().requires_grad_(False)
    for parameter in level.parameters():
        nn.init.zeros_(parameter)
    images = torch.zeros(3, 3, SIDE, SIDE, dtype=torch.uint8)
    batch = (images, torch.tensor([0, 1, 1]), torch.empty(3, 0))
    total, count = ImageDomain(found, cast(Any, None)).loss(level, batch, 0.0)
    assert float(total) == pytest.approx((rare + 2 * usual) * np.log(2))
    assert int(count) == 3
    assert float(ImageDomain(plain, cast(Any, None)).loss(level, batch, 0.0)[0]) == pytest.approx(3 * np.log(2))
