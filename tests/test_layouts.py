"""Folders, archives and tables as people have them, for images: what is read, what is left out, what is said."""

from __future__ import annotations

import io
import json
import re
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from cases_images import SHAPES, picture, png
from PIL import Image
from pyarrow import feather, parquet

from multistep.core.values.plan import DataSpec
from multistep.data import archives
from multistep.data.classes import text_classes
from multistep.data.sources import read_parts
from multistep.engine.names import is_here
from multistep.errors import DataError
from multistep.tasks.images.files import FORM, read_items
from multistep.tasks.images.items import Item
from multistep.tasks.images.splits import load_splits, look_through

SIDE = 8


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def draw(file: Path, seed: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(SHAPES[seed % 2], np.random.default_rng(seed), SIDE)).save(file)
    return file


def draw_classes(folder: Path, count: int = 3, classes: Sequence[str] = ("cats", "dogs")) -> Path:
    for number, name in enumerate(classes):
        for i in range(count):
            draw(folder / name / f"{i}.png", 2 * i + number)
    return folder


def read(source: Path | str, **more: Any) -> tuple[dict[str, list[Item]], str]:
    """The items of each split, and all notes."""
    items, _, notes = read_items(DataSpec(source=str(source), **more))
    return items, "\n".join(notes)


def told(items: Sequence[Item]) -> Counter[str]:
    return Counter(str(item.label) for item in items)


THREE = Counter(cats=3, dogs=3)


# Folders --------------------------------------------------------------------------------------------


