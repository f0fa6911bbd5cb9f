"""How names and numbers are put into tables."""

from __future__ import annotations

from multistep.core.evidence.metric import METRICS
from multistep.core.evidence.scores import form_of
from multistep.report.words import below_one_folder, changes, optimism_sentence, shortened


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
