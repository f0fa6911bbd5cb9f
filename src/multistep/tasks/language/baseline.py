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
import torch

from multistep.core.evidence.metric import Evaluation, Floats, metric_named
from multistep.data.table import quoted
from multistep.errors import PlanError
from multistep.tasks.baselines import CONSTANT, KEY, about, read_fitted, write_fitted
from multistep.tasks.classes import majority, table_of_probabilities
from multistep.tasks.language.labels import Labels
from multistep.tasks.language.score import number_table, several_table
from multistep.tasks.language.splits import NOTHING, Examples

MOST_TEXTS = 50_000  # drawn by lot
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
    def fit(cls, train: Examples, labels: Labels) -> Baseline:
        """Deterministic, in seconds for tens of thousands of short texts."""
        simple = "mean" if labels.kind == "number" else "majority"
        try:
            from sklearn.feature_extraction.text import TfidfVectorizer
            from sklearn.linear_model import LogisticRegression, Ridge
            from sklearn.multiclass import OneVsRestClassifier
        except Exception:  # not installed, or made for another numpy
            return cls(simple, train, labels)
        chosen = np.sort(np.random.default_rng(0).permutation(len(train))[:MOST_TEXTS])
        texts = joined(train)
        texts = [texts[i] for i in chosen.tolist()]
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

    def score(self, examples: Examples) -> Evaluation:
        """The evaluation of a split, in the columns of the network's own."""
        labels, truth = self.labels, examples.labels
        said = self.says(joined(examples)) if self.model is not None else None
        if labels.kind == "number":
            if said is None:
                mean = float(self.train.labels.mean())
                # Labels and predictions that are all whole would look like classes.
                return number_table(truth, np.full(len(truth), mean + 1e-9 * (1.0 + abs(mean))))
            return number_table(truth, said)
        if labels.kind == "classes":
            return self._several(truth.astype(np.float64), said)
        if said is None:
            return majority(self.train.labels.astype(np.int64), truth.astype(np.int64), len(labels.names))
        return table_of_probabilities(said, truth.astype(np.int64))

    def says(self, texts: Sequence[str]) -> Floats:
        """What the model makes of texts as `joined` gives them: numbers (N,), or probabilities (N, classes)."""
        features = self.vectorizer.transform(texts)
        if self.labels.kind == "number":
            return np.asarray(self.model.predict(features), np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # classes without an example
            probabilities = np.asarray(self.model.predict_proba(features), np.float64)
        if self.labels.kind == "classes":
            return probabilities
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
            "labels": self.labels.kind,
            "names": list(self.labels.names),
            "separator": self.labels.separator,
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
        labels = Labels(said["labels"], tuple(said["names"]), said["separator"])
        fitted["vectorizer"].vocabulary_ = _terms(Path(model) / TERMS, len(fitted["vectorizer"].idf_))
        return cls(str(said[KEY]), NOTHING, labels, fitted["vectorizer"], fitted["model"])

    def _several(self, truth: Floats, said: Floats | None) -> Evaluation:
        probability = said
        if probability is None:
            probability = np.tile((self.train.labels.sum(0) + 1.0) / (len(self.train) + 2.0), (len(truth), 1))
        likely = np.clip(probability, 1e-12, 1 - 1e-12)
        losses = -(truth * np.log(likely) + (1 - truth) * np.log1p(-likely)).sum(1)
        log_odds = torch.from_numpy(np.log(likely) - np.log1p(-likely))
        return several_table(truth, (probability > 0.5).astype(np.float64), losses, log_odds)


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


def majority_note(train: Examples, validation: Examples, labels: Labels) -> str:
    """What always saying the same scores on the validation split: the most frequent class or classes, or the mean."""
    if labels.kind == "number":
        mean = float(train.labels.mean())
        error = float(np.square(validation.labels - mean).mean())
        return f"always saying {mean:.4g}, the mean of train, has a mean squared error of {error:.4g} on validation"
    if labels.kind == "class":
        most = int(np.bincount(train.labels.astype(np.int64), minlength=len(labels.names)).argmax())
        share = float((validation.labels == most).mean())
        name = labels.names[most]
        return f"always saying '{name}', the most frequent class of train, is right {share:.1%} of validation"
    shares = train.labels.mean(0)
    usual = shares > 0.5 if (shares > 0.5).any() else np.arange(len(shares)) == shares.argmax()
    truth = validation.labels.astype(np.float64)
    said = np.tile(usual.astype(np.float64), (len(truth), 1))
    score = metric_named("micro_f1").score(several_table(truth, said, np.zeros(len(truth))))
    names = quoted(name for name, there in zip(labels.names, usual.tolist(), strict=True) if there)
    return f"always saying {names}, what is most frequent in train, has a micro F1 of {score:.3f} on validation"
