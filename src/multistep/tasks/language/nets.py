"""Small classifiers of texts in plain torch: a bag of n-grams, and a convolutional net over words.

A copy of this file lies as net.py beside the weights that a run exports. It needs torch and safetensors alone:

    net = load("RUN/model")
    logits = net(*net.read("what a joy"))  # (1, outputs); of a pair: net.read("first", "second")
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

BAG, CNN = "bag", "cnn"
NOTHING, UNKNOWN = 0, 1  # ids: no token at all; a word that is not known, or hidden
WORDS = re.compile(r"[\w'\u2019]+|[^\w\s]")  # don't and n't are words
LONGEST_WORD = 30  # characters; what is longer is an address, of which the beginning is read
MOST_KEPT = 200_000  # words whose n-grams are remembered
REACHES = (2, 3, 4)  # words that a filter reads
HEAD_SPREAD = 1.0
PREFIX = "net."  # of the names of exported weights


@dataclass(frozen=True)
class TextNetConfig:
    """A net's sizes, and what it reads.

    `kind` bag: `width` numbers an n-gram; cnn: as many a word, and filters of each reach. `vocabulary` counts the rows
    of the embedding, the first two of which are no n-grams. The bag's `short` n-grams come first in the vocabulary: a
    text's short ones are one bag, its long ones another. `spaceless`: characters take the place of words. `pairs`: two
    texts are read. `longest` is the most n-grams, or words, that are read of a text.
    """

    kind: str
    outputs: int
    vocabulary: int
    short: int
    width: int
    spaceless: bool = False
    pairs: bool = False
    longest: int = 4096


# Reading ---------------------------------------------------------------------------------------------


def words_of(text: str, spaceless: bool) -> list[str]:
    """Lower-case words and marks; of scripts without spaces between words, characters."""
    return list(characters_of(text)) if spaceless else WORDS.findall(text.lower())


def characters_of(text: str) -> str:
    """In lower case, without white space."""
    return "".join(text.lower().split())


# A bag's n-grams. Short are words and pairs of words, long are three to five characters of a word with its ends marked;
# of scripts without spaces, up to two characters and three or four.


def runs_of(characters: str) -> tuple[list[str], list[str], list[str]]:
    """Each two, three and four characters in a row."""
    twos = list(map(str.__add__, characters, characters[1:]))
    threes = list(map(str.__add__, twos, characters[2:]))
    return twos, threes, list(map(str.__add__, threes, characters[3:]))


def pieces_of(word: str) -> Iterator[str]:
    """The long n-grams of a word."""
    marked = f"<{word[:LONGEST_WORD]}>"
    for size in (3, 4, 5):
        for start in range(len(marked) - size + 1):
            yield marked[start : start + size]


def key_of(short: bool, ngram: str) -> str:
    """An n-gram's line in the vocabulary: a piece of a word begins with a space, so that it is no word."""
    return ngram if short else f" {ngram}"


class Reader:
    """Texts -> ids. `vocabulary` names the ids from 2 on."""

    def __init__(self, config: TextNetConfig, vocabulary: Sequence[str]) -> None:
        self.config, self.vocabulary = config, tuple(vocabulary)
        self._ids = {key: i for i, key in enumerate(self.vocabulary, UNKNOWN + 1)}
        self._long = {key[1:]: i for key, i in self._ids.items() if config.spaceless and key != key.lstrip(" ")}
        self._of_words: dict[str, tuple[int | None, tuple[int, ...]]] = {}

    def id_of(self, key: str) -> int:
        """The id of a line of the vocabulary; UNKNOWN for any other."""
        return self._ids.get(key, UNKNOWN)

    def ids(self, text: str) -> list[int]:
        """What is known of a text: each of its n-grams once, or its words in order; never empty."""
        spaceless, ids = self.config.spaceless, self._ids
        if self.config.kind == CNN:
            return [ids.get(word, UNKNOWN) for word in words_of(text, spaceless)] or [UNKNOWN]
        if spaceless:
            return self._of_characters(characters_of(text)) or [UNKNOWN]
        words = words_of(text, spaceless)
        found: list[int] = []
        for word, after in zip(words, (*words[1:], None)):  # noqa: B905  # of one length
            own, pieces = self._of_words.get(word) or self._of_word(word)
            if own is not None:
                found.append(own)
            if after is not None and (pair := ids.get(f"{word} {after}")) is not None:
                found.append(pair)
            found += pieces
        return list(dict.fromkeys(found)) or [UNKNOWN]

    def _of_characters(self, text: str) -> list[int]:
        """In the order of where they begin, the shorter first."""
        twos, threes, fours = runs_of(text)
        short, long = self._ids.get, self._long.get
        known = zip_longest(map(short, text), map(short, twos), map(long, threes), map(long, fours))
        found = dict.fromkeys(chain.from_iterable(known))
        found.pop(None, None)
        return list(found)  # type: ignore[arg-type]  # None was taken out

    def _of_word(self, word: str) -> tuple[int | None, tuple[int, ...]]:
        """The ids of a word and of its pieces, kept since words come again."""
        if len(self._of_words) >= MOST_KEPT:
            self._of_words.clear()
        keys = (key_of(False, piece) for piece in pieces_of(word))
        kept = self._ids.get(word), tuple(self._ids[key] for key in keys if key in self._ids)
        self._of_words[word] = kept
        return kept

    def __call__(self, text: str, second: str | None = None) -> tuple[Tensor, Tensor]:
        """Ids and, of each, 1 in the second text of a pair (shapes: 1, ids)."""
        parts = [self.ids(t)[: self.config.longest] for t in (text, second) if t is not None]
        types = [i for i, part in enumerate(parts) for _ in part]
        return torch.tensor([[i for part in parts for i in part]]), torch.tensor([types])