def test_hidden_files_are_no_data_at_any_depth_and_are_counted(tmp_path: Path) -> None:
    draw_classes(tmp_path)
    for name in (".ipynb_checkpoints/0-checkpoint.png", "deep/.git/x.png", "._0.png", "__MACOSX/a.png", "Thumbs.db"):
        draw(tmp_path / "cats" / "x.png").rename(tmp_path / "x.png")
        (tmp_path / "cats" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x.png").rename(tmp_path / "cats" / name)
    draw(tmp_path / "__MACOSX" / "cats" / "._0.png")
    items, notes = read(tmp_path)
    assert told(items["train"]) == THREE
    assert f"{tmp_path}: hidden files left out: 5 (" in notes
    for name in (".ipynb_checkpoints", ".git", "._0.png", "__MACOSX", "Thumbs.db"):
        assert name in notes


@pytest.mark.parametrize("wrapper", ["chest_xray", "x/chest_xray", "dataset/images"])
def test_wrapper_folders_are_descended_into_and_said(tmp_path: Path, wrapper: str) -> None:
    for split in ("train", "val", "test"):
        draw_classes(tmp_path / wrapper / split)
    (tmp_path / "README.md").write_text("about the data")
    items, notes = read(tmp_path)
    assert {split: told(held) for split, held in items.items()} == dict.fromkeys(("train", "validation", "test"), THREE)
    assert f"{tmp_path}: its data are all in the folder '{wrapper.partition('/')[0]}', which is read" in notes


def test_what_lies_beside_a_folder_of_splits_is_no_class(tmp_path: Path) -> None:
    for split in ("train", "val"):
        draw_classes(tmp_path / "photos" / split)
    draw(tmp_path / "title.png")
    draw_classes(tmp_path / "masks")
    items, notes = read(tmp_path)
    assert {split: told(held) for split, held in items.items()} == dict.fromkeys(("train", "validation"), THREE)
    assert f"{tmp_path}: its data are all in the folder 'photos', which is read; left out: masks, title.png" in notes


def test_folders_for_all_classes_and_about_them_are_no_classes(tmp_path: Path) -> None:
    for i in range(4):  # as of Oxford's pets
        draw(tmp_path / "pets" / "images" / f"{'big_cat' if i % 2 else 'dog'}_{i}.png", i)
        draw(tmp_path / "pets" / "annotations" / "trimaps" / f"{i}.png", i)
    (tmp_path / "pets" / "README.md").write_text("about the data")
    assert told(read(tmp_path / "pets")[0]["train"]) == Counter(big_cat=2, dog=2)
    draw_classes(tmp_path / "tiny" / "train")
    draw(tmp_path / "tiny" / "val" / "images" / "val_0.png")  # as of Tiny ImageNet, whose labels are in a list
    items, notes = read(tmp_path / "tiny")
    assert {split: told(held) for split, held in items.items()} == {"train": THREE}
    assert "val/images without class folders, so it is left aside" in notes


def test_folders_repeated_in_themselves_and_a_split_without_labels(tmp_path: Path) -> None:
    draw_classes(tmp_path / "training_set" / "training_set")
    draw_classes(tmp_path / "test_set" / "test_set", 2)
    draw(tmp_path / "pred_set" / "pred_set" / "0.png")
    items, notes = read(tmp_path)
    assert (told(items["train"]), told(items["test"])) == (THREE, Counter(cats=2, dogs=2))
    assert f"{tmp_path}: left out, since their names are not those of splits: pred_set" in notes


def test_lists_without_a_header_name_images_and_labels(tmp_path: Path) -> None:
    for i in range(8):
        draw(tmp_path / "caffe" / "pictures" / f"a {i}.jpg", i)
    lines = [f"pictures/a {i}.jpg {i % 2}\n" for i in range(8)]
    (tmp_path / "caffe" / "train.txt").write_text("".join(lines[:6]))
    (tmp_path / "caffe" / "val.txt").write_text("".join(lines[6:]))
    (tmp_path / "caffe" / "notes.txt").write_text("pictures of two kinds\n")
    parts, said = read(tmp_path / "caffe")
    assert {split: told(items) for split, items in parts.items()} == {
        "train": {"0": 3, "1": 3},
        "validation": {"0": 1, "1": 1},
    }
    assert f"{tmp_path / 'caffe' / 'train.txt'}: each line is a file and its label" in said
    draw_classes(tmp_path / "tiny" / "train", classes=("n01", "n02"))
    rows = [f"val_{i}.png\tn0{1 + i % 2}\t0\t32\t44\t62\n" for i in range(4)]
    for i in range(4):
        draw(tmp_path / "tiny" / "val" / "images" / f"val_{i}.png", 50 + i)
    (tmp_path / "tiny" / "val" / "val_annotations.txt").write_text("".join(rows))
    parts, _ = read(tmp_path / "tiny")
    assert told(parts["validation"]) == {"n01": 2, "n02": 2}
    (tmp_path / "tiny" / "val" / "val_annotations.txt").write_text("".join(rows * 20) + "and so on\n")
    with pytest.raises(DataError, match=r"val_annotations.txt:81: 'and so on' is not a file and its label"):
        read(tmp_path / "tiny")


def test_labels_in_files_beside_images_as_of_webdataset(tmp_path: Path) -> None:
    for shard in range(2):
        for i in range(4):
            draw(tmp_path / "made" / f"{shard}" / f"{i:06d}.png", 4 * shard + i)
            (tmp_path / "made" / f"{shard}" / f"{i:06d}.cls").write_text(f"{i % 2}\n")
        (tmp_path / "shards").mkdir(exist_ok=True)
        with tarfile.open(tmp_path / "shards" / f"set-{shard:06d}.tar", "w") as shards:
            for file in sorted((tmp_path / "made" / f"{shard}").iterdir()):
                shards.add(file, file.name)
    for source, each in ((tmp_path / "made" / "0", 2), (tmp_path / "shards", 4)):
        parts, said = read(source)
        assert told(parts["train"]) == {"0": each, "1": each}
        assert "the label of each is in the .cls file beside it" in said


def test_names_of_classes_beside_folders_are_no_table(tmp_path: Path) -> None:
    """A .json of names made the folder of the splits the one class that there is, or was read as the table."""
    for split in ("train", "valid"):
        draw_classes(tmp_path / "flowers" / "data" / split, classes=("1", "2"))
    (tmp_path / "flowers" / "cat_to_name.json").write_text('{"1": "rose", "2": "tulip"}')
    assert {split: told(items) for split, items in read(tmp_path / "flowers")[0].items()} == {
        "train": {"rose": 3, "tulip": 3},
        "validation": {"rose": 3, "tulip": 3},
    }
    draw_classes(tmp_path / "food" / "images")
    (tmp_path / "food" / "meta").mkdir()
    for split in ("train", "test"):
        (tmp_path / "food" / "meta" / f"{split}.json").write_text('{"cats": ["cats/0"], "dogs": ["dogs/0"]}')
    parts, said = read(tmp_path / "food")
    assert told(parts["train"]) == {"cats": 3, "dogs": 3}
    assert "left out: meta" in said
    for name in ("train.X1", "train.X2", "val.X"):
        draw_classes(tmp_path / "parts" / name)
    (tmp_path / "parts" / "Labels.json").write_text('{"n01": "tench"}')
    with pytest.raises(DataError, match=r"parts of splits by their names \(train.X1, train.X2, val.X\), not classes"):
        read(tmp_path / "parts")


WORDNET = ("n01440764", "n02012849", "n03126707")
NAMED = ("tench", "crane (n02012849)", "crane (n03126707)")  # two kinds of crane are told apart
SYNSETS = "n01440764 tench, Tinca tinca\nn02012849 crane\nn03126707 crane\n"


@pytest.mark.parametrize(
    ("name", "content", "classes", "called"),
    [
        ("LOC_synset_mapping.txt", SYNSETS, WORDNET, NAMED),
        ("map_clsloc.txt", "n01440764 1 tench\nn02012849 2 crane\nn03126707 3 crane\n", WORDNET, NAMED),
        (
            "imagenet_class_index.json",
            json.dumps(
                {str(i): [key, name.split(" ")[0]] for i, (key, name) in enumerate(zip(WORDNET, NAMED, strict=True))}
            ),
            WORDNET,
            NAMED,
        ),
        ("classes.txt", "cat\ndog\nfox\n", ("0", "1", "2"), ("cat", "dog", "fox")),
        ("labels.txt", "0: stop\n1: go\n2: wait\n", ("00000", "00001"), ("stop", "go")),
        ("labels.csv", "ClassId,Name\n0,stop\n1,go\n", ("0", "1"), ("stop", "go")),
        ("data.yaml", "train: ../train\nnames: ['cat', 'dog']\n", ("0", "1"), ("cat", "dog")),
        ("classes.txt", "cat\ndog\nfox\n", ("0", "1"), ("cat", "dog")),  # as in a split that lacks one
        ("classes.txt", "cat\ndog\nfox\n", ("2", "3"), ("dog", "fox")),
        ("classes.txt", "cat\ndog\nfox\n", ("1", "2"), ("1", "2")),  # of which number the first is, nothing says
        ("classes.txt", "feline\ncanine\n", ("cat", "dog"), ("cat", "dog")),
    ],
)
def test_classes_are_called_as_a_file_beside_says(
    name: str, content: str, classes: Sequence[str], called: Sequence[str], tmp_path: Path
) -> None:
    for split in ("train", "val"):
        draw_classes(tmp_path / split, classes=classes)
    (tmp_path / name).write_text(content)
    parts, said = read(tmp_path)
    assert {split: told(items) for split, items in parts.items()} == {
        split: dict.fromkeys(called, 3) for split in ("train", "validation")
    }
    assert (f"classes are called as {tmp_path / name} says: {min(classes)} is {called[0]}" in said) == (
        called != classes
    )


def test_a_list_of_wordnets_ids_is_named_as_the_folders_are(tmp_path: Path) -> None:
    draw_classes(tmp_path / "train", classes=WORDNET)  # as Tiny ImageNet
    for i in range(6):
        draw(tmp_path / "val" / "images" / f"val_{i}.png", 50 + i)
    rows = [f"val_{i}.png\t{WORDNET[i % 3]}\t0\t0\t9\t9\n" for i in range(6)]
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(rows))
    (tmp_path / "words.txt").write_text(SYNSETS.replace(" ", "\t", 1).replace("9 ", "9\t").replace("7 ", "7\t"))
    parts, _ = read(tmp_path)
    assert (told(parts["train"]), told(parts["validation"])) == (dict.fromkeys(NAMED, 3), dict.fromkeys(NAMED, 2))


