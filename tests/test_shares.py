"""The shares of train that a plan asks for: cut alike in every domain, refused where the data bring that split."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from multistep.core.values.plan import DataSpec
from multistep.errors import DataError

COUNT = 200
Sizes = tuple[int, int, int]


def in_language(data: DataSpec) -> Sizes:
    from multistep.tasks.language.splits import load_labelled

    found = load_labelled(data)
    return len(found.train), len(found.validation), len(found.test)


def in_images(data: DataSpec) -> Sizes:
    from multistep.tasks.images.splits import load_splits, look_through

    found = load_splits(look_through(data))
    return len(found.train), len(found.validation), len(found.test)


def in_speech(data: DataSpec) -> Sizes:
    from multistep.tasks.speech.splits import read_splits

    found = read_splits(data)
    return len(found.train), len(found.validation), len(found.test)


def in_writing(data: DataSpec) -> Sizes:
    from multistep.tasks.writing.sources import read_splits

    found = read_splits(data)
    return len(found.train), len(found.validation), len(found.test)


def lines(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def labelled(folder: Path) -> str:
    rows = [{"text": f"row number {i}", "label": "ab"[i % 2]} for i in range(COUNT)]
    return lines(folder / "rows.jsonl", rows)


def pictures(folder: Path) -> str:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (COUNT, 4, 4), np.uint8)
    np.savez(folder / "set.npz", images=images, labels=np.arange(COUNT) % 2)
    return str(folder / "set.npz")


def recordings(folder: Path) -> str:
    return lines(folder / "all.jsonl", [{"path": f"{i}.wav", "text": f"word {i}"} for i in range(COUNT)])


def conversations(folder: Path) -> str:
    rows = [{"prompt": f"what is {i}", "completion": f"it is {i}"} for i in range(COUNT)]
    return lines(folder / "talks.jsonl", rows)


def documents(folder: Path) -> str:
    return lines(folder / "texts.jsonl", [{"text": f"a text with the number {i:04}"} for i in range(COUNT)])


DOMAINS: dict[str, tuple[Callable[[Path], str], Callable[[DataSpec], Sizes]]] = {
    "language": (labelled, in_language),
    "images": (pictures, in_images),
    "speech": (recordings, in_speech),
    "conversations": (conversations, in_writing),
    "documents": (documents, in_writing),
}


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_share_that_a_plan_names_is_cut(domain: str, tmp_path: Path) -> None:
    write, sizes = DOMAINS[domain]
    source = write(tmp_path)
    assert sizes(DataSpec(source=source, validation_share=0.3, test_share=0.0)) == (140, 60, 0)
    train, validation, test = sizes(DataSpec(train=source, validation_share=0.25, test_share=0.15))
    assert (train, validation, test) == (120, 50, 30)
    usual = sizes(DataSpec(source=source))
    assert sizes(DataSpec(source=source, validation_share=0.3))[2] == usual[2] > 0


def test_a_share_of_a_split_that_the_data_bring_is_refused(tmp_path: Path) -> None:
    source = labelled(tmp_path)
    given = DataSpec(train=source, test=source, validation_share=0.2)
    assert in_language(given)[1:] == (40, COUNT)
    rows = [{"text": f"row {i}", "label": "ab"[i % 2], "split": "dev" if i % 4 > 1 else "train"} for i in range(COUNT)]
    with pytest.raises(DataError, match=r"brings a validation split of its own, so data.validation: 0.2"):
        in_language(DataSpec(source=lines(tmp_path / "split.jsonl", rows), validation_share=0.2))