# Nets ------------------------------------------------------------------------------------------------


class TextNet(nn.Module):
    """Ids, and which text of a pair they are of -> logits. A pair is told by both its vectors, product and distance."""

    read: Reader  # set by `load`

    def __init__(self, config: TextNetConfig, features: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.dropout = nn.Dropout(0.0)
        self.head = nn.Linear(features * (4 if config.pairs else 1), config.outputs)

    def vectors(self, ids_BT: Tensor) -> Tensor:
        """What the head reads of a text (shape: texts, features); ids of 0 are nothing."""
        raise NotImplementedError

    def forward(self, ids_BT: Tensor, types_BT: Tensor) -> Tensor:
        if self.config.pairs:
            first, second = (self.vectors(ids_BT * (types_BT == i)) for i in (0, 1))
            x = torch.cat((first, second, first * second, (first - second).abs()), 1)
        else:
            x = self.vectors(ids_BT)
        logits: Tensor = self.head(self.dropout(x))
        return logits


def weighted_sums(table_VD: Tensor, ids_BT: Tensor, shares_BT: Tensor, *, few: bool) -> Tensor:
    """Sums of a table's rows, each with its share (shape: B, D); `few`: look up those alone whose share is not 0.

    Most of them are 0 in training; but how many are not has to be asked of a GPU, which takes longer than all of them.
    """
    if torch.compiler.is_exporting():  # a graph for ONNX has no bags, and cannot depend on how many shares are not 0
        return torch.bmm(shares_BT[:, None].to(table_VD.dtype), F.embedding(ids_BT, table_VD)).squeeze(1)
    if not few:
        return F.embedding_bag(ids_BT, table_VD, per_sample_weights=shares_BT.to(table_VD.dtype), mode="sum")
    rows, columns = shares_BT.nonzero(as_tuple=True)
    found = F.embedding(ids_BT[rows, columns], table_VD) * shares_BT[rows, columns, None]
    return found.new_zeros(len(ids_BT), table_VD.shape[1]).index_add(0, rows, found)


class Bag(TextNet):
    """Weighted sums of the embeddings of short and of long n-grams, each over the length of its weights.

    So each of a text's bags is a TF-IDF vector of length one, mapped to `width` numbers. In training `thin` leaves out
    most of its n-grams, other ones each time. Sources: Joulin et al., arXiv 1607.01759; what dropout does to a linear
    model: Wager et al., 1307.1493.
    """

    weights: Tensor

    def __init__(self, config: TextNetConfig) -> None:
        super().__init__(config, config.width)
        self.register_buffer("weights", torch.ones(config.vocabulary))
        self.thin = nn.Dropout(0.0)

    def vectors(self, ids_BT: Tensor) -> Tensor:
        weights_BT = self.weights[ids_BT] * (ids_BT > UNKNOWN)
        long_BT = ids_BT > UNKNOWN + self.config.short
        squares_BT = weights_BT.square()
        of_long_B1 = (squares_BT * long_BT).sum(1, keepdim=True)
        of_short_B1 = squares_BT.sum(1, keepdim=True) - of_long_B1
        length_BT = torch.where(long_BT, of_long_B1, of_short_B1).clamp(min=1e-6).sqrt()
        shares_BT = self.thin(weights_BT / length_BT)
        return weighted_sums(self.embedding.weight, ids_BT, shares_BT, few=ids_BT.device.type == "cpu")


class Cnn(TextNet):
    """The strongest answer of each filter anywhere in a text. Source: Kim, arXiv 1408.5882."""

    def __init__(self, config: TextNetConfig) -> None:
        width = config.width
        super().__init__(config, width * len(REACHES))
        self.embedding_dropout = nn.Dropout(0.0)
        self.filters = nn.ModuleList(nn.Conv1d(width, width, reach, padding=reach - 1) for reach in REACHES)

    def vectors(self, ids_BT: Tensor) -> Tensor:
        there_BT1 = (ids_BT != NOTHING).unsqueeze(2)
        x_BDT = (self.embedding_dropout(self.embedding(ids_BT)) * there_BT1).transpose(1, 2)
        there_B1T = there_BT1.transpose(1, 2).to(x_BDT)
        found = []
        for convolve, reach in zip(self.filters, REACHES, strict=True):
            # What a filter says of no word at all is not of this text: a longer one in the batch made room for it.
            places_B1T = nn.functional.pad(there_B1T, (reach - 1, reach - 1))
            some_B1T = _any_of(places_B1T, reach)
            found.append(torch.relu(convolve(x_BDT).masked_fill(~some_B1T, -torch.inf).amax(2)))
        return torch.cat(found, 1)


def _any_of(places_B1T: Tensor, reach: int) -> Tensor:
    """Whether any of the places that a filter of this reach reads is not 0."""
    if torch.compiler.is_exporting():  # as a maximum the graph would be for texts of one length
        last = places_B1T.shape[2] - reach + 1
        return torch.stack([places_B1T[:, :, i : i + last] for i in range(reach)]).sum(0) > 0
    return F.max_pool1d(places_B1T, reach, stride=1) > 0


def make(config: TextNetConfig) -> TextNet:
    return Bag(config) if config.kind == BAG else Cnn(config)


def initialise(net: TextNet, seed: int) -> TextNet:
    """First weights; the same seed gives the same bits.

    A bag begins with small embeddings before a head that is not: all the same whether a class is told by one number
    or by another. The head of the convolutional net is zero.
    """
    generator = torch.Generator().manual_seed(seed)
    bag = isinstance(net, Bag)
    nn.init.normal_(net.embedding.weight, 0.0, 0.1 if bag else 0.5, generator=generator)
    if bag:
        nn.init.normal_(net.head.weight, 0.0, HEAD_SPREAD, generator=generator)
    else:
        nn.init.zeros_(net.head.weight)
    nn.init.zeros_(net.head.bias)
    for module in net.modules():
        if isinstance(module, nn.Conv1d):
            nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return net


# Folders ---------------------------------------------------------------------------------------------


def load(folder: str | Path) -> TextNet:
    """The classifier of an exported folder, ready to use; `read` turns texts into what it is given."""
    net = make(TextNetConfig(**about(folder)["net"]))
    net.load_state_dict(weights_of(folder))
    net.read = Reader(net.config, vocabulary_of(folder))
    return net.eval()


def about(folder: str | Path) -> dict[str, Any]:
    """What lies beside the weights: kind and names of the labels, and the net's sizes."""
    content: dict[str, Any] = json.loads((Path(folder) / "multistep.json").read_text(encoding="utf-8"))
    return content


def weights_of(folder: str | Path) -> dict[str, Tensor]:
    """The exported weights by their names in a `TextNet`."""
    from safetensors.torch import load_file

    found = load_file(Path(folder) / "model.safetensors")
    return {name.removeprefix(PREFIX): tensor for name, tensor in found.items()}


def vocabulary_of(folder: str | Path) -> list[str]:
    """That of an exported folder."""
    return vocabulary_in(Path(folder) / "vocabulary.txt")


def vocabulary_in(file: Path) -> list[str]:
    """One n-gram or word a line; pieces of words begin with a space."""
    return file.read_bytes().decode("utf-8").split("\n")[:-1]
