"""Which list a text belongs to, told by its letters alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

from multistep.tasks.pretrained.listed import Kind

HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff]")
KANA = re.compile("[\u3040-\u30ff]")
CHINESE_SHARE = 0.2  # of the letters are Chinese characters in a Chinese text, however much English it quotes
KANA_SHARE = 0.05  # of the letters: above, what looks Chinese is Japanese
FOREIGN_SHARE = 0.005  # of the letters are outside ASCII in German, French, Spanish; in English hardly any
TEXTS, CHARACTERS = 1000, 500  # that are looked at, and how much of each


def kind_of(texts: Iterable[str]) -> Kind:
    """Chinese, English, or any language.

    Simple: languages that are written in ASCII, such as Indonesian or Dutch, are taken for English; name a model where
    that is wrong.
    """
    some = "".join(text[:CHARACTERS] for text in islice(texts, TEXTS))
    letters = sum(map(str.isalpha, some)) or 1
    if len(KANA.findall(some)) > KANA_SHARE * letters:
        return "any language"
    if len(HAN.findall(some)) > CHINESE_SHARE * letters:
        return "Chinese"
    foreign = sum(character.isalpha() and not character.isascii() for character in some)
    return "any language" if foreign > FOREIGN_SHARE * letters else "English"
