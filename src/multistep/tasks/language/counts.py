"""What small nets from nothing count in the training texts: which n-grams or words there are, and what they tell."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from multistep.tasks.labelled.labels import Array, Labels
from multistep.tasks.labelled.scale import Scale
from multistep.tasks.language import nets
from multistep.tasks.language.encode import Encoded

if TYPE_CHECKING:
    from scipy.sparse import csr_array

TEXTS_AT_ONCE = 10_000  # whose pieces of words are counted together, so that memory is bounded


def occurrences(kind: str, texts: Sequence[str], spaceless: bool) -> list[Counter[str]]:
    """In how many texts each n-gram occurs, short ones and long ones apart; or how often each word does."""
    if kind == nets.CNN:
        return [Counter(word for text in texts for word in nets.words_of(text, spaceless))]
    short, long = _of_characters(texts) if spaceless else _of_words(texts)
    return [short, Counter({nets.key_of(False, ngram): count for ngram, count in long.items()})]


def _of_characters(texts: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    short, long = Counter[str](), Counter[str]()
    for text in map(nets.characters_of, texts):
        twos, threes, fours = nets.runs_of(text)
        short.update({*text, *twos})
        long.update({*threes, *fours})
    return short, long


def _of_words(texts: Sequence[str]) -> tuple[Counter[str], Counter[str]]:
    """Words and pairs of them, text by text; of the pieces of words first which words each text has, then how many
    texts have a word with the piece, as a product of sparse matrices: a text has hundreds of them.
    """
    short = Counter[str]()
    numbers: dict[str, int] = {}
    words: list[list[int]] = []  # of each text, the different ones
    for text in texts:
        read = nets.words_of(text, False)
        different = set(read)
        short.update(different.union(map(" ".join, pairwise(read))))
        words.append([numbers.setdefault(word, len(numbers)) for word in different])
    pieces: dict[str, int] = {}
    of_words = [[pieces.setdefault(piece, len(pieces)) for piece in {*nets.pieces_of(word)}] for word in numbers]
    counts = np.zeros(len(pieces), np.int64)
    if pieces:
        pieces_WP = _marked(of_words, len(pieces))
        for start in range(0, len(words), TEXTS_AT_ONCE):
            found_TP = _marked(words[start : start + TEXTS_AT_ONCE], len(numbers)) @ pieces_WP
            counts += np.bincount(found_TP.indices, minlength=len(pieces))
    return short, Counter(dict(zip(pieces, counts.tolist(), strict=True)))


def _marked(rows: Sequence[Sequence[int]], width: int) -> csr_array:
    """A matrix with ones in the columns that each row names."""
    from scipy.sparse import csr_array

    starts = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    columns = np.fromiter((column for row in rows for column in row), np.int64, int(starts[-1]))
    return csr_array((np.ones(len(columns), np.int32), columns, starts), shape=(len(rows), width))


def leanings_of(encoded: Encoded, labels_N: Array, labels: Labels, scale: Scale, vocabulary: int) -> Tensor:
    """What each n-gram says of each output by itself, counted in the training split (shape: vocabulary, outputs).

    Of a class, the logarithm of how much more frequent the n-gram is in it than elsewhere, each count one higher than
    it is: naive Bayes, from which Wang and Manning start too (Baselines and bigrams, ACL 2012). Of numbers, the mean
    deviation of its texts, shrunk by one.
    """
    rows = np.repeat(np.arange(len(encoded)), encoded.lengths)
    if labels.kind == "class":
        targets_NK = np.eye(labels.outputs)[labels_N.astype(np.int64)]
    else:
        targets_NK = labels_N.reshape(len(encoded), -1).astype(np.float64)
    total_V = np.bincount(encoded.tokens, minlength=vocabulary).astype(np.float64)
    found = np.zeros((vocabulary, labels.outputs))
    for k in range(labels.outputs):
        if labels.kind == "number":
            deviations_N = (targets_NK[:, k] - scale.mean) / scale.deviation
            found[:, k] = np.bincount(encoded.tokens, deviations_N[rows], vocabulary) / (total_V + 1.0)
        else:
            inside_V = np.bincount(encoded.tokens, targets_NK[rows, k], vocabulary) + 1.0
            outside_V = total_V - inside_V + 2.0
            found[:, k] = np.log(inside_V / inside_V.sum()) - np.log(outside_V / outside_V.sum())
    found[: nets.UNKNOWN + 1] = 0.0
    if labels.kind == "number":
        # Evidence for a class adds up, deviations do not: they are to be averaged, where the bags, each of length one,
        # sum them with weights of one over the root of how many n-grams a text has.
        found /= 2.0 * math.sqrt(max(1.0, 0.5 * float(np.mean(encoded.lengths))))
    return torch.from_numpy(found).float()
