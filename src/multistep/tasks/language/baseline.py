"""What a simple model scores: TF-IDF with logistic regression, or the majority where scikit-learn is missing."""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multistep.core.evidence.metric import Evaluation, Floats
from multistep.errors import PlanError
from multistep.tasks.baselines import CONSTANT, KEY, about, read_fitted, write_fitted
from multistep.tasks.calibrated import Calibrated
from multistep.tasks.labelled.answers import of_baseline
from multistep.tasks.labelled.labels import Labels
from multistep.tasks.labelled.score import constant_table, table_of_said
from multistep.tasks.language.examples import NOTHING, Examples, characters_in, taken

MOST_TEXTS = 50_000  # drawn by lot
LEAST_TEXTS = 1000
SCORED_AT_ONCE = 20_000
MOST_FEATURES = 300_000  # the most frequent n-grams
PENALTY = 10.0  # scikit-learn's C; 1 is worth 0.03 less on SST-2, docs/appendix/measured-tasks.md
RIDGE = 1.0
ITERATIONS = 200
SPACELESS = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff]")  # Han, kana, Thai, Lao
SPACELESS_SHARE = 0.2  # of the characters: above, words are not told apart by spaces
SECOND = " \uff5c "  # between the two texts of a pair
WORDS, CHARACTERS = "words and pairs of words", "characters and pairs of characters"
TERMS = "terms.json"  # the n-grams, in the order of the model's coefficients
FEATURES = """A text in lower case, as {units}, each weighted by TF-IDF: how often it stands in the text, and in how \
few texts of train. What is not in {terms} is left out.{pairs}"""
OF_PAIRS = f" The two texts of a pair are read as one, with '{SECOND}' between them."


