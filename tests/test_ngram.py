"""The n-gram baseline: proper probabilities, and the numbers it is known for."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from multistep.errors import DataError
from multistep.tasks.text.ngram import SCALAR_VALUES, NGram

RUNNING = "abracadabra, abrakadabra; a barbarian in a bar.\n" * 3 + "zebra"
DOCUMENTS = ["the cat sat", "the dog sat", "a cat", "the cat ran", "x", "猫 sat"]


@pytest.mark.parametrize("context", ["", "a", "abra", "zebra", "never seen Ω", "\n", "ab☃ra"])
@pytest.mark.parametrize("order", [1, 2, 6])
def test_probabilities_sum_to_one(context: str, order: int) -> None:
    model = NGram.fit([RUNNING], order)
    seen = [chr(c) for c in model.alphabet]
    known = sum(np.exp(-model.score(context + c)[-1]) for c in seen)
    novel = np.exp(-model.score(context + "☃")[-1]) * (SCALAR_VALUES - len(seen))
    assert known + novel == pytest.approx(1.0, abs=1e-9)
    assert 0 < novel < 0.5


@pytest.mark.parametrize("context", ["", "the", "the cat ", "x", "ca☃", "猫"])
def test_with_documents_the_end_of_text_takes_its_share(context: str) -> None:
    model = NGram.fit(DOCUMENTS, 4)
    seen = [chr(c) for c in model.alphabet]
    known = sum(np.exp(-model.score(context + c)[-1]) for c in seen)
    end = np.exp(-model.score(context, end=True)[-1])
    novel = np.exp(-model.score(context + "☃")[-1]) * (SCALAR_VALUES - len(seen))
    assert known + end + novel == pytest.approx(1.0, abs=1e-9)
    assert model.score("the", end=True).shape == (4,)


def test_a_document_knows_nothing_of_the_one_before() -> None:
    model = NGram.fit(DOCUMENTS, 5)
    together = model.score_documents(DOCUMENTS, end=True)
    for text, nats in zip(DOCUMENTS, together, strict=True):
        np.testing.assert_array_equal(nats, model.score(text, end=True))
    often = NGram.fit(DOCUMENTS * 20, 5)
    assert np.exp(-often.score("t")[0]) == pytest.approx(0.5, abs=0.02), "half of them begin with t"


def test_a_running_text_has_no_end() -> None:
    with pytest.raises(ValueError, match="no end of text"):
        NGram.fit([RUNNING]).score("a", end=True)


@pytest.mark.parametrize("texts", [[""], []])
def test_nothing_to_count(texts: list[str]) -> None:
    with pytest.raises(DataError, match="no characters"):
        NGram.fit(texts)


@pytest.mark.parametrize("text", ["a", "ab", "aaaaaaaaaaaaaaaaaaaa"])
def test_very_short_texts_still_give_finite_scores(text: str) -> None:
    model = NGram.fit([text], 6)
    assert np.isfinite(model.score("aab猫")).all()
    assert model.score("").shape == (0,)


@pytest.mark.real_data
@pytest.mark.skipif("MULTISTEP_DATA" not in os.environ, reason="needs the real data")
def test_tiny_shakespeare_and_songci() -> None:
    data = Path(os.environ.get("MULTISTEP_DATA", ""))
    text = (data / "tinyshakespeare/input.txt").read_text()
    cut = int(0.9 * len(text))
    started = time.process_time()
    nats = NGram.fit([text[:cut]]).score(text[cut:])
    assert time.process_time() - started < 1.0
    assert nats.mean() == pytest.approx(1.5226, abs=1e-3)
    poems = {name: (data / f"songci/{name}.txt").read_text(encoding="utf-8") for name in ("train", "val")}
    model = NGram.fit([poems["train"]])
    assert model.order == 4
    assert model.score(poems["val"]).mean() == pytest.approx(4.3864, abs=1e-3)