def test_annotations_of_whole_images_are_classes_and_boxes_are_not(tmp_path: Path) -> None:
    for i in range(8):
        draw(tmp_path / "herbarium" / "images" / f"{i}.png", i)
    marks: list[dict[str, Any]] = [{"id": i, "image_id": i, "category_id": i % 2} for i in range(8)]
    coco = {
        "images": [{"id": i, "file_name": f"images/{i}.png"} for i in range(8)],
        "annotations": marks,
        "categories": [{"id": 0, "name": "oak"}, {"id": 1, "name": "elm"}],
    }
    (tmp_path / "herbarium" / "metadata.json").write_text(json.dumps(coco))
    assert told(read(tmp_path / "herbarium")[0]["train"]) == {"oak": 4, "elm": 4}
    (tmp_path / "herbarium" / "metadata.json").write_text(
        json.dumps({**coco, "annotations": [{**mark, "bbox": [0, 0, 4, 4]} for mark in marks]})
    )
    with pytest.raises(DataError, match=r"metadata.json: boxes or outlines in images \(COCO\), as for a detector"):
        read(tmp_path / "herbarium")
    for i in range(4):  # as of YOLO
        draw(tmp_path / "yolo" / "images" / "train" / f"{i}.png", i)
        (tmp_path / "yolo" / "labels" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "yolo" / "labels" / "train" / f"{i}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(
        DataError, match=r"no class folders; .*labels/train/0.txt and its kin hold boxes, as for a detec"
    ):
        read(tmp_path / "yolo")


