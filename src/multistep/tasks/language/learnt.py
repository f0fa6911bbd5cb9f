"""From what tokenizers, vocabularies and baselines are learnt: all training texts, or a stated sample of long ones."""

from __future__ import annotations

from dataclasses import dataclass

from multistep.core.values.plan import Plan
from multistep.tasks.language.examples import Examples, characters_in, some_of, texts_of
from multistep.tasks.language.preset import seconds_of
from multistep.tasks.sampling import characters_counted
from multistep.tasks.text.corpus import LongTexts

COUNTED_A_SECOND, BYTES_A_CHARACTER = 4e5, 20.0  # of n-grams of words and pieces of words, on one core
LEAST = 2_000_000  # characters


@dataclass(frozen=True)
class Learnt:
    """Training texts to learn from, and how many there are of them all, with all their characters."""

    texts: tuple[str, ...]
    count: int
    characters: int

    @property
    def share(self) -> float:
        """Of all characters, how many are in `texts`."""
        return sum(map(len, self.texts)) / max(1, self.characters)


def counted_of(plan: Plan) -> int:
    """The most characters of a long split from which n-grams are counted, within a plan's time."""
    return characters_counted(seconds_of(plan), COUNTED_A_SECOND, BYTES_A_CHARACTER, LEAST)


def learnt_from(train: Examples, plan: Plan) -> Learnt:
    """The texts of a training split, those of pairs one after the other's."""
    if not isinstance(train.texts, LongTexts):
        texts = texts_of(train)
        return Learnt(texts, len(texts), sum(map(len, texts)))
    some = texts_of(some_of(train, counted_of(plan)))
    return Learnt(some, len(train) * (1 + (train.seconds is not None)), characters_in(train))


def sample_notes(train: Examples, plan: Plan) -> tuple[str, ...]:
    """What was learnt from a part of a long split."""
    if not isinstance(train.texts, LongTexts) or characters_in(train) <= counted_of(plan):
        return ()
    some = some_of(train, counted_of(plan))
    return (
        f"vocabularies and the baseline are learnt from {len(some):,} of {len(train):,} training texts at most, drawn "
        f"by lot ({characters_in(some) / 1e6:,.1f} of {characters_in(train) / 1e6:,.1f} million characters): all would "
        "take more than 2% of the time or a gigabyte",
    )