@dataclass(frozen=True)
class Baseline:
    """Fitted on the training split, or loaded without it; `model` is None where there is no scikit-learn."""

    name: str
    train: Examples
    labels: Labels
    vectorizer: Any = None
    model: Any = None

    @classmethod
    def fit(cls, train: Examples, labels: Labels, most_characters: int | None = None) -> Baseline:
        """Deterministic, in seconds for tens of thousands of short texts; of long splits `most_characters` are read."""
        simple = "mean" if labels.kind == "number" else "majority"
        try:
            from sklearn.feature_extraction.text import TfidfVectorizer
            from sklearn.linear_model import LogisticRegression, Ridge
            from sklearn.multiclass import OneVsRestClassifier
        except Exception:  # not installed, or made for another numpy
            return cls(simple, train, labels)
        chosen = np.random.default_rng(0).permutation(len(train))[:MOST_TEXTS]
        if most_characters is not None:
            share = min(1.0, most_characters / max(1, characters_in(train)))
            chosen = chosen[: max(LEAST_TEXTS, round(share * len(train)))]
        chosen = np.sort(chosen)
        texts = joined(taken(train, chosen))
        spaceless = is_spaceless(texts)
        vectorizer = TfidfVectorizer(
            analyzer="char" if spaceless else "word", ngram_range=(1, 2), max_features=MOST_FEATURES, lowercase=True
        )
        logistic = LogisticRegression(C=PENALTY, max_iter=ITERATIONS)
        model = {"class": logistic, "classes": OneVsRestClassifier(logistic), "number": Ridge(RIDGE, solver="lsqr")}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # converged or not, and classes without an example
            try:
                features = vectorizer.fit_transform(texts)
            except ValueError:  # no word of two letters anywhere
                return cls(simple, train, labels)
            fitted = model[labels.kind].fit(features, train.labels[chosen])
        kind = "ridge regression" if labels.kind == "number" else "logistic regression"
        some = f", {len(chosen):,} texts" if len(chosen) < len(train) else ""
        of = CHARACTERS if spaceless else WORDS
        return cls(f"TF-IDF of {of} with {kind}{some}", train, labels, vectorizer, fitted)

    def score(self, examples: Examples, settled: Calibrated = Calibrated()) -> Evaluation:  # noqa: B008  # frozen
        """The evaluation of a split, in the columns of the network's own, with probabilities as they are settled."""
        labels, truth = self.labels, examples.labels
        said = None
        if self.model is not None:  # some at a time: those that `evaluate` scores may lie in a file
            at = range(0, len(examples), SCORED_AT_ONCE)
            parts = [np.arange(first, min(first + SCORED_AT_ONCE, len(examples))) for first in at]
            said = np.concatenate([self.says(joined(taken(examples, part))) for part in parts])
        if said is None:
            return constant_table(self.train.labels, truth, labels)
        return table_of_said(of_baseline(said, labels, settled), truth, labels)

    def says(self, texts: Sequence[str]) -> Floats:
        """What the model makes of texts as `joined` gives them: numbers (N,), or probabilities (N, classes)."""
        features = self.vectorizer.transform(texts)
        if self.labels.kind == "number":
            return np.asarray(self.model.predict(features), np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # classes without an example
            probabilities = np.asarray(self.model.predict_proba(features), np.float64)
        if self.labels.kind == "classes":
            # Of a single label scikit-learn gives that it is not there, and that it is.
            return probabilities[:, -len(self.labels.names) :]
        found = np.zeros((len(texts), len(self.labels.names)))
        found[:, self.model.classes_] = probabilities
        return found

    def write(self, folder: Path, task: str, columns: Mapping[str, str] | None = None) -> str:
        """Write it as a model folder, with the columns that it was trained on, by the keys of a plan's data.

        Returns why it cannot be written, or an empty string.
        """
        if self.model is None:
            return CONSTANT
        paired = self.train.seconds is not None
        units = CHARACTERS if self.vectorizer.analyzer == "char" else WORDS
        content = {
            **self.labels.record,
            "pairs": paired,
            "columns": dict(columns or {}),
        }
        features = FEATURES.format(units=units, terms=TERMS, pairs=OF_PAIRS if paired else "")
        bare = copy.copy(self.vectorizer)
        bare.vocabulary_ = {}  # skops makes a file of each number in it: minutes for 80,000
        fitted = {"vectorizer": bare, "model": self.model}
        why_not = write_fitted(folder, task, fitted, name=self.name, features=features, content=content)
        if not why_not:
            terms = sorted(self.vectorizer.vocabulary_, key=self.vectorizer.vocabulary_.__getitem__)
            (folder / TERMS).write_text(json.dumps(terms, ensure_ascii=False, indent=0), encoding="utf-8")
        return why_not

    @classmethod
    def read(cls, model: str) -> Baseline:
        """That of a folder which `write` filled. Raises PlanError where it is damaged or not to be trusted."""
        try:
            from sklearn.feature_extraction.text import TfidfVectorizer
            from sklearn.linear_model import LogisticRegression, Ridge
            from sklearn.multiclass import OneVsRestClassifier
        except Exception as error:
            raise PlanError(f"{model}: needs scikit-learn ({error}); pip install 'multistep[language]'") from error
        said = about(model, "labels", "names", "separator")
        kinds = {"vectorizer": (TfidfVectorizer,), "model": (LogisticRegression, OneVsRestClassifier, Ridge)}
        fitted = read_fitted(model, kinds)
        labels = Labels.recorded(said)
        fitted["vectorizer"].vocabulary_ = _terms(Path(model) / TERMS, len(fitted["vectorizer"].idf_))
        return cls(str(said[KEY]), NOTHING, labels, fitted["vectorizer"], fitted["model"])


def _terms(path: Path, count: int) -> dict[str, int]:
    """The column of each n-gram. Raises PlanError for a file that is damaged or another baseline's."""
    try:
        terms = json.loads(path.read_text(encoding="utf-8"))
        found = {str(term): i for i, term in enumerate(terms)}
    except (OSError, ValueError, TypeError) as error:
        raise PlanError(f"{path}: missing or damaged ({error}); copy the run's own again") from error
    if len(found) != count:
        raise PlanError(f"{path}: holds {len(found):,} n-grams where {count:,} were fitted; copy the run's own again")
    return found


def joined(examples: Examples) -> list[str]:
    """Texts as the baseline reads them: a pair as one."""
    if examples.seconds is None:
        return list(examples.texts)
    return [a + SECOND + b for a, b in zip(examples.texts, examples.seconds, strict=True)]


def is_spaceless(texts: Sequence[str]) -> bool:
    """Whether these texts are mostly in a script that puts no spaces between words."""
    some = "".join(text[:200] for text in texts[:500])
    return len(SPACELESS.findall(some)) > SPACELESS_SHARE * max(1, len(some))
