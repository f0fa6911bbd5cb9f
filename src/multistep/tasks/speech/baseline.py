"""What a trivial recogniser says: always the same, or a transcript picked by the sound's mean spectrum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multistep.core.evidence.metric import Evaluation, Floats
from multistep.tasks.speech.corpus import Clips
from multistep.tasks.speech.language import END, CharacterModel
from multistep.tasks.speech.score import character_errors, table_of, word_errors

MOST_CLASSES, LEAST_EXAMPLES = 200, 4  # different transcripts, and of each on average, to be told apart as classes
CANDIDATES = 50  # transcripts tried as the constant
TRIED_ON = 500  # utterances
MOST_FITTED = 5000
DOUBT = 0.01  # that the transcript is none of those learnt


@dataclass(frozen=True)
class Constant:
    """Always the training transcript that makes the fewest errors; for the loss, characters by counting."""

    transcript: str
    language: CharacterModel

    @property
    def name(self) -> str:
        return f"always '{_short(self.transcript)}'"

    @classmethod
    def fit(cls, train: Clips, language: CharacterModel) -> Constant:
        counts = Counter(train.texts)
        tried = np.linspace(0, len(train) - 1, min(len(train), TRIED_ON)).astype(np.int64)
        said, many = zip(*Counter(train.texts[i] for i in tried).items(), strict=True)

        def total(errors: Callable[[Sequence[str], Sequence[str]], list[int]], transcript: str) -> int:
            return int(np.dot(errors(said, [transcript] * len(said)), many))

        words = {text: total(word_errors, text) for text, _ in counts.most_common(CANDIDATES)}
        best = [text for text, errors in words.items() if errors == min(words.values())]
        # min takes the first of equals, which is the more frequent one.
        return cls(min(best, key=lambda text: total(character_errors, text)), language)

    def texts(self, clips: Clips) -> list[str]:
        return [self.transcript] * len(clips)

    def loss(self, clips: Clips) -> Floats:
        return np.array([-_log_probability(self.language, text) for text in clips.texts])


@dataclass(frozen=True)
class ByMean:
    """Logistic regression from each band's mean and deviation to one of a few whole transcripts."""

    model: Any
    classes: tuple[str, ...]
    language: CharacterModel
    name: str = "logistic regression on mean spectra"

    @classmethod
    def fit(cls, train: Clips, language: CharacterModel) -> ByMean | None:
        """None unless the training transcripts are few, and scikit-learn is there."""
        classes = tuple(sorted(set(train.texts)))
        if not 2 <= len(classes) <= MOST_CLASSES or len(train) < LEAST_EXAMPLES * len(classes):
            return None
        try:
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler
        except Exception:  # not there, or broken: the constant is there at any rate
            return None
        numbers = {text: i for i, text in enumerate(classes)}
        chosen = np.linspace(0, len(train) - 1, min(len(train), MOST_FITTED)).astype(np.int64)
        labels = np.array([numbers[train.texts[i]] for i in chosen])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200, tol=1e-3))
        seen = np.unique(labels)
        if len(seen) < 2:
            return None
        model.fit(train.summary[chosen], labels)
        return cls(model, tuple(classes[i] for i in seen), language)

    def _probabilities(self, clips: Clips) -> NDArray[np.float64]:
        return np.asarray(self.model.predict_proba(clips.summary), np.float64)

    def texts(self, clips: Clips) -> list[str]:
        return [self.classes[i] for i in self._probabilities(clips).argmax(1)]

    def loss(self, clips: Clips) -> Floats:
        numbers = {text: i for i, text in enumerate(self.classes)}
        found = []
        for row, text in zip(self._probabilities(clips), clips.texts, strict=True):
            own = row[numbers[text]] if text in numbers else 0.0
            found.append((1 - DOUBT) * own + DOUBT * np.exp(_log_probability(self.language, text)))
        return -np.log(np.maximum(found, 1e-300))


Baseline = Constant | ByMean


def fit_baseline(train: Clips, validation: Clips) -> Baseline:
    """Of the two, the one with fewer word errors on the validation split."""
    language = CharacterModel.of(train.texts)
    constant, by_mean = Constant.fit(train, language), ByMean.fit(train, language)
    if by_mean is None:
        return constant
    errors = [score(one, validation).columns["errors"].sum() for one in (constant, by_mean)]
    return by_mean if errors[1] <= errors[0] else constant


def score(baseline: Baseline, clips: Clips) -> Evaluation:
    return table_of(clips, np.arange(len(clips)), baseline.texts(clips), baseline.loss(clips))


def _log_probability(language: CharacterModel, text: str) -> float:
    """Nats, negative, of a whole transcript by its characters alone."""
    context, total = language.context(""), 0.0
    for character in [*text, END]:
        total += language.log_probability(context, character)
        context = context[1:] + character
    return total


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
