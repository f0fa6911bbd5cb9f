"""How names and numbers are put into tables."""

from __future__ import annotations

import json
import math

import numpy as np

from multistep.core.evidence.brief import Brief
from multistep.core.evidence.metric import METRICS, Evaluation, Interval
from multistep.core.evidence.scores import between, form_of
from multistep.report.words import below_one_folder, changes, optimism_sentence, shortened
from multistep.tasks.prediction import Prediction


def test_paths_are_told_by_where_they_differ() -> None:
    """A narrow table cut all of them at the same folder."""
    assert below_one_folder(["/a/b/x/1.png", "/a/b/y/2.png"]) == ("/a/b", ["x/1.png", "y/2.png"])
    assert below_one_folder(["/a/b/1.png"]) == ("/a/b", ["1.png"])
    for names in (["a/1.png", "/b/2.png"], ["/a/1.png", "/b/2.png"], ["good", "bad"], []):
        assert below_one_folder(names) == ("", names)


def test_a_score_that_fell_on_test_as_the_baselines_did_was_not_flattered() -> None:
    found = {"score": 0.06, "low": 0.02, "high": 0.10}
    form = form_of(METRICS["accuracy"])
    harder = optimism_sentence({**found, "baseline": 0.05}, 9, form)
    assert "flattered" not in harder
    assert "scores 5.0 points better than on test, too: test is the harder split" in harder
    assert "so choosing it there flattered it" in optimism_sentence({**found, "baseline": 0.001}, 9, form)


def test_what_others_follow_from_is_named_first_and_what_is_cut_ends_in_an_ellipsis() -> None:
    settings = {"optimizer": {"from": "adamw", "to": "muon"}, "model": {"from": "bag", "to": "cnn"}}
    trial = {"settings": settings, "of": (), "carry": "all", "skip_examples": 0}
    assert changes(trial) == "model bag to cnn, optimizer adamw to muon"
    assert shortened("a film to see", 9) == "a film t\N{HORIZONTAL ELLIPSIS}"
    assert shortened("a film", 6) == "a film"


def test_intervals_of_a_few_errors_stay_within_what_can_be_and_say_when_they_say_nothing() -> None:
    """Three utterances of which one is all wrong: a word error rate of `0 to 617%` told nobody anything."""
    blocks = np.arange(3.0)
    table = {"errors": np.array([0.0, 0.0, 6.0]), "words": np.array([5.0, 4.0, 5.0]), "block": blocks}
    interval = METRICS["wer"].interval(Evaluation(table))
    assert 0.0 <= interval.low < interval.score < interval.high <= 1.0
    assert between(METRICS["wer"], interval) == "too few to say"
    right = {"label": np.ones(3), "prediction": np.array([1.0, 1.0, 0.0]), "block": blocks}
    assert between(METRICS["accuracy"], METRICS["accuracy"].interval(Evaluation(right))) == "too few to say"
    assert between(METRICS["accuracy"], Interval(0.8, 0.7, 0.9, 100, 100)) == "70.0 to 90.0%"


def test_what_python_users_print_is_short_and_what_they_hold_is_exact() -> None:
    found = Brief(
        {"score": 1 / 3, "n": 1118, "scores": {"loss": {"high": 0.12345678, "unit": "nats"}}, "low": -math.inf}
    )
    assert (
        repr(found) == "{'score': 0.3333, 'n': 1118, 'scores': {'loss': {'high': 0.1235, 'unit': 'nats'}}, 'low': -inf}"
    )
    assert repr(found["scores"]) == "{'loss': {'high': 0.1235, 'unit': 'nats'}}"
    assert found["score"] == 1 / 3
    assert json.loads(json.dumps({"score": found["score"]})) == {"score": 1 / 3}
    assert (
        repr(Prediction("a", "b", 1 / 3, {"b": 2 / 3}))
        == "Prediction(input='a', output='b', probability=0.3333, others={'b': 0.6667})"
    )