def test_what_is_not_read_is_named_with_what_to_do(tmp_path: Path) -> None:
    """Photos of telephones were overlooked, and of pickles and arrays it was only said that there are no folders."""
    draw_classes(tmp_path / "phone", count=20)
    (tmp_path / "phone" / "cats" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "phone" / "dogs" / "clip.mov").write_bytes(b"x")
    (tmp_path / "phone" / "dogs" / "lfs.jpg").write_text("version https://git-lfs.github.com/spec/v1\n")
    seen = look_through(DataSpec(source=str(tmp_path / "phone")))
    said = "\n".join(load_splits(seen).notes)
    assert "IMG_1.HEIC (a HEIC photo, which Pillow cannot read: convert it" in said
    assert "lfs.jpg (a pointer of Git LFS: `git lfs pull` fetches the image)" in said
    assert "no images by their suffix: 1 (.mov 1)" in said
    for name, content, why in (
        ("data_batch_1", b"\x80\x02}q", "data_batch_1, a pickle, which can run any code"),
        ("X.npy", b"x", "X.npy, an array without a name: give its arrays to multistep.train"),
        ("x.mat", b"x", "x.mat, of MATLAB, read by scipy.io.loadmat"),
    ):
        folder = tmp_path / name.partition(".")[0]
        (folder / "inside").mkdir(parents=True)
        (folder / "inside" / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"no class folders of images.*it holds inside/{re.escape(why)}"):
            read(folder)
    with pytest.raises(DataError, match=r"x.mat: not a source of images; .*; it is of MATLAB, read by scipy.io.load"):
        read(tmp_path / "x" / "inside" / "x.mat")
    (tmp_path / "links" / "cats").mkdir(parents=True)
    (tmp_path / "links" / "cats" / "1.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"it holds cats/1.png, a link to a file that is not there"):
        read(tmp_path / "links")


def test_columns_of_public_tables(tmp_path: Path) -> None:
    """Names in any spelling; who is on several images, and flags of splits, are honoured; several labels are said."""
    rows = []
    for i in range(12):
        draw(tmp_path / f"{i}.png", i)
        rows.append((f"{i}.png", i % 2, i // 2, i >= 8, "scab rust" if i % 3 else "scab", "a|b" if i % 2 else "a"))

    def table(*columns: tuple[str, int]) -> tuple[dict[str, list[Item]], str]:
        lines = [",".join(name for name, _ in columns), *(",".join(str(row[i]) for _, i in columns) for row in rows)]
        (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
        return read(tmp_path / "t.csv")

    parts, said = table(("Path", 0), ("ClassId", 1), ("Patient ID", 2))
    assert [item.group for item in parts["train"][:4]] == ["0", "0", "1", "1"]
    assert "labels from 'ClassId', groups (each kept in one split) from 'Patient ID'" in said
    parts, said = table(("name", 0), ("label", 1), ("is_valid", 3))
    assert {split: len(items) for split, items in parts.items()} == {"train": 8, "validation": 4}
    _, said = table(("image", 0), ("labels", 4))
    assert "t.csv:3: the label 'scab rust' looks like several at once" in said
    _, said = table(("image", 0), ("finding", 5))
    assert "labels in 'finding' are several in one field, separated by '|', so an image has several of 2" in said
    (tmp_path / "t.jsonl").write_text('{"file_name": "0.png", "objects": {"bbox": [1]}}\n' * 2)
    with pytest.raises(DataError, match=r"t.jsonl:1: 'objects' is an object \(bbox\), as of boxes for a detector"):
        read(tmp_path / "t.jsonl")


def test_too_few_of_each_class_is_told_from_labels_that_are_none(tmp_path: Path) -> None:
    for i in range(6):
        draw(tmp_path / f"{i}.png", i)
    (tmp_path / "t.csv").write_text("image,label\n" + "".join(f"{i}.png,a photo number {i}\n" for i in range(6)))
    with pytest.raises(DataError, match=r"6 images of 6 classes, at most 1 of one .* no classes but captions"):
        load_splits(look_through(DataSpec(source=str(tmp_path / "t.csv"))))


def test_an_unlabelled_test_folder_is_left_aside(tmp_path: Path) -> None:
    draw_classes(tmp_path / "train")
    for i in range(4):
        draw(tmp_path / "test" / f"{i}.png", i)
    items, notes = read(tmp_path)
    assert {split: told(held) for split, held in items.items()} == {"train": THREE}
    assert f"test: its 4 images lie in {tmp_path}/test without class folders, so it is left aside" in notes


def test_folders_inside_classes_tell_splits_or_nothing(tmp_path: Path) -> None:
    for batch in ("batch0", "batch1"):
        for name in ("cats", "dogs"):
            draw(tmp_path / "nested" / "2024" / name / batch / "0.png")
    items, notes = read(tmp_path / "nested")
    assert told(items["train"]) == Counter(cats=2, dogs=2)
    assert (
        "classes are the folders in it (cats, dogs); those inside them tell no classes apart (batch0, batch1)" in notes
    )
    for name in ("cats", "dogs"):
        for split in ("train", "test"):
            draw(tmp_path / "split" / name / split / "0.png")
    items, _ = read(tmp_path / "split")
    assert {split: told(held) for split, held in items.items()} == {
        split: Counter(cats=1, dogs=1) for split in ("train", "test")
    }


def test_labels_from_the_names_of_files(tmp_path: Path) -> None:
    for i in range(4):
        draw(tmp_path / "train" / f"{'cat' if i % 2 else 'dog'}.{i}.png", i)
        draw(tmp_path / "test1" / f"{i}.png", i)
    items, notes = read(tmp_path)
    assert told(items["train"]) == Counter(cat=2, dog=2)
    assert "labels are from the names of the files, such as cat.1.png: cat (2), dog (2)" in notes
    for i in range(4):  # what cameras call their files tells nothing
        draw(tmp_path / "camera" / f"{'IMG' if i % 2 else 'DSC'}_{i}.png", i)
    with pytest.raises(DataError, match="4 images but no class folders"):
        read(tmp_path / "camera")


def test_one_class_folder_is_refused_by_its_name(tmp_path: Path) -> None:
    draw_classes(tmp_path, classes=("cats",))
    with pytest.raises(DataError, match="every training image is labelled 'cats'; a classifier needs two classes"):
        load_splits(look_through(DataSpec(source=str(tmp_path))))


def test_class_folders_of_texts(tmp_path: Path) -> None:
    for name in ("pos", "neg", "unsup"):
        (tmp_path / name).mkdir()
        for i in range(2):
            (tmp_path / name / f"{i}_1.txt").write_text(f"a {name} text {i}")
    (tmp_path / "urls_pos.txt").write_text("http")
    table = text_classes(tmp_path)
    assert table is not None
    rows = list(zip(table.column("text"), table.column("label"), strict=True))
    assert rows == [(f"a {name} text {i}", name) for name in ("neg", "pos") for i in range(2)]
    assert f"{tmp_path}: texts left out that have no class: 2 in 'unsup'" in table.notes
    assert f"{tmp_path}: texts left out that lie beside the class folders: 1" in table.notes
    assert table.place(2) == f"{tmp_path}/pos/0_1.txt"


# Archives -------------------------------------------------------------------------------------------


def tar_of(folder: Path, file: Path) -> None:
    mode: Any = f"w:{file.suffix[1:].replace('tgz', 'gz')}"
    with tarfile.open(file, mode) as archive:
        archive.add(folder, folder.name)


def zip_of(folder: Path, file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder.parent))
        archive.writestr("__MACOSX/photos/._x.png", b"x")


@pytest.mark.parametrize(
    ("name", "pack"), [("a.zip", zip_of), ("a.tar.gz", tar_of), ("a.tgz", tar_of), ("a.tar.xz", tar_of)]
)
def test_archives_are_unpacked_once_and_read_like_their_folder(
    tmp_path: Path, name: str, pack: Callable[[Path, Path], None]
) -> None:
    draw_classes(tmp_path / "photos")
    pack(tmp_path / "photos", tmp_path / name)
    items, notes = read(tmp_path / name)
    assert told(items["train"]) == THREE
    assert f"{tmp_path / name}: unpacked " in notes
    first = items["train"][0].content
    assert isinstance(first, Path)
    before = first.stat().st_mtime_ns
    archives._unpacked.cache_clear()
    again, _ = read(tmp_path / name)
    assert again["train"][0].content == first
    assert first.stat().st_mtime_ns == before  # not written again
    first.unlink()
    archives._unpacked.cache_clear()
    assert told(read(tmp_path / name)[0]["train"]) == THREE  # what a cleaned cache lacks is unpacked anew


def test_splits_in_archives_and_a_table_in_one(tmp_path: Path) -> None:
    for split in ("train", "test"):
        draw_classes(tmp_path / "made" / split)
        (tmp_path / "data").mkdir(exist_ok=True)
        zip_of(tmp_path / "made" / split, tmp_path / "data" / f"{split}.zip")
    items, _ = read(tmp_path / "data")
    assert {split: told(held) for split, held in items.items()} == dict.fromkeys(("train", "test"), THREE)
    with zipfile.ZipFile(tmp_path / "labels.csv.zip", "w") as archive:
        archive.writestr("labels.csv", f"path,label\n{tmp_path}/made/train/cats/0.png,a\n")
    items, _ = read(tmp_path / "labels.csv.zip")
    assert [item.label for item in items["train"]] == ["a"]


def zip_with(file: Path, name: str, mode: int = 0) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, "/etc/passwd")


def tar_with(file: Path, name: str, kind: bytes, target: str = "") -> None:
    with tarfile.open(file, "w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        archive.addfile(info)


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "out of a zip": (
        "a.zip",
        lambda f: zip_with(f, "../../x.png"),
        r"its member '../../x.png' would be written outside",
    ),
    "absolute": ("a.zip", lambda f: zip_with(f, "/etc/x.png"), r"its member '/etc/x.png' would be written outside"),
    "out of a tar": ("a.tar", lambda f: tar_with(f, "../x", tarfile.REGTYPE), "would be extracted to"),
    "a link out": ("a.tar", lambda f: tar_with(f, "x", tarfile.SYMTYPE, "../../y"), "would link to"),
    "a device": ("a.tar", lambda f: tar_with(f, "x", tarfile.CHRTYPE), "is a special file"),
    "cut off": ("a.zip", lambda f: f.write_bytes(b"PK\3\4"), "cannot be unpacked"),
    "another kind": (
        "a.7z",
        lambda f: f.write_bytes(b"7z"),
        "not opened here; unpack it, or pack it as .zip or .tar.gz",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_archives_must_not_do(case: str, tmp_path: Path) -> None:
    name, write, message = BAD[case]
    write(tmp_path / name)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_links_in_a_zip_are_left_out_and_bombs_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zip_with(tmp_path / "link.zip", "photos/cats/0.png", stat.S_IFLNK | 0o777)
    with pytest.raises(DataError, match="no class folders of images"):
        read(tmp_path / "link.zip")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", bytes(2**24))
    monkeypatch.setattr(archives, "SMALL", 2**20)
    with pytest.raises(DataError, match=r"bytes that unpack to more than [\d,]+, over 200 times as much"):
        read(tmp_path / "bomb.zip")
    monkeypatch.setattr(archives, "MOST_FILES", 0)
    with pytest.raises(DataError, match="holds more than 0 files"):
        read(tmp_path / "bomb.zip")


# Tables beside images -------------------------------------------------------------------------------


def test_ids_without_suffix_beside_folders_of_images(tmp_path: Path) -> None:
    for i in range(6):
        draw(tmp_path / "train" / f"{i:03}.jpg", i)
        draw(tmp_path / "test" / f"{i:03}.jpg", i)
    (tmp_path / "labels.csv").write_text("id,breed\n" + "".join(f"{i:03},{'ab'[i % 2]}\n" for i in range(6)))
    (tmp_path / "sample_submission.csv").write_text("id,a,b\n003,0.5,0.5\n")
    items, notes = read(tmp_path)
    assert told(items["train"]) == Counter(a=3, b=3)
    assert {item.content for item in items["train"]} == {tmp_path / "train" / f"{i:03}.jpg" for i in range(6)}
    assert f"found by their names below {tmp_path}: train/ 6 (first: '000' is train/000.jpg)" in notes
    assert items["train"][1].where == f"{tmp_path}/labels.csv:3 (001)"


def test_tables_of_splits_name_files_in_folders_of_their_own_and_a_json_names_the_classes(tmp_path: Path) -> None:
    for i in range(4):
        draw(tmp_path / "train_images" / f"{i}.jpg", i)
        draw(tmp_path / "test_images" / f"{i}.jpg", i)
    (tmp_path / "train.csv").write_text("image_id,label,width\n" + "".join(f"{i}.jpg,{i % 2},9\n" for i in range(4)))
    (tmp_path / "test.csv").write_text("image_id,width\n" + "".join(f"{i}.jpg,9\n" for i in range(4)))
    (tmp_path / "label_num_to_disease_map.json").write_text(json.dumps({"0": "healthy", "1": "rust", "2": "rot"}))
    items, notes = read(tmp_path)
    assert list(items) == ["train"]
    assert told(items["train"]) == Counter(healthy=2, rust=2)
    assert {item.content for item in items["train"]} == {tmp_path / "train_images" / f"{i}.jpg" for i in range(4)}
    assert f"test: {tmp_path}/test.csv has no column of labels beside 'image_id', 'width', so it is left aside" in notes
    assert "their names are from" in notes


def test_a_label_by_any_other_name_is_one_in_the_test_split_too(tmp_path: Path) -> None:
    for i in range(4):
        draw(tmp_path / f"{i}.png", i)
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("image_id,dx\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(4)))
    items, _ = read(tmp_path)
    assert {split: told(held) for split, held in items.items()} == {s: Counter(a=2, b=2) for s in ("train", "test")}


def test_one_column_a_class(tmp_path: Path) -> None:
    rows = ["0.png,1,0", "1.png,0,1", "2.png,1,0"]
    for i in range(3):
        draw(tmp_path / f"{i}.png", i)
    (tmp_path / "onehot.csv").write_text("\n".join(["image_id,healthy,rust", *rows]))
    items, notes = read(tmp_path / "onehot.csv")
    assert [item.label for item in items["train"]] == ["healthy", "rust", "healthy"]
    assert "labels from 2 columns of zeros and ones, one class a row: 'healthy', 'rust'" in notes
    (tmp_path / "onehot.csv").write_text("\n".join(["image_id,healthy,rust", "0.png,1,1", *rows * 40]))
    with pytest.raises(DataError, match=r"onehot.csv:2: its image is of 2 classes \('healthy', 'rust'\), .* only one"):
        read(tmp_path / "onehot.csv")
    # Columns that merely hold a one somewhere are no classes.
    (tmp_path / "other.csv").write_text("image_id,visits,finding\n0.png,1,x\n1.png,2,y\n2.png,1,x\n")
    with pytest.raises(DataError, match=r"which column names the labels\? columns: 'image_id', 'visits', 'finding'"):
        read(tmp_path / "other.csv")


@pytest.mark.parametrize("header", [True, False])
def test_a_column_for_each_pixel(tmp_path: Path, header: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 64))
    rows = [",".join(map(str, (7 + i % 2, *row))) for i, row in enumerate(pixels)]
    names = [",".join(["label", *(f"pixel{i}" for i in range(64))])] if header else []
    (tmp_path / "mnist.csv").write_text("\n".join([*names, *rows]) + "\n")
    items, notes = read(tmp_path / "mnist.csv")
    assert told(items["train"]) == Counter({"7": 3, "8": 2})
    content = items["train"][1].content
    assert isinstance(content, np.ndarray)
    assert content.tolist() == pixels[1].reshape(8, 8).tolist()
    assert items["train"][1].where == f"{tmp_path}/mnist.csv:{3 if header else 2}"
    assert "each row is an image of 8 x 8 pixels" in notes


def test_pixels_in_one_cell(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64))
    rows = [f"{i % 2},{' '.join(map(str, row))},x" for i, row in enumerate(pixels)]
    (tmp_path / "faces.csv").write_text("\n".join(["emotion,pixels,usage", *rows]))
    items, _ = read(tmp_path / "faces.csv")
    assert told(items["train"]) == Counter({"0": 2, "1": 2})
    content = items["train"][3].content
    assert isinstance(content, np.ndarray)
    assert content.tolist() == pixels[3].reshape(8, 8).tolist()


def test_a_root_and_paths_of_another_machine(tmp_path: Path) -> None:
    for name in ("a/0.png", "b/0.png", "b/1.PNG"):
        draw(tmp_path / "elsewhere" / name.lower()).rename(tmp_path / "elsewhere" / name)
    table = tmp_path / "tables" / "list.csv"
    table.parent.mkdir()
    table.write_text("path,label\nC:\\data\\a\\0.png,x\n/home/u/b/0.png,y\nb/1.png,y\nlost.png,y\n")
    items, notes = read(table, root=str(tmp_path / "elsewhere"))
    assert [item.content for item in items["train"]] == [
        tmp_path / "elsewhere" / name for name in ("a/0.png", "b/0.png", "b/1.PNG", "lost.png")
    ]
    assert "b/ 2, a/ 1 (first: 'C:\\data\\a\\0.png' is a/0.png)" in notes
    table.write_text("path,label\n0.png,x\n")
    with pytest.raises(DataError, match=r"list.csv:2: '0.png' may be a/0.png and b/0.png; write its path from"):
        read(table, root=str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match=r"data.root: no folder .*nowhere"):
        read(table, root="nowhere")
    table.write_text("path,label\nx.png,x\ny.png,y\n")
    with pytest.raises(
        DataError, match=r"2 of 2 images .*no such file.*name the folder .* with --set data.root=FOLDER"
    ):
        look_through(DataSpec(source=str(table)))


def test_a_lost_file_is_not_taken_for_another_of_its_name(tmp_path: Path) -> None:
    for name in ("cats/0.png", "cats/1.png", "dogs/0.png", "dogs/1.png", "dogs/2.png"):
        draw(tmp_path / name)
    for prefix in ("", "/cluster/photos/"):
        rows = [f"{prefix}{name},{name[:3]}" for name in ("cats/0.png", "cats/1.png", "cats/2.png", "dogs/0.png")]
        (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
        items, _ = read(tmp_path / "list.csv")
        lost = [item for item in items["train"] if isinstance(item.content, Path) and not item.content.is_file()]
        assert [item.where for item in lost] == [f"{tmp_path}/list.csv:4 ({prefix}cats/2.png)"]


def test_the_files_of_a_table_may_lie_in_an_archive_beside_it(tmp_path: Path) -> None:
    for i in range(4):
        draw(tmp_path / "made" / "train" / f"{i}.png", i)
        draw(tmp_path / "made" / "test" / f"{i}.png", i)
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        zip_of(tmp_path / "made" / split, tmp_path / "data" / f"{split}.zip")
    rows = [f"{i}.png,{'ab'[i % 2]}" for i in range(4)]
    (tmp_path / "data" / "train_labels.csv").write_text("\n".join(["image_id,label", *rows]))
    items, notes = read(tmp_path / "data")
    assert told(items["train"]) == Counter(a=2, b=2)
    assert all(isinstance(item.content, Path) and item.content.is_file() for item in items["train"])
    assert f"found by their names below {tmp_path}/data: train/train/ 4 (first: '0.png' is train/train/0.png)" in notes


def test_numbers_and_missing_headers_are_named(tmp_path: Path) -> None:
    for i in range(3):
        draw(tmp_path / f"{i}.png", i)
    (tmp_path / "ages.csv").write_text("image,age\n0.png,20\n1.png,20.5\n2.png,31\n")
    items, said = read(tmp_path / "ages.csv")
    assert [item.label for item in items["train"]] == [20.0, 20.5, 31.0]
    assert "labels have fractions, so they are numbers to be predicted" in said
    items, _ = read(tmp_path / "ages.csv", labels="class")
    assert [item.label for item in items["train"]] == ["20", "20.5", "31"]


# Images inside tables -------------------------------------------------------------------------------


def sets_of(count: int) -> pyarrow.Table:
    """Images with class names as the library `datasets` writes them."""
    held = [
        {"bytes": png(Image.fromarray(picture(SHAPES[i % 2], np.random.default_rng(i), SIDE))), "path": None}
        for i in range(count)
    ]
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    table = pyarrow.table({"image": held, "label": [i % 2 for i in range(count)]})
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
def test_images_inside_tables(tmp_path: Path, name: str) -> None:
    table = sets_of(5)
    if name == "a.parquet":
        parquet.write_table(table, tmp_path / name)
    elif name == "a.feather":
        feather.write_feather(table, tmp_path / name)
    else:
        with pyarrow.ipc.new_stream(tmp_path / name, table.schema) as out:
            out.write_table(table)
    items, _ = read(tmp_path / name)
    assert told(items["train"]) == Counter(cat=3, dog=2)
    content = items["train"][1].content
    assert isinstance(content, bytes)
    assert Image.open(io.BytesIO(content)).size == (SIDE, SIDE)


def test_shards_in_folders_of_splits(tmp_path: Path) -> None:
    for split, counts in (("train", (4, 3)), ("test", (2,))):
        (tmp_path / "default" / split).mkdir(parents=True)
        for i, count in enumerate(counts):
            parquet.write_table(sets_of(count), tmp_path / "default" / split / f"{i:04}.parquet")
    items, _ = read(tmp_path)
    assert {split: len(held) for split, held in items.items()} == {"train": 7, "test": 2}


def test_plain_bytes_are_images_too(tmp_path: Path) -> None:
    held = [row["bytes"] for row in sets_of(4)["image"].to_pylist()]
    parquet.write_table(
        pyarrow.table({"id": ["w", "x", "y", "z"], "png": held, "label": list("abab")}), tmp_path / "a.parquet"
    )
    items, notes = read(tmp_path / "a.parquet")
    assert [item.content for item in items["train"]] == held
    assert "images from 'png', labels from 'label'" in notes


@pytest.mark.parametrize(
    "card", ["---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: x/one*\n---\n", ""]
)
def test_a_cloned_hub_folder(tmp_path: Path, card: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    clone = tmp_path / "clone"
    if card:
        (clone / "x").mkdir(parents=True)
        (clone / "README.md").write_text(card)
        parquet.write_table(sets_of(6), clone / "x" / "one.parquet")
        parquet.write_table(sets_of(4), clone / "x" / "two.parquet")
    else:
        (clone / "data").mkdir(parents=True)
        parquet.write_table(sets_of(4), clone / "data" / "train-00000-of-00002.parquet")
        parquet.write_table(sets_of(2), clone / "data" / "train-00001-of-00002.parquet")
        parquet.write_table(sets_of(2), clone / "data" / "test-00000-of-00001.parquet")
    items, _ = read(clone)
    assert told(items["train"]) == Counter(cat=3, dog=3)
    assert sorted(items) == (["train"] if card else ["test", "train"])
    assert is_here(f"{clone}:default")
    assert told(read(f"{clone}:default")[0]["train"]) == Counter(cat=3, dog=3)
    assert sorted(read_parts(str(clone), DataSpec(source=str(clone)), FORM)) == sorted(items)
