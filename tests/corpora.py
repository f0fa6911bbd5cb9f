"""Small texts with structure, made by rule, for tests that train in a second."""

from __future__ import annotations

import random
from pathlib import Path

SUBJECTS = ["the cat", "a dog", "my friend", "the old king", "nobody", "every bird"]
VERBS = ["sees", "follows", "forgets", "paints", "carries"]
OBJECTS = ["the moon", "a river", "two stones", "his own name", "the last word", "a green door"]


def english(sentences: int, seed: int = 0) -> str:
    """Sentences of a small grammar: about 25 characters each."""
    choose = random.Random(seed)
    lines = [
        f"{choose.choice(SUBJECTS)} {choose.choice(VERBS)} {choose.choice(OBJECTS)}."
        + ("\n" if choose.random() < 0.3 else "")
        for _ in range(sentences)
    ]
    return "\n".join(lines) + "\n"


def chinese(lines: int, seed: int = 0) -> str:
    """Lines of a small grammar in Chinese characters."""
    choose = random.Random(seed)
    words = ["春风", "明月", "江水", "故人", "青山", "白云", "落花", "孤舟", "长夜", "归雁"]
    return "".join("".join(choose.choice(words) for _ in range(4)) + "。\n" for _ in range(lines))


def written(folder: Path, name: str = "corpus.txt", sentences: int = 2500) -> Path:
    path = folder / name
    path.write_text(english(sentences), encoding="utf-8")
    return path
